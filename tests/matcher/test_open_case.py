"""Formats whose letters' case is open: found in every encoding, and looked for as cheaply."""

from __future__ import annotations

import base64
import random
import string

import pytest

from scanner.matcher.engine import Matcher
from scanner.matcher.pattern import Pattern, Ruleset
from scanner.matcher.probes import Form, probes
from scanner.matcher.shape import read_shape

REGEXES = (r"(?i:ltai[0-9a-z]{20})", r"(?i:sk_[0-9a-f]{40})", r"(?i:sg\.[\-0-9_a-z]{22})")


def pattern(regex: str) -> Pattern:
    shape = read_shape(regex)
    return Pattern("open", "acme", "open", regex, "", shape.min_width, shape.max_width)


@pytest.mark.parametrize("regex", REGEXES)
def test_no_probe_of_base64_is_met_everywhere(regex: str) -> None:
    encoded = (Form.BASE64, Form.BASE64_LINES, Form.BASE64_TWICE, Form.BASE64_UTF_16)
    found = [written for probe, written in probes(0, read_shape(regex)) if probe.form in encoded]
    assert found
    assert all(read_shape(written).min_width >= 3 for written in found)


@pytest.mark.parametrize("regex", REGEXES)
def test_they_are_found_in_base64_at_every_alignment(regex: str) -> None:
    rng = random.Random(5)
    matcher = Matcher(Ruleset((pattern(regex),)))
    start = regex[4 : regex.index("[")].replace("\\", "")
    for begin in range(6):
        body = "".join(rng.choices(string.digits + "abcdef", k=read_shape(regex).max_width))
        cased = "".join(rng.choice((str.upper, str.lower))(c) for c in start + body)
        token = cased[: read_shape(regex).max_width]
        text = b"~" * begin + token.encode() + b"~~~"
        found = matcher.scan(b"x: " + base64.b64encode(text) + b"\n")
        assert [one.secret.reveal().decode() for one in found] == [token]
        assert found[0].encoding == "base64"
