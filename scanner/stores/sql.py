"""The built-in token store: Patrol's own tables.

Tokens are kept as HMAC-SHA256 digests under a keyed pepper; a lookup matches the full digest, so a
forged token that only shares an id or a prefix proves nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, insert, select, update

from scanner.db import audit
from scanner.db.clock import from_datetime, now_in, now_ms, to_datetime, to_iso
from scanner.db.dialect import upsert
from scanner.db.engine import DATABASE_AWAY, reader
from scanner.db.schema import digest_chains, new_id, organisations, owners, tokens
from scanner.errors import FinalError, StoreUnavailableError
from scanner.keyring import Key
from scanner.model import AuditAction, Lookup, Secret, TokenRecord, Validity
from scanner.ports import StoreAbilities

_BATCH = 400  # digests a statement; SQLite allows 999 variables


class SqlTokenStore:
    """Finds, issues and revokes tokens in Patrol's database. Satisfies `ports.TokenStore`."""

    name = "built-in"
    abilities = StoreAbilities(tells_reason=True, revokes_by="id", keeps_cause=True, batch=_BATCH)

    def __init__(self, engine: Engine, peppers: Sequence[Key]) -> None:
        self._engine = engine
        self._peppers = peppers  # a ring may turn meanwhile

    def _digest(self, key: Key, secret: Secret) -> str:
        return hmac.new(key.value, secret.reveal(), hashlib.sha256).hexdigest()

    def find(self, secrets: Sequence[Secret]) -> Sequence[Lookup]:
        """Answer each secret, in order."""
        answers: dict[tuple[str, str], Lookup] = {}
        digests = sorted({self._digest(key, secret) for secret in secrets for key in self._peppers})
        try:
            with reader(self._engine).connect() as connection:
                now = now_ms(connection)
                for begin in range(0, len(digests), _BATCH):
                    rows = connection.execute(
                        _SELECT.where(tokens.c.digest.in_(digests[begin : begin + _BATCH]))
                    ).mappings()
                    for row in rows:
                        answers[row["key_id"], row["digest"]] = self._lookup(row, now)
        except DATABASE_AWAY as error:
            raise StoreUnavailableError("The built-in token store did not answer.") from error
        unknown = Lookup(Validity.NEVER_ISSUED)
        return [
            next(
                (
                    answers[key.id, digest]
                    for key in self._peppers
                    if (key.id, digest := self._digest(key, secret)) in answers
                ),
                unknown,
            )
            for secret in secrets
        ]

    def _lookup(self, row: Any, now: int) -> Lookup:
        record = TokenRecord(
            store=self.name,
            token_id=row["id"],
            name=row["name"],
            pattern=row["pattern"],
            mask=row["mask"],
            organisation_id=row["organisation_id"],
            organisation=row["organisation_name"],
            organisation_contact=row["contact_email"],
            owner_id=row["owner_id"],
            owner_name=row["owner_name"],
            owner_email=row["owner_email"],
            scopes=tuple(row["scopes"]),
            valid_from=to_datetime(row["valid_from"]),
            valid_to=to_datetime(row["valid_to"]),
        )
        if row["state"] != "active":
            return Lookup(Validity.REVOKED, record)
        if row["valid_to"] is not None and row["valid_to"] <= now:
            return Lookup(Validity.EXPIRED, record)
        if row["disabled_at"] is not None:
            return Lookup(Validity.OWNER_DISABLED, record)
        return Lookup(Validity.ACTIVE, record)

    def revoke(self, token_id: str, incident_id: str, *, secret: Secret | None = None) -> bool:
        """One conditional update that carries its cause, committed alone (law 4)."""
        try:
            with self._engine.begin() as connection:
                revoked = connection.execute(
                    update(tokens)
                    .where(tokens.c.id == token_id, tokens.c.state == "active")
                    .values(state="revoked", revoked_by=incident_id, revoked_at=now_in(connection))
                )
            if revoked.rowcount == 1:
                return True
            with reader(self._engine).connect() as connection:
                cause = connection.execute(
                    select(tokens.c.revoked_by).where(tokens.c.id == token_id)
                ).scalar_one_or_none()
        except DATABASE_AWAY as error:
            raise StoreUnavailableError("The built-in token store did not answer.") from error
        return cause == incident_id

    def authenticate(self, secret: Secret) -> TokenRecord | None:
        """The issuer's own gate: the token's record when it may be used now, else None."""
        lookup = self.find([secret])[0]
        record = lookup.token
        if lookup.validity is not Validity.ACTIVE or record is None:
            return None
        with reader(self._engine).connect() as connection:
            begins = from_datetime(record.valid_from) or 0
            return record if begins <= now_ms(connection) else None

    def issue(
        self,
        secret: Secret,
        *,
        organisation: str,
        owner: str,
        name: str,
        pattern: str,
        mask: str,
        scopes: Sequence[str],
        days: int | None,
        actor: str,
    ) -> str:
        """Record a new token's digest; returns its id. Owner and organisation must exist."""
        with self._engine.begin() as connection:
            row = connection.execute(
                select(owners.c.id, owners.c.organisation_id)
                .join(organisations, organisations.c.id == owners.c.organisation_id)
                .where(organisations.c.name == organisation, owners.c.name == owner)
            ).one_or_none()
            if row is None:
                raise FinalError(f"There is no owner {owner!r} in organisation {organisation!r}.")
            now = now_ms(connection)
            token_id = new_id()
            key = self._peppers[0]
            connection.execute(
                upsert(connection, digest_chains)
                .values(key_id=key.id, created_at=now)
                .on_conflict_do_nothing()
            )
            connection.execute(
                insert(tokens).values(
                    id=token_id,
                    organisation_id=row.organisation_id,
                    owner_id=row.id,
                    name=name,
                    pattern=pattern,
                    scopes=list(scopes),
                    mask=mask,
                    digest=self._digest(key, secret),
                    key_id=key.id,
                    valid_from=now,
                    valid_to=None if days is None else now + days * 86_400_000,
                    state="active",
                    created_at=now,
                )
            )
            audit.record(
                connection,
                AuditAction.TOKEN_ISSUED,
                actor=actor,
                organisation_id=row.organisation_id,
                token_id=token_id,
                name=name,
                mask=mask,
            )
        return token_id

    def revoke_by_hand(self, token_id: str, actor: str) -> bool:
        """A person revokes; False when it was not active any more."""
        with self._engine.begin() as connection:
            result = connection.execute(
                update(tokens)
                .where(tokens.c.id == token_id, tokens.c.state == "active")
                .values(state="revoked", revoked_by=actor, revoked_at=now_ms(connection))
            )
            if result.rowcount != 1:
                return False
            audit.record(connection, AuditAction.TOKEN_REVOKED, actor=actor, token_id=token_id)
        return True

    def list_tokens(self, token_id: str | None = None) -> list[dict[str, Any]]:
        """Return every token (or one) as plain values for people; digests stay inside."""
        query = _SELECT.order_by(tokens.c.created_at)
        if token_id is not None:
            query = query.where(tokens.c.id == token_id)
        with reader(self._engine).connect() as connection:
            now = now_ms(connection)
            return [
                {
                    "id": row["id"],
                    "name": row["name"],
                    "organisation": row["organisation_name"],
                    "owner": row["owner_name"],
                    "pattern": row["pattern"],
                    "mask": row["mask"],
                    "scopes": list(row["scopes"]),
                    "validity": self._lookup(row, now).validity.value,
                    "valid_to": to_iso(row["valid_to"]),
                    "revoked_at": to_iso(row["revoked_at"]),
                    "revoked_by": row["revoked_by"],
                }
                for row in connection.execute(query).mappings()
            ]


def ensure_owner(
    connection: Connection, organisation: str, owner: str, email: str | None, contact: str | None
) -> None:
    """Create the organisation and the owner when they are missing."""
    org_id = connection.execute(
        select(organisations.c.id).where(organisations.c.name == organisation)
    ).scalar_one_or_none()
    now = now_ms(connection)
    if org_id is None:
        org_id = new_id()
        connection.execute(
            insert(organisations).values(
                id=org_id, name=organisation, contact_email=contact, created_at=now
            )
        )
    known = connection.execute(
        select(owners.c.id).where(owners.c.organisation_id == org_id, owners.c.name == owner)
    ).scalar_one_or_none()
    if known is None:
        connection.execute(
            insert(owners).values(id=new_id(), organisation_id=org_id, name=owner, email=email)
        )


_SELECT = (
    select(
        tokens,
        organisations.c.name.label("organisation_name"),
        organisations.c.contact_email,
        owners.c.name.label("owner_name"),
        owners.c.email.label("owner_email"),
        owners.c.disabled_at,
    )
    .join(organisations, organisations.c.id == tokens.c.organisation_id)
    .outerjoin(owners, owners.c.id == tokens.c.owner_id)
)
