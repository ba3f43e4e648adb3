"""`make bench`: measure, and print the tables of docs/benchmarks.md.

`--quick` measures less, for a look; its figures are no claim. Medians throughout: machines are
noisy. Ratios compare within one run.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable

import claims
import ledger
import matching
import pushes
import responses
import service
from figures import Figure

_GROUPS: dict[str, Callable[[bool], list[Figure]]] = {
    "Reading a push": pushes.measure,
    "Claim 64 pushes and finish them": claims.measure,
    "From a proved hit to its revocation": responses.measure,
    "Matching": matching.measure,
    "Large files that are known": ledger.measure,
    "The service": service.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, {platform.machine()}")
    for title, measure in _GROUPS.items():
        print(f"\n### {title}\n\n| what | median | ratio | asked for |\n|---|---|---|---|")
        for figure in measure(quick):
            print(
                f"| {figure.what} | {figure.value} | {figure.ratio} | {figure.asked} |", flush=True
            )


if __name__ == "__main__":
    main()
