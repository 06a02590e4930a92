"""Mail: what is known of each, their Message-IDs, their HTML; addresses that bounce; keys."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | Sequence[str] | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.String(length=32).with_variant(sa.DateTime(timezone=True), "postgresql")


def upgrade() -> None:
    op.add_column("addresses", sa.Column("bounced_at", INSTANT, nullable=True))
    op.add_column("contacts", sa.Column("mail", sa.JSON(none_as_null=True), nullable=True))
    content_id = sa.Column("content_id", sa.String(254), server_default="", nullable=False)
    op.add_column("attachments", content_id)
    op.create_table(
        "mail_ids",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("contact_id", ID, nullable=False),
        sa.ForeignKeyConstraint(["contact_id"], ["contacts.id"], name="fk_mail_ids_contact_id"),
        sa.PrimaryKeyConstraint("digest", "contact_id", name="pk_mail_ids"),
    )
    op.create_table(
        "mail_pages",
        sa.Column("contact_id", ID, nullable=False),
        sa.Column("html", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["contact_id"], ["contacts.id"], name="fk_mail_pages_contact_id"),
        sa.PrimaryKeyConstraint("contact_id", name="pk_mail_pages"),
    )
    op.create_table(
        "keys",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("value", sa.LargeBinary(length=32), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_keys"),
    )
