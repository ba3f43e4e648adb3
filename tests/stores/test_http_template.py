"""Templates and paths: what is written into a request, what is read from an answer."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.stores.http_template import ABSENT, fill, fill_url, getter, names_in

QUICK = settings(derandomize=True, database=None, deadline=None, max_examples=200)
LEAVES = st.none() | st.booleans() | st.integers() | st.text()
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


def places(value: Any, steps: tuple[Any, ...] = ()) -> Any:
    """Every place in a JSON value, with what is there."""
    yield steps, value
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in inner:
            yield from places(item, (*steps, key))


@QUICK
@given(JSON)
def test_a_pointer_reads_every_place(value: Any) -> None:
    for steps, found in places(value):
        escaped = [str(step).replace("~", "~0").replace("/", "~1") for step in steps]
        path = "".join("/" + step for step in escaped)
        assert getter(path, ABSENT)(value) is found


@QUICK
@given(JSON)
def test_dots_read_every_place_whose_names_hold_none(value: Any) -> None:
    for steps, found in places(value):
        names = list(map(str, steps))
        path = ".".join(names)
        if names and all(names) and "." not in "".join(names) and not path.startswith("/"):
            assert getter(path, ABSENT)(value) is found


@pytest.mark.parametrize("path", ["x", "a.x", "a.b.c.d", "l.2", "l.-1", "l.x", "l.0.x", "/", "a."])
def test_what_is_not_there_is_absent(path: str) -> None:
    value = {"a": {"b": {"c": 1}}, "l": [1, 2]}
    assert getter(path, ABSENT)(value) is ABSENT
    assert getter(path)(value) is None


def test_no_path_reads_nothing_and_an_empty_one_everything() -> None:
    assert getter(None, ABSENT)({"a": 1}) is ABSENT
    assert getter("")([1]) == [1]


def test_a_text_that_is_a_name_becomes_the_value() -> None:
    values = {"tokens": ["a", "b"], "incident_id": "i1"}
    template = {"all": "{tokens}", "why": "leak {incident_id}", "n": [1, None, "{incident_id}!"]}
    assert fill(template, values) == {"all": ["a", "b"], "why": "leak i1", "n": [1, None, "i1!"]}
    assert names_in(template) == {"tokens", "incident_id"}


@QUICK
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_a_token_is_not_read_as_a_template(text: str) -> None:
    assert fill({"token": "{token}"}, {"token": text}) == {"token": text}
    assert fill("a {token}{token}", {"token": text}) == f"a {text}{text}"


@QUICK
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1))
def test_an_id_is_one_segment_and_reads_back(text: str) -> None:
    url = fill_url("https://h.example/a/{token_id}/b?c=d", {"token_id": text})
    parts = urlsplit(url)
    assert (parts.netloc, parts.query, parts.fragment) == ("h.example", "c=d", "")
    assert [unquote(step) for step in parts.path.split("/")] == ["", "a", text, "b"]
