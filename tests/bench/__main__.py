"""`make bench`: measure, and print the tables of docs/benchmarks.md.

`--quick` measures less, for a look; its figures are no claim. `--long` takes minutes more: a
million tokens instead of a tenth. `--only Claim` runs the groups whose title begins so. Medians
throughout: machines are noisy. Ratios compare within one run.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable
from functools import partial

import claims
import folders
import ledger
import matching
import pushes
import responses
import service
import tokens
from figures import Figure

_TOKENS = "The built-in store"
_GROUPS: dict[str, Callable[[bool], list[Figure]]] = {
    "Reading a push": pushes.measure,
    "Claim 64 pushes and finish them": claims.measure,
    "From a proved hit to its revocation": responses.measure,
    _TOKENS: tokens.measure,
    "Matching": matching.measure,
    "Scan a folder": folders.measure,
    "Large files that are known": ledger.measure,
    "The service": service.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--only", default="", metavar="TITLE", help="groups whose title begins so")
    chosen = parser.parse_args()
    groups = {**_GROUPS, _TOKENS: partial(tokens.measure, is_long=chosen.long)}
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, {platform.machine()}")
    for title, measure in groups.items():
        if not title.startswith(chosen.only):
            continue
        print(f"\n### {title}\n\n| what | median | ratio | asked for |\n|---|---|---|---|")
        for figure in measure(chosen.quick):
            print(
                f"| {figure.what} | {figure.value} | {figure.ratio} | {figure.asked} |", flush=True
            )


if __name__ == "__main__":
    main()
