"""From a parsed push to a durable row: free text is masked, and sealed where it held a token."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine

from scanner.db.scans import PushRow, accept_push
from scanner.db.seals import Sealer
from scanner.matcher.engine import Matcher
from scanner.sources.github_push import Push


@dataclass(frozen=True, slots=True)
class Intake:
    """Stores pushes; built by bootstrap."""

    engine: Engine
    matcher: Matcher
    sealer: Sealer
    github_url: str  # fetches go to <github_url>/<owner>/<name>.git, whatever a payload says

    def accept(self, push: Push, delivery: str | None) -> tuple[str, bool]:
        """Commit the push; returns (scan id, is new). Only after this may a 2xx be sent."""
        shown = {
            "ref": self.matcher.redact(push.ref),
            "repository": self.matcher.redact(push.repository),
        }
        raw = {"ref": push.ref, "repository": push.repository}
        sealed = None if shown == raw else self.sealer.seal(push.body_digest, raw)
        row = PushRow(
            hook=push.hook,
            body_digest=push.body_digest,
            host=self.github_url.rstrip("/"),
            repository=shown["repository"],
            ref=shown["ref"][:400],
            before=push.before,
            after=push.after,
            forced=push.forced,
            delivery=self.matcher.redact(delivery)[:100] if delivery else None,
            sealed=sealed,
        )
        with self.engine.begin() as connection:
            return accept_push(connection, row)
