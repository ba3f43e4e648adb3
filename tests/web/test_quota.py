"""Look-ups have a quota for each caller (threat 5), which nothing goes round."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx2
import pytest
from sqlalchemy import text, update

from scanner.db.engine import create_database_engine
from scanner.db.schema import quotas
from scanner.web.quota import Quota, QuotaUsedUpError
from tests.web.conftest import EVER_MS

LIMIT = 500
PATHS = ("/oauth/introspect", "/api/v1/introspect")


@pytest.fixture
def site(serve: Callable[..., Any]) -> Iterator[Any]:
    with serve(lookups=LIMIT) as served:
        yield served


def signed(site: Any, role: str = "service") -> Mapping[str, str]:
    bearer = getattr(site.services.settings, f"{role}_bearers")[0]
    return {"Authorization": f"Bearer {bearer}"}


def ask(site: Any, *tokens: str, role: str = "service") -> httpx2.Response:
    return site.http.post("/api/v1/introspect", json={"tokens": tokens}, headers=signed(site, role))


def introspect(site: Any, token: str, role: str = "service") -> httpx2.Response:
    return site.http.post("/oauth/introspect", data={"token": token}, headers=signed(site, role))


def spend(site: Any, amount: int) -> None:
    answer = ask(site, *(secrets.token_hex(20) for _ in range(amount)))
    assert answer.status_code == 200
    assert len(answer.json()["answers"]) == amount


def refused(answer: httpx2.Response) -> bool:
    if answer.status_code != 429:
        return False
    assert int(answer.headers["retry-after"]) >= 1
    assert set(answer.json()) == {"error"}
    return True


def test_known_and_unknown_tokens_cost_the_same(site: Any) -> None:
    known, _ = site.issue()
    spend(site, LIMIT - 5)
    for token in (known, "unknown", known, "unknown"):
        assert introspect(site, token).status_code == 200
    assert ask(site, known).status_code == 200
    for token in (known, "unknown"):
        assert refused(introspect(site, token))
        assert refused(ask(site, token))
    assert introspect(site, known).content == introspect(site, "unknown").content


def test_a_batch_is_answered_whole_or_not_at_all(site: Any) -> None:
    spend(site, LIMIT - 10)
    assert refused(ask(site, *("x" * 20,) * 12))  # which has paid for its request
    spend(site, 9)
    assert refused(ask(site))


def test_what_fails_is_no_way_round(site: Any) -> None:
    """A question that is refused, or cannot be read, costs what a request costs."""
    spend(site, LIMIT - 6)
    headers = signed(site)
    bad = [
        site.http.post("/oauth/introspect", data={"no": "token"}, headers=headers),
        site.http.post("/oauth/introspect", content=b"x" * 70_000, headers=headers),
        site.http.post("/api/v1/introspect", content=b"{", headers=headers),
        site.http.post("/api/v1/introspect", content=b"<x>", headers={
            **headers, "Content-Type": "text/xml"}),
        site.http.post("/api/v1/introspect", json={"tokens": ["x"] * 501}, headers=headers),
        site.http.get("/api/v1/tokens/nothing", headers=headers),
    ]  # fmt: skip
    assert [answer.status_code for answer in bad] == [400, 413, 422, 415, 422, 404]
    assert refused(introspect(site, "x"))


def test_callers_have_a_quota_each_and_strangers_cost_them_nothing(site: Any) -> None:
    for _ in range(20):
        for path in PATHS:
            assert site.http.post(path, headers={"Authorization": "Bearer x"}).status_code == 401
    spend(site, LIMIT)
    assert refused(introspect(site, "x"))
    assert introspect(site, "x", "admin").status_code == 200


def test_revoking_is_not_held_up(site: Any) -> None:
    token, token_id = site.issue()
    spend(site, LIMIT)
    assert refused(site.http.get(f"/api/v1/tokens/{token_id}", headers=signed(site)))
    answer = site.http.post("/oauth/revoke", data={"token": token}, headers=signed(site))
    assert answer.status_code == 200
    assert ask(site, token, role="admin").json()["answers"][0]["validity"] == "revoked"


def test_without_the_database_nothing_is_answered(site: Any) -> None:
    """Not even what this process has taken in advance: the tokens are there as well."""
    with site.services.database.begin() as connection:
        connection.execute(text("ALTER TABLE quotas RENAME TO gone"))
    for answer in (introspect(site, "x"), ask(site, "x")):
        assert answer.status_code == 503


# Several processes, and minutes.


@pytest.fixture
def build(database_url: str) -> Iterator[Callable[..., Quota]]:
    """The quota as each of several web processes has it."""
    engines = []

    def make(limit: int, each_ms: int = EVER_MS) -> Quota:
        engines.append(create_database_engine(database_url))
        return Quota(engines[-1], limit, each_ms)

    yield make
    for engine in engines:
        engine.dispose()


def count(quota: Quota) -> int:
    """How many are to be had."""
    for times in range(10_000):
        try:
            quota.spend("a", 1)
        except QuotaUsedUpError:
            return times
    raise AssertionError("there is no end to it")


def test_several_processes_give_the_limit_and_no_more(build: Callable[..., Quota]) -> None:
    processes = [build(1_000) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(count, processes * 2)) == 1_000
    assert [count(one) for one in processes] == [0] * 4


def test_what_one_process_took_in_advance_is_no_others(build: Callable[..., Quota]) -> None:
    first, second = build(1_000), build(1_000)
    first.spend("a", 1)  # a hundredth is taken in advance
    assert count(second) == 990
    assert count(first) == 9
    assert count(second) == 0


def test_a_new_minute_is_a_new_quota(build: Callable[..., Quota], database_url: str) -> None:
    assert count(build(500)) == 500
    assert count(build(500)) == 0
    engine = create_database_engine(database_url)
    with engine.begin() as connection:  # as if it had been used up in the one before
        connection.execute(update(quotas).values(window=quotas.c.window - 1))
    engine.dispose()
    assert count(build(500)) == 500


def test_a_process_sees_that_the_time_is_over(build: Callable[..., Quota]) -> None:
    """It has used up what the database gave, and asks it again when that time has passed."""
    quota = build(1, each_ms=20)
    quota.spend("a", 1)
    given, deadline = 0, time.monotonic() + 30
    while given < 5:
        assert time.monotonic() < deadline
        with suppress(QuotaUsedUpError):
            quota.spend("a", 1)
            given += 1


def test_more_than_is_left_is_refused_and_less_is_not(build: Callable[..., Quota]) -> None:
    quota = build(500)
    quota.spend("a", 400)
    for amount in (500, 101):
        with pytest.raises(QuotaUsedUpError):
            quota.spend("a", amount)
    quota.spend("a", 100)
    assert count(quota) == 0
    quota.spend("b", 500)


def test_a_minute_is_the_longest_wait(database_url: str) -> None:
    engine = create_database_engine(database_url)
    with pytest.raises(QuotaUsedUpError) as refusal:
        Quota(engine, 500).spend("a", 501)
    engine.dispose()
    assert 1 <= refusal.value.retry_after <= 60
