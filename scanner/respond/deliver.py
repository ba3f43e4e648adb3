"""Step 4: delivery. The outbox row holds attempts; the channel only tries once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from notifier.channels.email import EmailChannel
from notifier.errors import DeliveryError
from notifier.notice import Notice
from notifier.notify import notify
from notifier.render import Renderer
from scanner.db import audit, leases
from scanner.db.clock import now_ms
from scanner.db.leases import Claim
from scanner.db.schema import outbox
from scanner.model import AuditAction

log = logging.getLogger(__name__)

_BATCH = 16


@dataclass(frozen=True, slots=True)
class Deliverer:
    """Sends what the outbox holds; built by bootstrap."""

    engine: Engine
    channel: EmailChannel
    renderer: Renderer
    operator_email: str
    issuer_name: str
    message_domain: str
    pattern_names: Mapping[str, str]
    lease_ms: int
    max_attempts: int

    def run_batch(self) -> int:
        """Claim and try a batch of notices; returns how many rows were touched."""
        with self.engine.begin() as connection:
            claims, parked = leases.claim(
                connection,
                outbox,
                limit=_BATCH,
                lease_ms=self.lease_ms,
                max_attempts=self.max_attempts,
            )
            for row in parked:
                self._audit(connection, AuditAction.NOTICE_FAILED, row, error=row["error"])
        for claim in claims:
            self._send(claim)
        return len(claims) + len(parked)

    def _send(self, claim: Claim) -> None:
        notice = self._notice(claim.row)
        try:
            subject = notify(notice, self.channel, self.renderer)
        except DeliveryError as error:
            self._failed(claim, error)
            return
        with self.engine.begin() as connection:
            now = now_ms(connection)
            if leases.finish(
                connection,
                outbox,
                claim,
                leases.DONE,
                sent_at=now,
                subject=subject[:400],
                error=None,
            ):
                self._audit(connection, AuditAction.NOTICE_DELIVERED, claim.row, to=notice.to)

    def _failed(self, claim: Claim, error: DeliveryError) -> None:
        log.warning("notice %s: %s", claim.id, error)
        with self.engine.begin() as connection:
            if not error.permanent:
                leases.release(connection, outbox, claim, str(error))
            elif leases.finish(connection, outbox, claim, leases.PARKED, error=str(error)[:500]):
                self._audit(connection, AuditAction.NOTICE_FAILED, claim.row, error=str(error))

    def _notice(self, row: Mapping[str, Any]) -> Notice:
        stored = row["notice"]
        context = dict(stored["context"])
        if row["kind"] == "leak":
            context["issuer_name"] = self.issuer_name
            kind = context["token_kind"]
            context["token_kind"] = self.pattern_names.get(kind, kind)
        return Notice.from_json(
            {
                "kind": row["kind"],
                "to": stored["to"] or self.operator_email,
                "reply_to": stored["reply_to"],
                # Stable over attempts: a second copy after a crash is recognised as the same mail.
                "message_id": f"<{row['id']}@{self.message_domain}>",
                "context": context,
            }
        )

    def _audit(
        self, connection: Any, action: AuditAction, row: Mapping[str, Any], **data: Any
    ) -> None:
        token = row["notice"]["context"]
        audit.record(
            connection,
            action,
            incident_id=row["incident_id"],
            channel="email",
            notice=row["kind"],
            organisation=token.get("organisation"),
            **data,
        )
