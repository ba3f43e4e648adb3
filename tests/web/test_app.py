"""The API over real HTTP: who gets an answer, which one, and what the routes say of themselves."""

from __future__ import annotations

import ast
import inspect
import json
from typing import Any

import pytest
from fastapi.openapi.models import OpenAPI
from sqlalchemy import update

import scanner.sources.github_push
import scanner.web.auth
from scanner import __version__
from scanner.db.clock import now_ms
from scanner.db.schema import owners, tokens
from scanner.model import Secret, Validity

PROTECTED = ("/api/v1/leaks", "/api/v1/leaks/{id}", "/api/v1/audit")
OPEN = ("/", "/healthz", "/readyz", "/openapi.json")


@pytest.fixture(scope="module")
def bearer(site) -> str:
    return site.services.settings.api_bearer


@pytest.fixture(scope="module")
def leak(site) -> tuple[str, str]:
    """A leak that was found in a push; returns (the incident's id, the raw token)."""
    return site.leak()


@pytest.mark.parametrize("path", OPEN)
def test_open_routes_need_no_token(site, path: str) -> None:
    assert site.get(path).status_code == 200


def test_the_index_says_what_this_is(site) -> None:
    index = site.get("/").json()
    assert index["version"] == __version__
    for link in ("openapi", "health"):
        assert site.get(index[link]).status_code == 200
    assert site.get(index["leaks"]).status_code == 401


@pytest.mark.parametrize("path", [*PROTECTED, "/api/v1/whoami"])
def test_nobody_reads_without_the_token(site, bearer: str, leak, path: str) -> None:
    path = path.format(id=leak[0])
    wrong: list[str | bytes] = [
        "", "Bearer", "Bearer wrong", f"Bearer {bearer}x", f"Bearer {bearer[:-1]}",
        f"Bearer {bearer.upper()}", f"Basic {bearer}", bearer, f"Bearer  {bearer} {bearer}",
        "Bearer é".encode(), "Bearer é".encode("latin-1"), "Bearer " + "x" * 10_000,
    ]  # fmt: skip
    answers = [site.http.get(path)]
    answers += [site.http.get(path, headers={"Authorization": value}) for value in wrong]
    for answer in answers:
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert list(answer.json()) == ["error"]
    assert site.get(f"{path}?access_token={bearer}").status_code == 401


def test_the_token_opens_every_route(site, bearer: str, leak) -> None:
    for path in PROTECTED:
        assert site.get(path.format(id=leak[0]), bearer).status_code == 200
    lower = {"authorization": f"bearer {bearer}"}
    assert site.http.get("/api/v1/leaks", headers=lower).status_code == 200


def test_a_leak_is_shown_without_its_secret(site, bearer: str, leak) -> None:
    incident_id, raw = leak
    (listed,) = site.get("/api/v1/leaks", bearer).json()["leaks"]
    shown = site.get(f"/api/v1/leaks/{incident_id}", bearer).json()
    assert listed.items() <= shown.items()
    assert (shown["id"], shown["validity"], shown["mask"]) == (
        incident_id,
        "active",
        f"…{raw[-4:]}",
    )
    (place,) = shown["places"]
    assert (place["repository"], place["path"], place["line"]) == ("acme/leaky", "config", 3)
    assert shown["places_total"] == 1
    assert [event["action"] for event in shown["audit"]] == ["leak.found"]
    events = site.get("/api/v1/audit", bearer).json()["events"]
    assert {"token.issued", "leak.found"} <= {event["action"] for event in events}
    for answer in (listed, shown, events):
        assert raw[:-4] not in json.dumps(answer)


@pytest.mark.parametrize("incident_id", ["x", "0" * 24, "..%2f..", "%00", "x" * 2_000, "%ff"])
def test_a_leak_that_is_not_there_is_404(site, bearer: str, incident_id: str) -> None:
    answer = site.get(f"/api/v1/leaks/{incident_id}", bearer)
    assert answer.status_code == 404
    assert list(answer.json()) == ["error"]


def test_whoami_answers_while_a_token_works(site, bearer: str) -> None:
    raw, token_id = site.issue("deploy")
    answer = site.get("/api/v1/whoami", raw)
    assert (answer.status_code, answer.json()) == (
        200, {"token": "deploy", "owner": "Ada", "scopes": ["vso.code"]}
    )  # fmt: skip
    assert site.get("/api/v1/whoami", bearer).status_code == 401  # it is no issued token
    assert site.get("/api/v1/leaks", raw).status_code == 401  # and an issued one opens nothing
    assert site.services.store.revoke_by_hand(token_id, "test")
    assert site.get("/api/v1/whoami", raw).status_code == 401


