"""From the probes that were met to the texts around them, decoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import itemgetter

from scanner.matcher.forms import base64, escaped, utf16
from scanner.matcher.forms.text import Text, nested
from scanner.matcher.probes import Form, Probe
from scanner.matcher.windows import Windows, around, join

_Met = tuple[Probe, Sequence[int]]  # a probe, and where it ended, in order


def decode(data: memoryview, met: Iterable[_Met]) -> Iterator[tuple[int, Iterator[Text]]]:
    """For each rule and form among those met, yield the rule and the texts to look at."""
    groups: dict[tuple[int, Form], list[_Met]] = {}
    for one in met:
        groups.setdefault((one[0].rule, one[0].form), []).append(one)
    for (rule, form), its_own in groups.items():
        yield rule, _texts(data, form, its_own)


def _texts(data: memoryview, form: Form, met: Sequence[_Met]) -> Iterator[Text]:
    if form is Form.ESCAPED:
        return escaped.texts(data, _windows(met, len(data)))
    if form is Form.UTF_16:
        parts = []
        for parity in (0, 1):
            same = [
                (probe, [end for end in ends if (end - 1) & 1 == parity]) for probe, ends in met
            ]
            parts.append(utf16.texts(data, _windows(same, len(data)), parity))
        return chain.from_iterable(parts)
    hits = [(end, probe.phase, probe.back, probe.forward) for probe, ends in met for end in ends]
    hits.sort(key=itemgetter(0))
    texts = base64.texts(data, hits)
    if form in (Form.BASE64, Form.BASE64_LINES):
        return texts
    inner = base64.runs if form is Form.BASE64_TWICE else _wide
    return (nested(outer, text, form) for outer in texts for text in inner(outer.data))


def _wide(data: bytes) -> Iterator[Text]:
    for parity in (0, 1):
        yield from utf16.texts(memoryview(data), [(0, len(data))], parity)


def _windows(met: Iterable[_Met], size: int) -> Windows:
    return join(
        sorted(
            window
            for probe, ends in met
            if ends
            for window in around(ends, probe.back, probe.forward, size)
        )
    )
