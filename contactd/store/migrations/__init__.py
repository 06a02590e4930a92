"""Alembic's revisions; `contactd migrate` runs them."""
