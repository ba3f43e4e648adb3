"""From a push to a durable row: once for each hook, free text masked, and sealed to its row."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from scanner.bootstrap import Services
from scanner.db.engine import reader
from scanner.db.schema import repositories, scans
from scanner.db.upgrade import upgrade_database
from scanner.errors import FinalError
from scanner.settings import load_settings
from scanner.sources.github_push import Push

Rows = Callable[[], list[Any]]


@pytest.fixture
def services(tmp_path: Path, database_url: str) -> Iterator[Services]:
    built = Services(load_settings({"data_dir": tmp_path / "data", "database_url": database_url}))
    yield built
    built.engine.dispose()


@pytest.fixture
def rows(services: Services) -> Rows:
    def read() -> list[Any]:
        query = select(scans, repositories.c.host, repositories.c.name).join(
            repositories, repositories.c.id == scans.c.repository_id
        )
        with reader(services.database).connect() as connection:
            return list(connection.execute(query.order_by(scans.c.received_at)).mappings())

    return read


def push(**fields: Any) -> Push:
    values: dict[str, Any] = {
        "hook": "default", "repository": "acme/app", "ref": "refs/heads/main",
        "before": "0" * 40, "after": "a" * 40, "forced": False, **fields,
    }  # fmt: skip
    values.setdefault("body_digest", hashlib.sha256(repr(values).encode()).hexdigest())
    return Push(**values)


def test_a_push_becomes_a_row_before_it_is_answered(services: Services, rows: Rows) -> None:
    scan_id, is_new = services.intake.accept(push(forced=True), "delivery-1")
    (row,) = rows()
    assert (scan_id, is_new) == (row["id"], True)
    assert {
        "source": "github-webhook", "hook": "default", "host": "https://github.com",
        "name": "acme/app", "ref": "refs/heads/main", "before": "0" * 40, "after": "a" * 40,
        "forced": True, "delivery": "delivery-1", "sealed": None, "state": "pending",
        "attempts": 0, "retries": 0, "error": None, "partial": [],
    }.items() <= row.items()  # fmt: skip


def test_the_same_body_twice_is_one_scan(services: Services, rows: Rows) -> None:
    first = services.intake.accept(push(), "delivery-1")
    again = services.intake.accept(push(), "delivery-2")  # the id is a hint outside the signature
    assert (again, first[1]) == ((first[0], False), True)
    assert [row["delivery"] for row in rows()] == ["delivery-1"]


def test_another_body_or_another_hook_is_another_scan(services: Services, rows: Rows) -> None:
    one = push()
    pushes = [
        one,
        push(hook="other", body_digest=one.body_digest),
        push(body_digest="b" * 64),  # the same push, worded differently
        push(after="c" * 40),
    ]
    ids = {services.intake.accept(each, "delivery-1")[0] for each in pushes}
    assert len(ids) == len(pushes)
    assert len({row["repository_id"] for row in rows()}) == 1


@pytest.mark.parametrize(
    ("state", "is_woken"),
    [("parked", True), ("done", False), ("partial", False), ("running", False)],
)
def test_a_delivery_that_comes_again_wakes_what_is_parked(
    services: Services, rows: Rows, state: str, is_woken: bool
) -> None:
    scan_id, _ = services.intake.accept(push(), None)
    worn = {"state": state, "attempts": 5, "retries": 9, "error": "no repository", "fence": 7}
    with services.database.begin() as connection:
        connection.execute(update(scans).values(available_at=1, lease_until=2**60, **worn))
    assert services.intake.accept(push(), None) == (scan_id, False)
    (row,) = rows()
    if not is_woken:
        assert worn.items() <= row.items()
        return
    fresh = {"state": "pending", "attempts": 0, "retries": 0, "error": None, "fence": 7}
    assert fresh.items() <= row.items()
    assert row["available_at"] >= row["received_at"]


def test_a_token_in_a_name_is_masked_and_sealed(
    services: Services, rows: Rows, token: Callable[[], str]
) -> None:
    in_ref, in_name, in_delivery = token(), token(), token()
    raw = {"ref": f"refs/heads/x/{in_ref}", "repository": f"acme/{in_name}"}
    one = push(**raw)
    services.intake.accept(one, in_delivery)
    (row,) = rows()
    assert row["ref"] == f"refs/heads/x/npm_…{in_ref[-4:]}"
    assert row["name"] == f"acme/npm_…{in_name[-4:]}"
    assert row["delivery"] == f"npm_…{in_delivery[-4:]}"
    shown = repr(dict(row))
    for secret in (in_ref, in_name, in_delivery):
        assert secret[4:] not in shown
    assert services.sealer.open(one.body_digest, row["sealed"]) == raw


def test_a_sealed_name_opens_for_its_own_row_only(
    services: Services, rows: Rows, token: Callable[[], str]
) -> None:
    one = push(ref=f"refs/heads/{token()}")
    services.intake.accept(one, None)
    sealed = rows()[0]["sealed"]
    with pytest.raises(FinalError, match="moved"):
        services.sealer.open("b" * 64, sealed)
    with pytest.raises(FinalError, match="cannot be opened"):
        services.sealer.open(one.body_digest, sealed[:-1] + bytes([sealed[-1] ^ 1]))


def test_a_parked_scan_that_is_woken_has_its_sealed_name_again(
    services: Services, rows: Rows, token: Callable[[], str]
) -> None:
    one = push(ref=f"refs/heads/{token()}")
    services.intake.accept(one, None)
    with services.database.begin() as connection:
        connection.execute(update(scans).values(state="parked", sealed=None))
    services.intake.accept(one, None)
    assert services.sealer.open(one.body_digest, rows()[0]["sealed"])["ref"] == one.ref


def test_a_token_beyond_what_is_shown_of_a_long_ref_is_not_lost(
    services: Services, rows: Rows, token: Callable[[], str]
) -> None:
    # The cut lies inside the token: what is cut before it is masked would show its beginning.
    secret = token()
    one = push(ref="refs/heads/".ljust(380, "/") + secret)
    services.intake.accept(one, (" " * 80) + secret)
    (row,) = rows()
    assert secret[4:12] not in repr(dict(row))
    assert len(row["ref"]) <= 400
    assert len(row["delivery"]) <= 100
    assert services.sealer.open(one.body_digest, row["sealed"])["ref"] == one.ref


@pytest.mark.parametrize(
    "ref", ["refs/heads/ü🙂", "refs/heads/\0\x1b[2J", "refs/" + "x" * 4_000], ids=range(3)
)
def test_a_ref_of_any_kind_can_be_stored(services: Services, rows: Rows, ref: str) -> None:
    services.intake.accept(push(ref=ref), "é\x80")
    (row,) = rows()
    assert (row["ref"], row["sealed"]) == (ref[:400].replace("\0", "\ufffd"), None)


def test_the_address_is_built_from_the_setting(tmp_path: Path) -> None:
    settings = load_settings({"data_dir": tmp_path, "github_url": "https://git.example/"})
    built = Services(settings)
    upgrade_database(built.engine)
    built.intake.accept(push(), None)
    with reader(built.database).connect() as connection:
        assert connection.execute(select(repositories.c.host)).scalars().all() == [
            "https://git.example"
        ]
    built.engine.dispose()
