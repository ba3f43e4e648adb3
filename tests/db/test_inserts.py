"""Very many rows at once: whatever stands in them comes out again, and all or none come in."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, select, text

from scanner.db.inserts import count_anew, insert_many
from scanner.db.schema import outbox
from scanner.errors import ConflictError
from tests.databases import on_postgresql

COLUMNS = (
    "id", "kind", "dedupe", "notice", "created_at", "state", "available_at", "attempts", "retries",
    "fence", "subject",
)  # fmt: skip
TEXTS = (
    None, "", "plain", "a\tb", "a\nb", "a\rb", "\\", "\\N", r"\t", "NULL", "\N{DANGO}",
    "\\\\N", "é\\",
)  # fmt: skip


def row(number: int, subject: str | None) -> tuple[str | int | None, ...]:
    return f"{number:03}", "leak", f"d{number}", "{}", 1 << 40, "done", 0, 0, 0, 0, subject


def subjects(engine: Engine) -> list[str | None]:
    with engine.connect() as connection:
        return list(connection.execute(select(outbox.c.subject).order_by(outbox.c.id)).scalars())


@pytest.mark.parametrize("subject", TEXTS)
def test_any_text_comes_out_as_it_came_in(engine: Engine, subject: str | None) -> None:
    with engine.begin() as connection:
        insert_many(connection, outbox, COLUMNS, [row(1, "before"), row(2, subject), row(3, None)])
    assert subjects(engine) == ["before", subject, None]


def test_texts_that_make_up_for_each_other_are_told_apart(engine: Engine) -> None:
    """What is missing in one row stands in another: no sum may be taken for order."""
    with engine.begin() as connection:
        insert_many(connection, outbox, COLUMNS, [row(n, one) for n, one in enumerate(TEXTS)])
    assert subjects(engine) == list(TEXTS)


def test_one_that_is_there_already_keeps_all_out(engine: Engine) -> None:
    with engine.begin() as connection:
        insert_many(connection, outbox, COLUMNS, [row(1, "first")])
    with pytest.raises(ConflictError), engine.begin() as connection:
        insert_many(connection, outbox, COLUMNS, [row(2, "second"), row(1, "again")])
    assert subjects(engine) == ["first"]


@on_postgresql
def test_a_table_that_has_grown_is_looked_at(engine: Engine) -> None:
    with engine.begin() as connection:
        insert_many(connection, outbox, COLUMNS, [row(n, None) for n in range(500)])
        count_anew(connection, outbox)
    with engine.connect() as connection:
        known = text("SELECT reltuples FROM pg_class WHERE relname = 'outbox'")
        assert connection.execute(known).scalar_one() == 500
