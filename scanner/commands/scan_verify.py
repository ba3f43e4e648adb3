"""`patrol scan --verify`: what the token store says of what was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from scanner.bootstrap import Services
from scanner.model import LocatedCandidate, Validity
from scanner.prove import prove
from scanner.settings import Settings


def verifier(
    settings: Settings, bound: frozenset[str]
) -> Callable[[Sequence[LocatedCandidate]], Sequence[Validity]]:
    """Return a function that asks about candidates of the `bound` patterns, and only about these;
    the connection is closed when the command ends."""
    built = Services(settings)
    click.get_current_context().call_on_close(built.close)

    def ask(found: Sequence[LocatedCandidate]) -> Sequence[Validity]:
        secrets = {one.candidate.secret for one in found if one.candidate.pattern in bound}
        asked = list(secrets)
        answers = dict(zip(asked, prove(built.store, asked), strict=True)) if asked else {}
        return [
            answers[one.candidate.secret].validity
            if one.candidate.pattern in bound
            else Validity.UNCHECKED
            for one in found
        ]

    return ask
