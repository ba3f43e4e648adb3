"""Every pattern's tokens are found wherever tokens stand, and its near-misses nowhere."""

from __future__ import annotations

import random

import pytest

from scanner.matcher.engine import Matcher
from scanner.matcher.pattern import Pattern
from scanner.matcher.probes import Form, forms
from scanner.matcher.reference import spans
from scanner.patterns.examples import near_misses
from scanner.patterns.generate import generate
from scanner.patterns.loader import load
from tests.matcher.embeddings import ENCODED, PLAIN, everywhere

ALL = load()
# What a store answers for is never filtered: an example must not be lost to an unlucky draw.
MATCHER = Matcher(ALL, bound=frozenset(pattern.id for pattern in ALL.patterns))

# Too little in these tokens is the same in all of them: no encoding has an anchor to look for.
WITHOUT_ANCHOR = {
    "asana-pat", "azure-devops-pat-legacy", "discord-bot-token", "mailchimp-key", "mailgun-key",
}  # fmt: skip
# The anchor of these is cut where a string that is put together has its seam.
CUT = {"openai-key"}
# These hold line ends, in any writing: what encodes only these is plain to them.
SEVERAL_LINES = {"private-key-pem", "private-key-pgp"}
ESCAPES = {"json", "url", "joined"}


def is_looked_for(pattern: Pattern, encoding: str) -> bool:
    if encoding in ESCAPES:
        escaped = Form.ESCAPED in forms(pattern.regex) and pattern.id not in SEVERAL_LINES
        return escaped and not (encoding == "joined" and pattern.id in CUT)
    return encoding == "plain" or pattern.id not in WITHOUT_ANCHOR


def test_where_encodings_are_not_looked_for() -> None:
    plain_only = {pattern.id for pattern in ALL.patterns if forms(pattern.regex) == {Form.PLAIN}}
    assert plain_only == WITHOUT_ANCHOR
    assert len(PLAIN) + len(ENCODED) >= 30


@pytest.mark.parametrize("pattern", ALL.patterns, ids=lambda pattern: pattern.id)
def test_a_token_is_found_everywhere(pattern: Pattern) -> None:
    rng = random.Random(pattern.id)
    for name, encoding, embed in everywhere():
        if not is_looked_for(pattern, encoding):
            continue
        token = generate(pattern, rng).reveal()
        data = embed(token)
        found = [one for one in MATCHER.scan(data) if one.pattern == pattern.id]
        if encoding != "plain" and pattern.max_width > pattern.min_width:
            # Its beginning, up to where a line ends, can be a token as well.
            found = [
                one
                for one in found
                if one.secret.reveal() == token or not token.startswith(one.secret.reveal())
            ]
        assert [one.secret.reveal() for one in found] in ([token], [token, token]), name
        assert len(found) == data.count(token) or encoding != "plain", name
        assert {one.encoding for one in found} <= {encoding, "plain"}, name


@pytest.mark.parametrize("pattern", ALL.patterns, ids=lambda pattern: pattern.id)
def test_a_near_miss_is_found_nowhere(pattern: Pattern) -> None:
    rng = random.Random(pattern.id)
    token = generate(pattern, rng).reveal()
    for how, near_miss in near_misses(pattern, token, rng):
        for name, encoding, embed in everywhere():
            try:
                data = embed(near_miss)
            except UnicodeDecodeError:  # no text: it has no form in UTF-16 or in JSON
                continue
            if encoding != "plain" and spans(pattern, data):
                continue  # "\\n" and "pm_..." are "npm_...": plainly a token
            found = [one for one in MATCHER.scan(data) if one.pattern == pattern.id]
            if encoding == "base64":
                # Lines of base64 may also be meant one by one: what ends with a line can end there.
                found = [one for one in found if data[one.end : one.end + 1] not in b"\r\n\\"]
            assert not found, f"a token {how}, {name}"
