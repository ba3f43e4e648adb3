"""Step 4: delivery. The outbox row holds attempts; the channel only tries once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, select

from notifier.errors import DeliveryError
from notifier.notice import Notice
from notifier.notify import Channel, notify
from notifier.render import Renderer
from scanner.correlation import correlated
from scanner.db import alarms, audit, holding, leases, parking
from scanner.db.alarms import Topic
from scanner.db.clock import now_ms
from scanner.db.engine import reader
from scanner.db.leases import Claim, Patience
from scanner.db.schema import incidents, outbox
from scanner.db.work import Found, taken
from scanner.deadline import Deadline
from scanner.errors import name_of
from scanner.metrics import NOTICES
from scanner.model import AuditAction

log = logging.getLogger(__name__)

_BATCH = 16


@dataclass(frozen=True, slots=True)
class Deliverer:
    """Sends what the outbox holds; built by bootstrap."""

    engine: Engine
    channel: Channel
    renderer: Renderer
    operator_email: str
    issuer_name: str
    message_domain: str
    pattern_names: Mapping[str, str]
    patience: Patience

    def run_batch(self, deadline: Deadline | None = None) -> Found:
        """Try a batch of notices; false: there was nothing to do. Those that were not begun before
        the deadline are handed back: a mail server may take a minute for each."""
        with taken(
            self.engine, outbox, self.patience, limit=_BATCH, on_parked=_audit_failure
        ) as work:
            for claim in work.claims:
                if deadline is not None and deadline.is_over:
                    with self.engine.begin() as connection:
                        leases.hand_back(connection, outbox, claim)
                # We may have been paused: then another worker sends this one.
                elif holding.renew(self.engine, outbox, [claim], self.patience):
                    correlation_id = self._correlation_of(claim.row)
                    with correlated(correlation_id):
                        self._send(claim, correlation_id)
        return work.found

    def _correlation_of(self, row: Mapping[str, Any]) -> str | None:
        """The id of the scan that opened the notice's incident; an alarm may have none."""
        if row["incident_id"] is None:
            return None
        query = select(incidents.c.correlation_id).where(incidents.c.id == row["incident_id"])
        with reader(self.engine).connect() as connection:
            return str(connection.execute(query).scalar_one())

    def _send(self, claim: Claim, correlation_id: str | None) -> None:
        try:
            notice = self._notice(claim.row, correlation_id)
            subject = notify(notice, self.channel, self.renderer)
        except DeliveryError as error:
            self._failed(claim, str(error), permanent=error.permanent)
            return
        except Exception as error:  # noqa: BLE001 (a fault of ours must not take neighbours down)
            self._failed(claim, name_of(error), blame=True)
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
                _audit(connection, AuditAction.NOTICE_DELIVERED, claim.row, to=notice.to)
        # Also when another worker has the row by now: it went out, and may do so twice.
        log.info("notice %s is delivered", claim.id, extra={"kind": claim.row["kind"]})
        NOTICES.add(kind=claim.row["kind"], outcome="delivered")

    def _failed(
        self, claim: Claim, said: str, *, permanent: bool = False, blame: bool = False
    ) -> None:
        log.warning("notice %s: %s", claim.id, said)
        with self.engine.begin() as connection:
            if permanent:
                kept = parking.park(connection, outbox, claim, said)
                state = leases.PARKED if kept else None
            else:
                state = leases.release(connection, outbox, claim, said, self.patience, blame=blame)
            if state == leases.PARKED:
                _audit_failure(connection, {**claim.row, "error": said})
        if state == leases.PENDING:
            NOTICES.add(kind=claim.row["kind"], outcome="retried")

    def _notice(self, row: Mapping[str, Any], correlation_id: str | None) -> Notice:
        stored = row["notice"]
        context = dict(stored["context"])
        if "topic" in stored:
            with reader(self.engine).connect() as connection:
                context = alarms.as_of_now(connection, stored, context)
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
                "correlation_id": correlation_id,
            }
        )


def _audit_failure(connection: Connection, row: Mapping[str, Any]) -> None:
    _audit(connection, AuditAction.NOTICE_FAILED, row, error=row["error"])
    NOTICES.add(kind=row["kind"], outcome="parked")
    if row["kind"] == "alarm":
        # Another alarm would go the same way: the log, the metrics and patrol doctor tell of it.
        log.error("an alarm to the operator was refused: %s", row["error"])
    else:
        example = f"Notice {row['id']}: {row['error']}."
        alarms.raise_alarm(connection, Topic.REFUSED_MAILS, example, row["incident_id"])


def _audit(
    connection: Connection, action: AuditAction, row: Mapping[str, Any], **data: Any
) -> None:
    audit.record(
        connection,
        action,
        incident_id=row["incident_id"],
        channel="email",
        notice=row["kind"],
        organisation=row["notice"]["context"].get("organisation"),
        **data,
    )
