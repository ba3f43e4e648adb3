"""A fuzz target for what reads a stranger's bytes: the matcher, its decoders, and archives.

Run it from the top level: `python -m tests.fuzz.target -max_total_time=60`; what it takes are
libFuzzer's options. It ends with an error at the first input that breaks a promise, and writes that
input to a file that begins with `-artifact_prefix`.
"""

from __future__ import annotations

import random
import sys

import atheris

with atheris.instrument_imports(include=["scanner"]):
    from scanner.examine import examine
    from scanner.matcher.engine import Matcher
    from scanner.matcher.pattern import Ruleset
    from scanner.matcher.reference import spans
    from scanner.patterns.generate import generate
    from scanner.patterns.loader import load

from tests.matcher.embeddings import everywhere

_MOST = 10_000
# One of each kind of shape, and of each kind of checksum.
_NAMES = (
    "azure-devops-pat", "azure-devops-pat-legacy", "github-pat", "github-fine-grained-pat",
    "pypi-token", "grafana-service-account", "json-web-token", "openai-project-key",
)  # fmt: skip
RULES = load(only=_NAMES)
EVERY = frozenset(_NAMES)
MATCHER = Matcher(RULES, bound=EVERY)
SLICED = Matcher(RULES, bound=EVERY, slice_bytes=61)
SINGLE = {
    pattern.id: Matcher(Ruleset((pattern,)), bound=EVERY)
    for pattern in RULES.patterns
    if pattern.id != "azure-devops-pat-legacy"  # without an anchor: not found in encodings
}
WAYS = [way for way in everywhere() if way[0] != "in a continued line"]


def check(data: bytes) -> None:
    """Hold what the matcher promises of any bytes, and of a token somewhere among them."""
    reads_as_the_reference(data)
    examine(data, MATCHER, _MOST)
    source = atheris.FuzzedDataProvider(data)
    rng = random.Random(source.ConsumeInt(4))
    pattern = rng.choice([one for one in RULES.patterns if one.id in SINGLE])
    token = generate(pattern, rng).reveal()
    name, _, embed = rng.choice(WAYS)
    cut = rng.randrange(len(data) + 1)
    around = data[:cut] + b"\n \n" + embed(token) + b"\n \n" + data[cut:]
    if "UTF-16" in name and cut % 2 == 0:
        around = b"\n" + around
    found = {one.secret.reveal() for one in SINGLE[pattern.id].scan(around)}
    if token not in found:
        raise AssertionError(f"a token of {pattern.id} is lost {name}")


def reads_as_the_reference(data: bytes) -> None:
    """Hold that plain spans are the reference's, and that nothing depends on the slices."""
    candidates = MATCHER.scan(data)
    if candidates != SLICED.scan(data):
        raise AssertionError("the slices change what is found")
    for pattern in RULES.patterns:
        expected = spans(pattern, data)
        plain = [
            (one.start, one.end)
            for one in candidates
            if one.pattern == pattern.id and one.encoding == "plain"
        ]
        gated = pattern.checksum_mode == "required"
        if not set(plain) <= set(expected) or (plain != expected and not gated):
            raise AssertionError(f"the spans of {pattern.id} are not the reference's")
    for one in candidates:
        if not 0 <= one.start < one.end <= len(data):
            raise AssertionError("a span outside the data")


if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
