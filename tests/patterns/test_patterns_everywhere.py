"""Every pattern's tokens are found wherever tokens stand, and its near-misses nowhere."""

from __future__ import annotations

import random

import pytest

from scanner.examine import examine
from scanner.matcher.engine import Matcher
from scanner.matcher.pattern import Pattern
from scanner.matcher.probes import Form, forms
from scanner.matcher.reference import spans
from scanner.patterns.examples import near_misses
from scanner.patterns.generate import generate
from scanner.patterns.loader import load
from tests.matcher.embeddings import ENCODED, IN_LINES, OPENED, PLAIN, everywhere

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


# Too little is the same in these for the encodings named: it would be met everywhere.
NO_ESCAPES = {"google-oauth-refresh", "telegram-bot-token"}
# Of these, three bytes are the same: too few for an anchor that a line's end cuts, or that is
# encoded twice.
SHORT = {
    "airtable-pat", "azure-entra-client-secret", "bip32-private-key", "crates-io-token",
    "huggingface-token", "nuget-key", "onepassword-secret-key", "replicate-token", "sendgrid-key",
    "telegram-bot-token",
}  # fmt: skip


def is_looked_for(pattern: Pattern, name: str, encoding: str) -> bool:
    looked_for = forms(pattern.regex)
    if encoding in ESCAPES:
        escaped = Form.ESCAPED in looked_for and pattern.id not in SEVERAL_LINES
        return escaped and not (encoding == "joined" and pattern.id in CUT)
    if name in IN_LINES:
        return Form.BASE64_LINES in looked_for
    return encoding == "plain" or Form(encoding) in looked_for


def without(form: Form) -> set[str]:
    return {pattern.id for pattern in ALL.patterns if form not in forms(pattern.regex)}


def test_where_encodings_are_not_looked_for() -> None:
    for form in (Form.UTF_16, Form.BASE64, Form.BASE64_UTF_16):
        assert without(form) == WITHOUT_ANCHOR
    assert without(Form.ESCAPED) == WITHOUT_ANCHOR - {"mailchimp-key"} | NO_ESCAPES
    assert without(Form.BASE64_LINES) == WITHOUT_ANCHOR | SHORT
    assert without(Form.BASE64_TWICE) == WITHOUT_ANCHOR | SHORT
    assert len(PLAIN) + len(ENCODED) >= 30


@pytest.mark.parametrize("pattern", ALL.patterns, ids=lambda pattern: pattern.id)
def test_a_token_is_found_everywhere(pattern: Pattern) -> None:
    rng = random.Random(pattern.id)
    for name, encoding, embed in everywhere():
        if not is_looked_for(pattern, name, encoding):
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


@pytest.mark.parametrize("pattern", ALL.patterns, ids=lambda pattern: pattern.id)
def test_a_token_is_found_in_what_is_opened(pattern: Pattern) -> None:
    rng = random.Random(pattern.id)
    for name, embed in OPENED.items():
        token = generate(pattern, rng).reveal()
        spots = examine(embed(token), MATCHER, 100).spots
        found = [one for one in spots if one.candidate.pattern == pattern.id]
        if name != "a notebook" or is_looked_for(pattern, name, "json"):
            assert [one.candidate.secret.reveal() for one in found] == [token], name
        assert all(bool(one.member) == (name != "a notebook") for one in found)
