"""Search and saved filters of the ticket list."""

from collections.abc import Mapping, Sequence
from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TSVECTOR

revision: str = "0006"
down_revision: str | Sequence[str] | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

INSTANT = sa.String(length=32).with_variant(sa.DateTime(timezone=True), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# The full-text index of SQLite follows its table. That a person's name or addresses changed is
# noted where it is done, whoever does it; of somebody who has no ticket yet nothing is indexed.
_NOTED: Final = (
    "INSERT INTO search_people (person_id) {person}"
    " ON CONFLICT (person_id) DO UPDATE SET version = search_people.version + 1"
)
_HAS_TICKETS: Final = "SELECT 1 FROM tickets WHERE requester_id = {person}"
_OF_PERSON: Final = _HAS_TICKETS.format(person="person")
STATEMENTS: Final[Mapping[str, Sequence[str]]] = {
    "sqlite": (
        "CREATE VIRTUAL TABLE search_index USING fts5(terms, content='search_texts',"
        " content_rowid='ticket_id', tokenize=\"ascii tokenchars '_~.-'\", detail=none,"
        " columnsize=0)",
        "CREATE TRIGGER search_texts_came AFTER INSERT ON search_texts BEGIN"
        " INSERT INTO search_index (rowid, terms) VALUES (NEW.ticket_id, NEW.terms); END",
        "CREATE TRIGGER search_texts_went AFTER DELETE ON search_texts BEGIN"
        " INSERT INTO search_index (search_index, rowid, terms)"
        " VALUES ('delete', OLD.ticket_id, OLD.terms); END",
        "CREATE TRIGGER search_texts_changed AFTER UPDATE OF terms ON search_texts"
        " WHEN OLD.terms <> NEW.terms BEGIN"
        " INSERT INTO search_index (search_index, rowid, terms)"
        " VALUES ('delete', OLD.ticket_id, OLD.terms);"
        " INSERT INTO search_index (rowid, terms) VALUES (NEW.ticket_id, NEW.terms); END",
        *(
            f"CREATE TRIGGER {name} AFTER {event} WHEN {changed} EXISTS"
            f" ({_HAS_TICKETS.format(person=person)}) BEGIN"
            f" {_NOTED.format(person=f'SELECT {person} WHERE true')}; END"
            for name, event, person, changed in (
                (
                    "people_renamed", "UPDATE OF name, department ON people", "NEW.id",
                    "(OLD.name <> NEW.name OR OLD.department <> NEW.department) AND",
                ),
                ("addresses_came", "INSERT ON addresses", "NEW.person_id", ""),
                ("addresses_went", "DELETE ON addresses", "OLD.person_id", ""),
            )
        ),
        "CREATE TRIGGER addresses_moved AFTER UPDATE OF person_id, value ON addresses"
        " WHEN OLD.person_id <> NEW.person_id OR OLD.value <> NEW.value BEGIN"
        f" {_NOTED.format(person='SELECT NEW.person_id WHERE true')};"
        f" {_NOTED.format(person='SELECT OLD.person_id WHERE true')}; END",
    ),
    "postgresql": (
        # Rows stay short, so that a thousand of them are read from a few pages.
        "ALTER TABLE search_texts SET (toast_tuple_target = 128)",
        "CREATE INDEX ix_search_texts_terms ON search_texts USING gin (terms)"
        " WITH (fastupdate = off)",
        f"""CREATE FUNCTION note_person(person bigint) RETURNS void LANGUAGE sql AS $$
        {_NOTED.format(person=f"SELECT person WHERE EXISTS ({_OF_PERSON})")}
        $$""",
        """CREATE FUNCTION people_changed() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM note_person(NEW.id); RETURN NULL; END $$""",
        """CREATE FUNCTION addresses_changed() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF TG_OP <> 'DELETE' THEN PERFORM note_person(NEW.person_id); END IF;
          IF TG_OP <> 'INSERT' THEN PERFORM note_person(OLD.person_id); END IF;
          RETURN NULL;
        END $$""",
        """CREATE TRIGGER people_renamed AFTER UPDATE OF name, department ON people FOR EACH ROW
        WHEN (OLD.name <> NEW.name OR OLD.department <> NEW.department)
        EXECUTE FUNCTION people_changed()""",
        """CREATE TRIGGER addresses_came AFTER INSERT OR DELETE ON addresses FOR EACH ROW
        EXECUTE FUNCTION addresses_changed()""",
        """CREATE TRIGGER addresses_moved AFTER UPDATE OF person_id, value ON addresses FOR EACH ROW
        WHEN (OLD.person_id <> NEW.person_id OR OLD.value <> NEW.value)
        EXECUTE FUNCTION addresses_changed()""",
    ),
}  # fmt: skip


def upgrade() -> None:
    for name, table, column, rows in (  # for the figures of the status page
        ("ix_clocks_stopped_at", "clocks", "stopped_at", "stopped_at IS NOT NULL"),
        ("ix_clocks_breached_at", "clocks", "breached_at", "breached_at IS NOT NULL"),
        ("ix_journal_rated", "journal", "at", "action = 'rated'"),
    ):
        op.create_index(
            name,
            table,
            [column],
            sqlite_where=sa.text(rows),
            postgresql_where=sa.text(rows),
        )
    op.create_index("ix_tickets_updated_at", "tickets", ["updated_at"])
    op.create_table(
        "search_texts",
        sa.Column("ticket_id", ID, autoincrement=False, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("terms", sa.Text().with_variant(TSVECTOR(), "postgresql"), nullable=False),
        sa.Column("journal_seq", sa.Integer(), nullable=False),
        sa.Column("seen_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["ticket_id"], ["tickets.id"], name="fk_search_texts_ticket_id"),
        sa.PrimaryKeyConstraint("ticket_id", name="pk_search_texts"),
    )
    op.create_table(
        "search_people",
        sa.Column("person_id", ID, autoincrement=False, nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name="fk_search_people_person_id"),
        sa.PrimaryKeyConstraint("person_id", name="pk_search_people"),
    )
    op.create_table(
        "list_filters",
        sa.Column("id", ID, nullable=False),
        sa.Column("owner", sa.String(length=88), nullable=False),
        sa.Column("name", sa.String(length=60), nullable=False),
        sa.Column("query", sa.String(length=1000), nullable=False),
        sa.Column("shared", sa.Boolean(), server_default="0", nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_list_filters"),
        sa.UniqueConstraint("owner", "name", name="uq_list_filters_owner_name"),
    )
    op.create_table(
        "list_defaults",
        sa.Column("owner", sa.String(length=88), nullable=False),
        sa.Column("filter_id", ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["filter_id"], ["list_filters.id"], name="fk_list_defaults_filter_id"
        ),
        sa.PrimaryKeyConstraint("owner", name="pk_list_defaults"),
    )
    op.create_index("ix_list_defaults_filter_id", "list_defaults", ["filter_id"])
    for statement in STATEMENTS[op.get_bind().dialect.name]:
        op.execute(statement)
