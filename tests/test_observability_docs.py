"""docs/observability.md says what is: every metric with its labels, every reason, every field."""

from __future__ import annotations

import re
from pathlib import Path

from scanner.metrics import FAMILIES
from scanner.web.health import REASONS
from scanner.web.scrape import GAUGES

PAGE = (Path(__file__).parents[1] / "docs" / "observability.md").read_text("utf-8")


def test_the_table_of_metrics_is_the_registry() -> None:
    rows = re.findall(r"^\| `(patrol_\w+)` \| (\w+) \| (.*?) ?\| (.+) \|$", PAGE, re.MULTILINE)
    told = {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)), text)
        for name, kind, labels, text in rows
    }
    counted = {f.name: (f.kind, tuple(f.labels), f.text) for f in FAMILIES}
    gauges = {name: ("gauge", labels, text) for name, (text, labels) in GAUGES.items()}
    assert len(rows) == len(told)
    assert told == counted | gauges


def test_alerts_ask_for_what_there_is() -> None:
    rules = PAGE[PAGE.index("### Alerts") :]
    known = {f.name for f in FAMILIES} | set(GAUGES)
    asked = {
        re.sub(r"(?<=_seconds)_(bucket|sum|count)$", "", name)
        for name in re.findall(r"\bpatrol_\w+", rules)
    }
    assert asked
    assert asked <= known
    values = {value for f in FAMILIES for values in f.labels.values() for value in values}
    for matched in re.findall(r'\w+=~?"([\w|]+)"', rules):
        assert set(matched.split("|")) <= values


def test_every_reason_is_explained() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .+ \| .+ \|$", PAGE[PAGE.index("## Probes") :], re.MULTILINE)
    assert rows == list(REASONS)
