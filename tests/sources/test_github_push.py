"""GitHub's push webhook: who signed it, what it may speak of, and every shape a body can have."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.errors import (
    IntakeError,
    PayloadInvalidError,
    RepositoryForbiddenError,
    SignatureInvalidError,
)
from scanner.settings import Hook
from scanner.sources.github_push import Ignored, Ping, Push, parse, verify

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
ZEROS, HEAD = "0" * 40, "a1" * 20


def hook(name: str = "one", *secrets: str, repositories: tuple[str, ...] = ("*/*",)) -> Hook:
    given = secrets or ("the first hook's secret",)
    return Hook.model_validate({"id": name, "secrets": given, "repositories": repositories})


def sign(secret: str, body: bytes) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def event(**fields: Any) -> dict[str, Any]:
    return {
        "ref": "refs/heads/main", "before": ZEROS, "after": HEAD,
        "repository": {"full_name": "acme/app"}, **fields,
    }  # fmt: skip


def push(body: dict[str, Any] | bytes, by: Hook | None = None, content_type: str = JSON) -> Push:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    parsed = parse(by or hook(), raw, content_type)
    assert isinstance(parsed, Push)
    return parsed


# Who signed it.


def test_githubs_own_example_verifies() -> None:
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    documented = hook("documented", "It's a Secret to Everybody")
    assert verify([documented], b"Hello, World!", signature) is documented
    for body in (b"Hello, World", b"Hello, World!\n", b""):
        with pytest.raises(SignatureInvalidError):
            verify([documented], body, signature)


def test_both_secrets_count_while_one_replaces_the_other() -> None:
    rotating = hook("rotating", "the new secret", "the old secret")
    for secret in ("the new secret", "the old secret"):
        assert verify([rotating], b"body", sign(secret, b"body")) is rotating
    with pytest.raises(SignatureInvalidError):
        verify([rotating], b"body", sign("the oldest secret", b"body"))


def test_of_several_hooks_the_one_that_signed_is_told() -> None:
    hooks = [hook(name, f"secret of {name}", f"old secret of {name}") for name in ("a", "b", "c")]
    for one in hooks:
        for secret in (f"secret of {one.id}", f"old secret of {one.id}"):
            assert verify(hooks, b"{}", sign(secret, b"{}")) is one
    assert (
        verify([*hooks, hook("late", "secret of b")], b"{}", sign("secret of b", b"{}")).id == "b"
    )


def test_a_secret_of_any_script_works() -> None:
    accented = hook("accented", "gehe✓heim, 秘密")
    assert verify([accented], b"{}", sign("gehe✓heim, 秘密", b"{}")) is accented


@pytest.mark.parametrize(
    "wrong",
    [
        None, "", "sha256=", "sha256", "sha256=é", "sha256=\udc80", "sha256=" + "0" * 64,
        "sha1=" + "0" * 40, "SHA256=right", "right", " sha256=right", "sha256=right ",
        "sha256=RIGHT", "sha256=sha256=right", "sha256=right" * 1000,
    ],
)  # fmt: skip
def test_a_signature_of_another_shape_is_refused(wrong: str | None) -> None:
    right = sign("the first hook's secret", b"{}").removeprefix("sha256=")
    given = wrong and wrong.replace("right", right).replace("RIGHT", right.upper())
    with pytest.raises(SignatureInvalidError) as caught:
        verify([hook()], b"{}", given)
    assert caught.value.status == 401
    assert right not in str(caught.value)


def test_with_no_hook_nothing_verifies() -> None:
    with pytest.raises(SignatureInvalidError):
        verify([], b"{}", sign("", b"{}"))


# What it may speak of.


def test_a_push_is_read() -> None:
    body = json.dumps(event(before="b" * 40, forced=True)).encode()
    assert parse(hook("mine"), body, JSON) == Push(
        hook="mine",
        body_digest=hashlib.sha256(body).hexdigest(),
        repository="acme/app",
        ref="refs/heads/main",
        before="b" * 40,
        after=HEAD,
        forced=True,
    )


@pytest.mark.parametrize(
    ("globs", "name", "allowed"),
    [
        (("acme/*",), "acme/app", True),
        (("acme/*",), "ACME/App", True),  # GitHub's names are the same in either case
        (("ACME/App",), "acme/app", True),
        (("other/*", "acme/app"), "acme/app", True),
        (("*/*",), "anyone/anything", True),
        (("acme/*",), "acme-evil/app", False),
        (("acme/*",), "evil/acme", False),
        (("acme/app",), "acme/app2", False),
        (("acme/app",), "acme/ap", False),
        (("acme/app?",), "acme/app", False),
        ((), "acme/app", False),
    ],
)
def test_a_hook_speaks_for_its_own_repositories_only(
    globs: tuple[str, ...], name: str, allowed: bool
) -> None:
    body, by = event(repository={"full_name": name}), hook(repositories=globs)
    if allowed:
        assert push(body, by).repository == name
        return
    with pytest.raises(RepositoryForbiddenError) as caught:
        push(body, by)
    assert caught.value.status == 403
    assert name not in str(caught.value)


def test_addresses_in_the_payload_are_ignored() -> None:
    evil = "https://evil.example/acme/app.git"
    addresses = {f"{kind}_url": evil for kind in ("clone", "git", "html", "ssh")}
    repository = {"full_name": "acme/app", "name": "evil", "url": evil, **addresses}
    read = push(event(repository=repository, compare=evil, installation={"url": evil}))
    assert read.repository == "acme/app"
    assert "evil" not in repr(read)


def test_a_body_in_a_form_is_the_same_push() -> None:
    text = json.dumps(event(ref="refs/heads/ü & ö=1+1"))
    body = f"payload={quote(text, safe='')}".encode()
    for content_type in (FORM, f"{FORM}; charset=utf-8", FORM.upper(), f" {FORM} ;x"):
        read = push(body, content_type=content_type)
        assert (read.ref, read.after) == ("refs/heads/ü & ö=1+1", HEAD)
        assert read.body_digest == hashlib.sha256(body).hexdigest()  # of what was signed
    assert push(urlencode({"x": "1", "payload": text}).encode(), content_type=FORM).after == HEAD


@pytest.mark.parametrize(
    "body",
    [
        b"", b"payload", b"payload=", b"other=1", b"payload=%7B", b"payload=[]", b"&", b"=",
        json.dumps(event()).encode(), "payload=ü".encode(), b"payload=%ff%fe", b"payload=1&=",
    ],
)  # fmt: skip
def test_a_form_without_a_push_is_refused(body: bytes) -> None:
    with pytest.raises(PayloadInvalidError):
        parse(hook(), body, FORM)


def test_a_form_is_read_only_when_it_says_so() -> None:
    body = b"payload=" + quote(json.dumps(event())).encode()
    for content_type in ("", JSON, "text/plain", "multipart/form-data"):
        with pytest.raises(PayloadInvalidError):
            parse(hook(), body, content_type)


# Every shape of a body.


@pytest.mark.parametrize(
    "name",
    [
        None, 7, True, [], {}, "", "acme", "/", "acme/", "/app", "acme/app/x", "acme//app", "a/..",
        "a/.", "../a", "./a", "a/../b", ".a/b", "_a/b", "-a/b", "a.b/c", "a b/c", "a/b c", "a/b\n",
        "\na/b", "a/b\0", "a/b?x", "a/b#x", "a/b%2e", "a@b/c", "a:80/b", "ä/b", "a/ä", "a\uff0fb/c",
        "https://evil.example/a", "a" * 65 + "/b", "a/" + "b" * 101,
    ],
)  # fmt: skip
def test_a_repository_name_of_another_shape_is_refused(name: Any) -> None:
    for repository in ({"full_name": name}, name):
        with pytest.raises(PayloadInvalidError, match="owner/name"):
            push(event(repository=repository))


@pytest.mark.parametrize(
    "name", ["a/b", "a" * 39 + "/b", "a/" + "b" * 100, "a-/.b", "0/_-.git", "ada_corp/x"]
)
def test_a_repository_name_github_allows_is_taken(name: str) -> None:
    assert push(event(repository={"full_name": name})).repository == name


@pytest.mark.parametrize(
    "ref",
    [None, 1, True, [], {}, "", "main", "HEAD", "heads/x", " refs/heads/x", "refs/" + "x" * 4092],
)
def test_a_ref_of_another_shape_is_refused(ref: Any) -> None:
    with pytest.raises(PayloadInvalidError, match="ref is not a ref name"):
        push(event(ref=ref))


@pytest.mark.parametrize(
    "ref", ["refs/tags/v1", "refs/heads/ü/🙂", "refs/notes/x", "refs/" + "x" * 4091]
)
def test_any_ref_is_taken_as_it_is(ref: str) -> None:
    assert push(event(ref=ref)).ref == ref


@pytest.mark.parametrize(
    ("written", "read"),
    [(r"\ud83d", "\ufffd"), (r"\udc80", "\ufffd"), (r"x\ude00\ud83d", "x\ufffd\ufffd"),
     (r"\ud83d\ude00", "😀")],
)  # fmt: skip
def test_half_a_character_is_replaced_and_the_push_not_lost(written: str, read: str) -> None:
    body = json.dumps(event(ref="refs/heads/HERE")).replace("HERE", written).encode()
    assert push(body).ref == f"refs/heads/{read}"


@pytest.mark.parametrize("field", ["before", "after"])
@pytest.mark.parametrize(
    "value",
    [
        None, 0, 1e3, True, [], {}, "", "HEAD", "0", "a" * 39, "a" * 41, "a" * 63, "a" * 65,
        "A" * 40, "g" * 40, "a" * 39 + "\n", "a" * 40 + "\n", " " + "a" * 39, "--upload-pack=x",
        "\uff41" * 40,
    ],
)  # fmt: skip
def test_an_object_id_of_another_shape_is_refused(field: str, value: Any) -> None:
    with pytest.raises(PayloadInvalidError, match=f"{field} is not an object id"):
        push(event(**{field: value}))


def test_object_ids_of_sha256_are_taken() -> None:
    read = push(event(before="0" * 64, after="b" * 64))
    assert (read.before, read.after) == ("0" * 64, "b" * 64)


@pytest.mark.parametrize("forced", [None, 0, 1, "true", "false", [], [1], {}])
def test_only_true_is_forced(forced: Any) -> None:
    assert push(event(forced=forced)).forced is False
    assert push(event(forced=True)).forced is True


def test_a_field_that_is_missing_makes_it_another_event() -> None:
    for field in ("ref", "before", "after"):
        body = {name: value for name, value in event().items() if name != field}
        assert parse(hook("h"), json.dumps(body).encode(), JSON) == Ignored("h")
    assert parse(hook("h"), b"{}", JSON) == Ignored("h")
    assert parse(hook("h"), b'{"action": "opened", "repository": 1}', JSON) == Ignored("h")


def test_a_ping_is_told_by_its_body() -> None:
    assert parse(hook("h"), b'{"zen": "Be.", "hook_id": 1, "hook": {}}', JSON) == Ping("h")
    assert parse(hook("h"), b'{"zen": "Be."}', JSON) == Ignored("h")


def test_of_a_key_given_twice_the_last_is_checked_and_used() -> None:
    twice = json.dumps(event())[:-1]
    good, bad = '"repository": {"full_name": "acme/b"}}', '"repository": {"full_name": "evil/b"}}'
    mine = hook(repositories=("acme/*",))
    assert push(f"{twice}, {bad[:-1]}, {good}".encode(), mine).repository == "acme/b"
    with pytest.raises(RepositoryForbiddenError):
        push(f"{twice}, {good[:-1]}, {bad}".encode(), mine)


@pytest.mark.parametrize(
    "noise", ["1e999", "-1e999", "NaN", "123456789" * 400, "[" * 400 + "]" * 400]
)
def test_odd_values_elsewhere_do_no_harm(noise: str) -> None:
    body = json.dumps(event(size="HERE")).replace('"HERE"', noise)
    assert push(body.encode()).after == HEAD


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"{", b"}", b"{}x", b"null", b"true", b"1", b'"text"', b"[]", b"[{}]", b"\xff",
        b"\xef\xbb\xbf\xff", b"\0", b'{"a": 01}', b"{'a': 1}", b'{"a": "\n"}',
        b'{"n": ' + b"9" * 5000 + b"}",
        b"[" * 200_000, b'{"a":' * 200_000, b"[" * 200_000 + b"]" * 200_000,
    ],
    ids=range(21),
)  # fmt: skip
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(PayloadInvalidError) as caught:
        parse(hook(), body, JSON)
    assert caught.value.status == 400


# Any shape at all.

_TEXT = st.text(st.characters(codec=None), max_size=20)  # half characters included
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT
    | st.sampled_from(["acme/app", "evil/app", "refs/heads/x", HEAD, ZEROS, "b" * 64]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        _TEXT | st.sampled_from(["full_name"]), inner, max_size=4
    ),
    max_leaves=12,
)  # fmt: skip
_FIELDS = {
    "ref": _VALUES | _TEXT.map("refs/heads/".__add__),
    "before": _VALUES,
    "after": _VALUES,
    "forced": _VALUES,
    "repository": _VALUES | st.fixed_dictionaries({"full_name": _VALUES}),
}
_OBJECTS = st.dictionaries(_TEXT, _VALUES, max_size=3) | st.builds(
    lambda fields, dropped: {**event(), **fields, **dict.fromkeys(dropped)},
    st.fixed_dictionaries({}, optional=_FIELDS),
    st.lists(st.sampled_from(sorted(_FIELDS)), max_size=1),
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(_OBJECTS | _VALUES, st.sampled_from([JSON, FORM, ""]), st.booleans())
def test_whatever_is_signed_is_a_push_or_refused(
    value: Any, content_type: str, is_ascii: bool
) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    body = b"payload=" + quote(text).encode() if content_type == FORM else text
    check(body, content_type)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=200), st.sampled_from([JSON, FORM]) | st.text(max_size=20))
def test_whatever_bytes_are_signed_nothing_but_a_refusal_is_raised(
    body: bytes, content_type: str
) -> None:
    check(body, content_type)


def check(body: bytes, content_type: str) -> None:
    mine = hook(repositories=("acme/*",))
    try:
        parsed = parse(mine, body, content_type)
    except IntakeError:
        return
    assert parsed.hook == mine.id
    if isinstance(parsed, Push):
        assert parsed.repository.startswith("acme/")
        assert {len(parsed.before), len(parsed.after)} <= {40, 64}
        assert parsed.ref.encode().startswith(b"refs/")
