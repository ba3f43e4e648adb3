"""The built-in token store: Patrol's own tables.

Tokens are kept as HMAC-SHA256 digests under chains of keys (digests.py); a look-up matches the full
digest, so a forged token that only shares an id or a prefix proves nothing. What else can be done
with tokens stands in lifecycle.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Engine, select, update
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from scanner.db import chains
from scanner.db.clock import now_in
from scanner.db.engine import DATABASE_AWAY, reader, single
from scanner.db.schema import tokens
from scanner.db.tokens import ACTIVE, BUILT_IN, REVOKED, Row, find, to_lookup, validity_of
from scanner.errors import StoreUnavailableError
from scanner.keyring import Key
from scanner.model import Lookup, Secret, TokenRecord, Validity
from scanner.ports import StoreAbilities
from scanner.stores import rules
from scanner.stores.account_making import ensure_owner
from scanner.stores.digests import Peppers, require_keys
from scanner.stores.lifecycle import TokenLifecycle

__all__ = ["SqlTokenStore", "ensure_owner"]

_AWAY = (*DATABASE_AWAY, PoolTimeoutError)
_BATCH = 1_000  # tokens a statement


class SqlTokenStore:
    """Finds and revokes tokens in Patrol's database. Satisfies `ports.TokenStore`, and
    `ports.MeetsLatecomers`; `lifecycle` is the rest of a token's life.
    """

    name = BUILT_IN
    abilities = StoreAbilities(tells_reason=True, revokes_by="id", keeps_cause=True, batch=_BATCH)

    def __init__(self, engine: Engine, peppers: Sequence[Key] | Peppers) -> None:
        self._engine = engine
        self._peppers = peppers if isinstance(peppers, Peppers) else Peppers(peppers)
        self._chains = frozenset(self._peppers.now().bases)  # as the last look-up saw them
        self._long: dict[str, str] = {}  # chains whose names are shorter: what a name says stays
        self.lifecycle = TokenLifecycle(engine, self._peppers)

    def find(self, secrets: Sequence[Secret]) -> Sequence[Lookup]:
        """Answer each secret, in order."""
        unknown = Lookup(Validity.NEVER_ISSUED)
        return [unknown if row is None else to_lookup(row) for row in self.rows(secrets)]

    def rows(self, secrets: Sequence[Secret]) -> list[Row | None]:
        """Return the token's row of each secret, in order; its `now` is the time of the look-up.

        A look-up changes nothing. Errors: `StoreUnavailableError`.
        """
        with _answering():
            return [
                row
                for begin in range(0, len(secrets), _BATCH)
                for row in self._rows(secrets[begin : begin + _BATCH])
            ]

    def _rows(self, secrets: Sequence[Secret]) -> list[Row | None]:
        tried, places = self._chains, {secret: place for place, secret in enumerate(secrets)}
        while True:
            ring = self._peppers.now()
            require_keys(ring, tried)
            digests = {
                ring.digest(chain, secret): place
                for secret, place in places.items()
                for chain in tried
            }
            with single(self._engine).connect() as connection:
                found = find(connection, list(digests))
            # A chain that came meanwhile may be that of a token which was wrapped.
            present = self._in_full(found.chains)
            if present is not None and present <= tried:
                break
            tried = tried if present is None else present
        self._chains = present
        rows: dict[int, Row] = {}
        # Of one token that was recorded twice the older record counts, always the same.
        for row in sorted(found.rows, key=lambda row: (row["created_at"], row["id"])):
            rows.setdefault(digests[row["digest"]], row)
        return [rows.get(places[secret]) for secret in secrets]

    def _in_full(self, names: frozenset[str]) -> frozenset[str] | None:
        """The chains of these names; None: one of them has just gone."""
        new = [name for name in names if not chains.is_full(name) and name not in self._long]
        if new:
            with single(self._engine).connect() as connection:
                self._long |= chains.by_name(connection, new)
        try:
            return frozenset(name if chains.is_full(name) else self._long[name] for name in names)
        except KeyError:
            return None

    def digests(self, secret: Secret) -> Sequence[tuple[str, str]]:
        """Return (chain, digest) under every chain that a record made from now on may have."""
        ring = self._peppers.now()
        return [(chain, ring.digest(chain, secret)) for chain in ring.bases]

    def revoke(self, token_id: str, incident_id: str, *, secret: Secret | None = None) -> bool:
        """One conditional update that carries its cause, committed alone (law 4)."""
        if not rules.is_row_id(token_id):
            return False
        with _answering():
            with self._engine.begin() as connection:
                revoked = connection.execute(
                    update(tokens)
                    .where(tokens.c.id == token_id, tokens.c.state == ACTIVE)
                    .values(state=REVOKED, revoked_by=incident_id, revoked_at=now_in(connection))
                )
            if revoked.rowcount == 1:
                return True
            with reader(self._engine).connect() as connection:
                cause = connection.execute(
                    select(tokens.c.revoked_by).where(tokens.c.id == token_id)
                ).scalar_one_or_none()
        return cause == incident_id

    def authenticate(self, secret: Secret) -> TokenRecord | None:
        """The issuer's own gate: the token's record when it may be used now, else None."""
        (row,) = self.rows([secret])
        return to_lookup(row).token if row is not None and works(row) else None

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
        """Record a new token; returns its id. Owner and organisation must exist."""
        made = self.lifecycle.create(
            secret,
            organisation=organisation,
            owner=owner,
            name=name,
            pattern=pattern,
            mask=mask,
            scopes=scopes,
            days=days,
            actor=actor,
        )
        return str(made["id"])

    def revoke_by_hand(self, token_id: str, actor: str) -> bool:
        """A person revokes; False when it was not active any more."""
        if self.lifecycle.get(token_id)["validity"] == Validity.REVOKED.value:
            return False
        return self.lifecycle.revoke(token_id, actor=actor)[1]


def works(row: Row) -> bool:
    """True when a token may be used now: one that is not yet valid is active, and may not."""
    return validity_of(row) is Validity.ACTIVE and bool(row["valid_from"] <= row["now"])


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except _AWAY as error:
        raise StoreUnavailableError("The built-in token store did not answer.") from error
