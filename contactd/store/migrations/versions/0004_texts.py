"""Texts: what a gateway was handed, reports, parts of long ones, numbers that want none."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | Sequence[str] | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

INSTANT = sa.String(length=32).with_variant(sa.DateTime(timezone=True), "postgresql")


def upgrade() -> None:
    op.create_index("ix_notifications_address", "notifications", ["address", "created_at"])
    op.create_table(
        "texts",
        sa.Column("ref", sa.String(length=120), nullable=False),
        sa.Column("gateway", sa.String(length=16), nullable=False),
        sa.Column("message_id", sa.String(length=80), server_default="", nullable=False),
        sa.Column("number", sa.String(length=16), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("segments", sa.Integer(), nullable=False),
        sa.Column("delivery", sa.String(length=16), server_default="", nullable=False),
        sa.Column("error", sa.String(length=80), server_default="", nullable=False),
        sa.Column("handed_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("ref", name="pk_texts"),
    )
    op.create_index("ix_texts_message_id", "texts", ["gateway", "message_id"])
    op.create_index("ix_texts_number", "texts", ["number", "handed_at"])
    op.create_index("ix_texts_handed_at", "texts", ["handed_at"])
    op.create_table(
        "text_reports",
        sa.Column("gateway", sa.String(length=16), nullable=False),
        sa.Column("message_id", sa.String(length=80), nullable=False),
        sa.Column("delivery", sa.String(length=16), nullable=False),
        sa.Column("error", sa.String(length=80), server_default="", nullable=False),
        sa.Column("reported_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("gateway", "message_id", name="pk_text_reports"),
    )
    op.create_index("ix_text_reports_reported_at", "text_reports", ["reported_at"])
    op.create_table(
        "text_parts",
        sa.Column("gateway", sa.String(length=16), nullable=False),
        sa.Column("sender", sa.String(length=32), nullable=False),
        sa.Column("recipient", sa.String(length=32), nullable=False),
        sa.Column("reference", sa.Integer(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("series", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("given_up", sa.Boolean(), server_default="0", nullable=False),
        sa.Column("received_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint(
            "gateway",
            "sender",
            "recipient",
            "reference",
            "total",
            "series",
            "number",
            name="pk_text_parts",
        ),
    )
    op.create_index("ix_text_parts_received_at", "text_parts", ["received_at"])
    op.create_table(
        "opt_outs",
        sa.Column("number", sa.String(length=16), nullable=False),
        sa.Column("word", sa.String(length=40), nullable=False),
        sa.Column("since", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_opt_outs"),
    )
