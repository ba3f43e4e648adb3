"""Whatever is sent, no answer is a fault of ours, and every answer is an answer."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from hypothesis import given, settings
from hypothesis import strategies as st

ROUTES = [
    "/", "/healthz", "/readyz", "/openapi.json", "/webhooks/github", "/api/v1/leaks",
    "/api/v1/leaks/", "/api/v1/audit", "/api/v1/whoami",
]  # fmt: skip
# Bytes that may stand in a line of a request's head; those that end it are left out.
_LINE = st.binary(max_size=40).map(lambda raw: raw.translate(None, b"\r\n"))
_TARGET = st.one_of(
    st.sampled_from(ROUTES).map(str.encode),
    st.builds(
        lambda route, rest: (route + quote(rest, safe="/%?#&=;:@")).encode(),
        st.sampled_from(ROUTES),
        st.text(st.characters(codec="utf-8"), max_size=20),
    ),
    _LINE.map(b"/".__add__),
)
_METHOD = st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"HEAD", b"OPTIONS"])
_NAMES = [
    b"X-Hub-Signature-256", b"X-GitHub-Delivery", b"X-GitHub-Event", b"Content-Type",
    b"Content-Length", b"Transfer-Encoding", b"Authorization", b"Host", b"Accept", b"Expect",
]  # fmt: skip
_VALUES = _LINE | st.sampled_from(
    [b"Bearer x", b"Basic eDp5", b"sha256=", b"chunked", b"gzip", b"0", b"5", b"-1", b"9" * 30,
     b"application/json", b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x"]
)  # fmt: skip
_HEADERS = st.lists(st.tuples(st.sampled_from(_NAMES), _VALUES), max_size=5)


def check(site: Any, data: bytes, *, is_head: bool = False) -> None:
    answer = site.raw(data, patience=0.5)
    if not answer:
        return  # the request has not ended: its length says that more will come
    top, _, body = answer.partition(b"\r\n\r\n")
    assert 200 <= int(top.split(b" ", 2)[1]) < 500, answer
    if not is_head and b"content-type: application/json" in top.lower():
        json.loads(body)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(_METHOD, _TARGET, _HEADERS, st.binary(max_size=60))
def test_any_request_at_all(
    site: Any, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    lines = [method + b" " + target + b" HTTP/1.1", b"Connection: close"]
    if not any(name in {b"Content-Length", b"Transfer-Encoding"} for name, _ in headers):
        lines.append(b"Content-Length: %d" % len(body))
    lines += [name + b": " + value for name, value in headers]
    check(site, b"\r\n".join(lines) + b"\r\n\r\n" + body, is_head=method == b"HEAD")


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.binary(max_size=200).map(lambda data: data + b"\r\n\r\n"))
def test_any_bytes_at_all(site: Any, data: bytes) -> None:
    check(site, data)


_TEXT = st.text(st.characters(codec=None), max_size=12)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)
_PUSH = st.fixed_dictionaries(
    {
        "ref": _TEXT.map("refs/heads/".__add__) | _JSON,
        "before": st.sampled_from(["0" * 40, "b" * 64]) | _JSON,
        "after": st.text("0123456789abcdef", min_size=40, max_size=40) | _JSON,
        "repository": st.sampled_from(["acme/a", "acme/b", "evil/a"]).map(
            lambda name: {"full_name": name}
        )
        | _JSON,
    },
    optional={"forced": _JSON, "x": _JSON},
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(_PUSH | _JSON, st.booleans(), _LINE.map(lambda raw: raw.decode("latin-1").strip("\0 \t")))
def test_any_signed_body_at_all(site: Any, value: Any, is_form: bool, delivery: str) -> None:
    body = json.dumps(value).encode()
    headers = {"Content-Type": "application/json"}
    if is_form:
        body = b"payload=" + quote(body).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
    if delivery.isprintable() and delivery:
        headers["X-GitHub-Delivery"] = delivery.encode("latin-1")  # type: ignore[assignment]
    before = site.accepted()
    answer = site.deliver(body, headers=headers)
    assert answer.status_code in {200, 202, 400, 403}
    is_new = answer.status_code == 202 and not answer.json()["duplicate"]
    assert site.accepted() - before == is_new
