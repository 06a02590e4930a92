"""Alembic's entry: runs the revisions in the connection that `run` put into the attributes."""

from alembic import context

from contactd.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    compare_type=True,
)
# The caller's transaction holds everything: a revision that fails leaves nothing half done.
context.run_migrations()
