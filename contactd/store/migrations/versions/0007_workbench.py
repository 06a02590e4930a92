"""The workbench: what was said of a fault, tickets that became one, forms that are sent once."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | Sequence[str] | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

INSTANT = sa.String(length=32).with_variant(sa.DateTime(timezone=True), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("tickets", sa.Column("standard", sa.JSON(), server_default="{}", nullable=False))
    op.add_column("tickets", sa.Column("merged_into", ID))
    op.create_index("ix_tickets_merged_into", "tickets", ["merged_into"])
    op.create_table(
        "once",
        sa.Column("key", sa.String(length=80), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_once"),
    )
    op.create_index("ix_once_at", "once", ["at"])
