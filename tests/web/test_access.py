"""What is logged of a request: its route and how it went, never what it asked or brought."""

from __future__ import annotations

import logging
from typing import Any

import httpx2
import pytest

from tests.house import until

Look = Any


@pytest.fixture
def requests(caplog: pytest.LogCaptureFixture) -> Look:
    """What was logged of that many requests since the test began, as (level, fields).

    A line is written when the request has ended, which its client may see before the log does."""
    caplog.set_level(logging.DEBUG, logger="scanner")

    def lines() -> list[logging.LogRecord]:
        return [record for record in caplog.records if record.name == "scanner.web.access"]

    def look(count: int) -> list[tuple[str, dict[str, Any]]]:
        until(f"{count} requests are logged", lambda: len(lines()) >= count)
        names = ("method", "route", "status")
        return [
            (record.levelname, {name: vars(record)[name] for name in names}) for record in lines()
        ]

    return look


def test_a_request_is_one_line(site, requests: Look, event, caplog) -> None:
    assert site.deliver(event()).status_code == 202
    ((level, fields),) = requests(1)
    assert level == "INFO"
    assert fields == {"method": "POST", "route": "/webhooks/github", "status": 202}
    (record,) = (r for r in caplog.records if r.name == "scanner.web.access")
    assert 0 < record.ms < 60_000
    assert {r.message for r in caplog.records if r.name.startswith("scanner")} == {
        "push accepted", "request"
    }  # fmt: skip


def test_the_template_stands_for_the_path(site, requests: Look, caplog) -> None:
    bearer = site.services.settings.api_bearer
    for path in (
        "/api/v1/leaks/very-secret?token=very-secret", "/very-secret", "/?token=very-secret"
    ):  # fmt: skip
        site.get(path, bearer)
    site.http.request("BREW", "/very-secret", headers={"X": "very-secret"})
    site.http.post("/webhooks/github", content=b"very-secret")
    assert [fields for _, fields in requests(5)] == [
        {"method": "GET", "route": "/api/v1/leaks/{incident_id}", "status": 404},
        {"method": "GET", "route": "none", "status": 404},
        {"method": "GET", "route": "/", "status": 200},
        {"method": "other", "route": "none", "status": 404},
        {"method": "POST", "route": "/webhooks/github", "status": 401},
    ]
    assert "very-secret" not in "".join(
        str(vars(r)) for r in caplog.records if r.name.startswith(("scanner", "uvicorn"))
    )


def test_probes_are_not_worth_a_line(site, requests: Look) -> None:
    for path in ("/healthz", "/readyz"):
        site.get(path)
    assert [level for level, _ in requests(2)] == ["DEBUG", "DEBUG"]


def test_a_fault_of_ours_is_a_line_too(serve, requests: Look, caplog) -> None:
    with serve() as site:

        @site.app.get("/broken")
        def broken() -> None:
            raise RuntimeError("whatever-it-says")

        with httpx2.Client(base_url=site.http.base_url, trust_env=False) as http:
            assert http.get("/broken").status_code == 500
    assert requests(1) == [("INFO", {"method": "GET", "route": "/broken", "status": 500})]
    caplog.clear()  # uvicorn logs the exception itself: what becomes of it, test_logs.py tells