@pytest.mark.parametrize("begins_in_ms", [-3_600_000, 3_600_000])
def test_a_token_that_is_not_yet_valid_does_not_work_yet(site, begins_in_ms: int) -> None:
    raw, token_id = site.issue()
    with site.services.database.begin() as connection:
        begins = now_ms(connection) + begins_in_ms
        connection.execute(update(tokens).where(tokens.c.id == token_id).values(valid_from=begins))
    expected = 200 if begins_in_ms < 0 else 401
    assert site.get("/api/v1/whoami", raw).status_code == expected
    # To a leak it is active all the same: it will work (law 3).
    assert site.services.store.find([Secret(raw.encode())])[0].validity is Validity.ACTIVE


def test_a_token_that_expired_and_one_of_a_disabled_owner_do_not_work(serve) -> None:
    with serve() as site:
        check_expired_and_disabled(site)


def check_expired_and_disabled(site) -> None:
    (expired, expired_id), (disabled, _) = site.issue("a"), site.issue("b")
    with site.services.database.begin() as connection:
        now = now_ms(connection)
        connection.execute(update(tokens).where(tokens.c.id == expired_id).values(valid_to=now))
    assert site.get("/api/v1/whoami", expired).status_code == 401
    assert site.get("/api/v1/whoami", disabled).status_code == 200
    with site.services.database.begin() as connection:
        connection.execute(update(owners).values(disabled_at=now))
    assert site.get("/api/v1/whoami", disabled).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404), ("GET", "/api/v1/", 404), ("GET", "/docs", 404),
        ("GET", "/webhooks/gitlab", 404), ("GET", "/.env", 404), ("GET", "/healthz/../x", 404),
        ("GET", "/webhooks/github", 405), ("PUT", "/webhooks/github", 405),
        ("DELETE", "/api/v1/leaks", 405), ("POST", "/healthz", 405), ("HEAD", "/healthz", 405),
        ("OPTIONS", "/webhooks/github", 405), ("BREW", "/", 405),
    ],
)  # fmt: skip
def test_what_there_is_not(site, method: str, path: str, status: int) -> None:
    answer = site.http.request(method, path)
    assert answer.status_code == status
    if method == "HEAD":
        assert answer.content == b""
    else:
        assert list(answer.json()) == ["error"]
    assert ("allow" in answer.headers) == (status == 405)


def test_the_openapi_document_is_valid_and_names_the_routes(site) -> None:
    document = site.get("/openapi.json").json()
    OpenAPI.model_validate(document)
    assert document["openapi"].startswith("3.1")
    assert document["info"] == {"title": "Patrol", "version": __version__}
    operations = {
        (method, path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    token = "/api/v1/tokens/{token_id}"
    assert set(operations) == {
        ("post", "/webhooks/github"), ("get", "/api/v1/leaks"),
        ("get", "/api/v1/leaks/{incident_id}"), ("get", "/api/v1/audit"),
        ("get", "/api/v1/whoami"), ("get", "/healthz"), ("get", "/readyz"), ("get", "/"),
        ("get", "/api/v1/tokens"), ("post", "/api/v1/tokens"), ("get", f"{token}"),
        ("patch", f"{token}"), ("delete", f"{token}"), ("post", f"{token}/rotate"),
        ("post", f"{token}/revoke"), ("post", f"{token}/expire"),
        *(
            route
            for kind, row in (("owners", "owner_id"), ("organisations", "organisation"))
            for route in (
                ("get", f"/api/v1/{kind}"), ("post", f"/api/v1/{kind}"),
                ("get", f"/api/v1/{kind}/{{{row}}}"), ("patch", f"/api/v1/{kind}/{{{row}}}"),
                ("post", f"/api/v1/{kind}/{{{row}}}/disable"),
                ("post", f"/api/v1/{kind}/{{{row}}}/enable"),
            )
        ),
        ("post", "/api/v1/introspect"), ("post", "/oauth/introspect"), ("post", "/oauth/revoke"),
    }  # fmt: skip
    takes_body = {"/api/v1/tokens", f"{token}", f"{token}/rotate", f"{token}/revoke"}
    for (method, path), operation in operations.items():
        assert operation["description"], path
        assert ("security" in operation) == path.startswith(("/api/", "/oauth/"))
        if "security" in operation:
            assert operation["responses"].keys() >= {"401", "503"}
        if method in ("post", "patch") and path in takes_body:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            assert schema["additionalProperties"] is False
    schemes = document["components"]["securitySchemes"]
    assert set(schemes) == {"ApiToken", "AdminToken", "ServiceToken", "IssuedToken"}
    assert {(scheme["type"], scheme["scheme"]) for scheme in schemes.values()} == {
        ("http", "bearer")
    }


@pytest.mark.parametrize(
    ("module", "function"),
    [(scanner.web.auth, "_places"), (scanner.sources.github_push, "verify")],
)
def test_secrets_are_compared_in_constant_time(module: Any, function: str) -> None:
    # Its timing cannot be measured reliably here; what it is built from can be read.
    (tree,) = [
        node
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.FunctionDef) and node.name == function
    ]
    assert "hmac.compare_digest" in ast.unparse(tree)
    operators = [
        operator
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        for operator in node.ops
    ]
    assert not any(isinstance(each, ast.Eq | ast.NotEq | ast.In) for each in operators)
