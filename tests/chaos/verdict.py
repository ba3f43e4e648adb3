"""What came of it: every planted token, every mail, the trail, and what was left behind."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select

from scanner.db import audit
from scanner.db.engine import reader
from scanner.db.schema import (
    audit_events,
    incidents,
    metadata,
    outbox,
    scans,
    sealed_candidates,
)
from tests.chaos.issuer import REVOKES
from tests.chaos.stream import Planted
from tests.chaos.world import World
from tests.traces import Search

_WORK = (scans, incidents, outbox, sealed_candidates)
_ENDED = ("done", "partial")
_SKIPPED = ("served",)  # the git host's own folders: there the tokens stand


@dataclass
class Verdict:
    """Each list says what is wrong; all empty: the promises held."""

    lost: list[tuple[int, str]] = field(default_factory=list)  # (window, what)
    twice: list[tuple[int, str]] = field(default_factory=list)
    mails: list[tuple[int, str]] = field(default_factory=list)
    wrongly: list[str] = field(default_factory=list)  # revoked without a leak
    audit: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)  # processes
    events: int = 0
    doubled: int = 0  # mails that came twice, as the law allows

    @property
    def is_good(self) -> bool:
        return not any(
            (self.lost, self.twice, self.mails, self.wrongly, self.audit, self.unfinished,
             self.traces, self.left)
        )  # fmt: skip


def unfinished(connection: Connection) -> list[str]:
    """Rows that are not at their end."""
    return [
        f"{table.name} {row.id}: {row.state} {row.error or ''}"
        for table in _WORK
        for row in connection.execute(
            select(table.c.id, table.c.state, table.c.error).where(table.c.state.not_in(_ENDED))
        )
    ]


def look(world: World, planted: Sequence[Planted]) -> Verdict:
    """Judge everything but processes, which are still there, and traces."""
    with world.looking() as engine, reader(engine).connect() as connection:
        return judge(connection, world, planted)


def judge(connection: Connection, world: World, planted: Sequence[Planted]) -> Verdict:
    """The same, by what this connection sees."""
    verdict = Verdict()
    _judge_tokens(verdict, connection, planted, world)
    trail = audit.verify(connection)
    verdict.audit += trail.problems
    verdict.events = trail.sealed
    if trail.unsealed:
        verdict.audit.append(f"{trail.unsealed} events are not sealed")
    verdict.unfinished += unfinished(connection)
    held = select(func.count()).where(sealed_candidates.c.sealed.is_not(None))
    if count := connection.execute(held).scalar_one():
        verdict.unfinished.append(f"{count} raw tokens are still sealed")
    return verdict


def _judge_tokens(
    verdict: Verdict, connection: Connection, planted: Sequence[Planted], world: World
) -> None:
    states, asked = world.issuer.ends(connection), world.issuer.revocations()
    found: defaultdict[str, list[Any]] = defaultdict(list)
    for row in connection.execute(select(incidents)):
        found[row.token_id].append(row)
    notices: defaultdict[str, list[Any]] = defaultdict(list)
    for row in connection.execute(select(outbox).where(outbox.c.kind == "leak")):
        notices[row.incident_id].append(row)
    revoked = Counter(
        connection.execute(
            select(audit_events.c.token_id).where(audit_events.c.action == "token.revoked")
        ).scalars()
    )
    arrived = Counter(mail.message_id.partition("@")[0][1:] for mail in world.mailbox.mails)
    dropped = Counter({key.partition("@")[0][1:]: n for key, n in world.mailbox.dropped.items()})
    for one in planted:
        rows, window = found[one.token_id], one.window
        state, revoked_by = states[one.token_id]
        if not one.has_leaked:
            if state != "active" or rows or asked[one.token_id]:
                verdict.wrongly.append(f"{one.token_id} never leaked and is {state}")
            continue
        if len(rows) != 1:
            into = verdict.twice if rows else verdict.lost
            into.append((window, f"{one.token_id}: {len(rows)} incidents"))
            continue
        (incident,) = rows
        is_ours = one.organisation == REVOKES
        ends = ("revoked", incident.id) if is_ours else ("active", None)
        if (state, revoked_by) != ends:
            said = f"{one.token_id}: {state} by {revoked_by}, {incident.phase}"
            (verdict.lost if is_ours else verdict.twice).append((window, said))
        if revoked[one.token_id] != int(is_ours):
            said = f"{one.token_id}: {revoked[one.token_id]} revocations in the trail"
            verdict.twice.append((window, said))
        for wrong in _mail_problems(notices[incident.id], arrived, dropped, verdict):
            verdict.mails.append((window, f"{incident.id}: {wrong}"))


def _mail_problems(
    notices: Sequence[Any], arrived: Counter[str], dropped: Counter[str], verdict: Verdict
) -> Iterator[str]:
    """One mail; two with one Message-ID when its server, or its worker, went in between."""
    if len(notices) != 1:
        yield f"{len(notices)} notices"
        return
    (notice,) = notices
    # A server that takes a mail and does not say so makes another copy of it our duty.
    copies = arrived[notice.id] - dropped[notice.id]
    if copies == 2:
        verdict.doubled += 1
    if not 1 <= copies <= 2:
        yield f"{arrived[notice.id]} mails, {dropped[notice.id]} of them without an answer"


def search(world: World, planted: Sequence[Planted], said: Callable[[str], None]) -> list[str]:
    """Look for every raw token in files, rows, Redis, logs and mails."""
    looker = Search({one.token_id: one.secret for one in planted})
    found: list[str] = []
    size = 0
    for place, data in _everything(world):
        size += len(data)
        found += looker.find(place, data)
    said(f"{size >> 20} MiB were searched for {len(planted)} tokens in every form")
    return found


def _everything(world: World) -> Iterator[tuple[str, bytes]]:
    roots: list[tuple[str, Path]] = [("installation", world.folder)]
    if world.postgres is not None:
        roots.append(("PostgreSQL", world.postgres.folder))
    if world.redis is not None:
        roots.append(("Redis", world.redis.folder))
    for name, root in roots:
        for path in root.rglob("*"):
            inside = path.relative_to(root)
            if inside.parts[0] not in _SKIPPED and path.is_file():
                yield f"{name}: {inside}", path.read_bytes()
    for mail in world.mailbox.mails:
        yield f"mail {mail.message_id}", mail.raw + _parts(mail.parsed())
    if world.redis is not None:
        yield "Redis: keys", _redis(world)
    with world.looking() as engine, reader(engine).connect() as connection:
        for table in metadata.sorted_tables:
            rows = connection.execute(select(table))
            yield f"table {table.name}", b"\n".join(_bytes(value) for row in rows for value in row)


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _parts(message: Any) -> bytes:
    return b"\n".join(
        part.get_payload(decode=True) for part in message.walk() if not part.is_multipart()
    )


def _redis(world: World) -> bytes:
    assert world.redis is not None
    read = {
        "string": lambda client, key: client.get(key),
        "list": lambda client, key: client.lrange(key, 0, -1),
        "set": lambda client, key: client.smembers(key),
        "zset": lambda client, key: client.zrange(key, 0, -1),
        "hash": lambda client, key: client.hgetall(key),
        "stream": lambda client, key: client.xrange(key),
    }
    with world.redis.client() as client:
        return b"\n".join(
            f"{key} {read[client.type(key)](client, key)}".encode() for key in client.scan_iter()
        )
