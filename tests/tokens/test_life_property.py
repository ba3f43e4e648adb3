"""The built-in store against a plain model of a token's life: whatever is done in whatever order,
it answers as the model does, under every pepper, and every leak meets its token."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from scanner.db.dialect import POSTGRESQL, SQLITE
from scanner.db.engine import create_database_engine
from scanner.errors import ConflictError
from scanner.keyring import Key
from scanner.matcher.engine import Matcher
from scanner.model import Secret, Validity
from scanner.patterns.generate import generate
from scanner.stores.digests import Peppers
from scanner.stores.sql import SqlTokenStore
from scanner.stores.wrapping import wrap_digests
from tests.databases import Databases
from tests.tokens.conftest import ACME, ACTOR, K1, PATTERN, Desk, Turning

OWNERS = ("Ada", "Grace")
WORKS = (Validity.ACTIVE, Validity.OWNER_DISABLED)


@dataclass
class Model:
    """What is true of one token."""

    token_id: str
    owner: str
    is_revoked: bool = False
    is_over: bool = False
    is_imported: bool = False  # under its plain digest, which is no other's that we made
    successor: bytes | None = None
    incident: Validity | None = None  # of its leak, as it stands in the incident


@dataclass
class World:
    """What is true of all of them: by the raw token; None: nobody issued it yet."""

    tokens: dict[bytes, Model | None] = field(default_factory=dict)
    disabled: set[str] = field(default_factory=set)  # owners, and "Acme"
    sightings: int = 0

    def validity(self, raw: bytes) -> Validity:
        token = self.tokens[raw]
        if token is None:
            return Validity.NEVER_ISSUED
        if token.is_revoked:
            return Validity.REVOKED
        if token.is_over:
            return Validity.EXPIRED
        if self.disabled & {token.owner, "Acme"}:
            return Validity.OWNER_DISABLED
        return Validity.ACTIVE


class Life(RuleBasedStateMachine):
    """Rules that the store refuses must be refused, and change nothing."""

    databases: Databases
    matcher: Matcher
    raws = Bundle("raws")

    def __init__(self) -> None:
        super().__init__()
        self.url = self.databases.new()
        self.engine = create_database_engine(self.url)
        self.desk = Desk(
            self.engine, self.url, Turning(K1), lambda: generate(PATTERN), self.matcher
        )
        grace = self.desk.accounts.create_owner(
            organisation="Acme", name="Grace", email="grace@acme.example", actor=ACTOR
        )
        self.owners = {"Ada": self.desk.ada["id"], "Grace": grace["id"]}
        self.world = World()
        self.leaked: set[bytes] = set()  # while nobody knew them

    def expecting(self, is_refused: bool, do: Callable[[], Any]) -> Any:
        """What is done, or None when it had to be refused."""
        if not is_refused:
            return do()
        with pytest.raises(ConflictError):
            do()
        return None

    def issued(self, raw: bytes, token_id: str, owner: str) -> Model:
        self.world.tokens[raw] = token = Model(token_id, owner)
        if raw in self.leaked:  # it meets its leak
            self.leaked.remove(raw)
            token.incident = self.world.validity(raw)
        return token

    def _create(self, raw: bytes, owner: str) -> None:
        made = self.expecting(
            bool(self.world.disabled & {owner, "Acme"}),
            lambda: self.desk.create(Secret(raw), owner=owner)[1],
        )
        if made is not None:
            self.issued(raw, made["id"], owner)

    # A token comes to be.

    @rule(target=raws, owner=st.sampled_from(OWNERS))
    def create(self, owner: str) -> bytes:
        raw = self.fresh()
        self._create(raw, owner)
        return raw

    @rule(target=raws, owner=st.sampled_from(OWNERS))
    def import_one(self, owner: str) -> bytes:
        raw = self.fresh()
        self.import_again(raw, owner)
        return raw

    @rule(target=raws)
    def leak_one_that_nobody_knows(self) -> bytes:
        raw = self.fresh()
        self.leak(raw)
        return raw

    def fresh(self) -> bytes:
        raw = generate(PATTERN).reveal()
        self.world.tokens[raw] = None
        return raw

    @rule(raw=raws, owner=st.sampled_from(OWNERS))
    def create_late(self, raw: bytes, owner: str) -> None:
        if self.world.tokens[raw] is None:
            self._create(raw, owner)

    @rule(raw=raws, owner=st.sampled_from(OWNERS))
    def import_again(self, raw: bytes, owner: str) -> None:
        """By its plain digest, whoever is disabled; what was imported before stays as it is. That
        it was issued here nobody can tell, but the older record counts."""
        digest = hashlib.sha256(raw).hexdigest()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "tokens.csv"
            file.write_text(f"digest,name,organisation,owner\n{digest},ci,Acme,{owner}\n")
            outcome = self.desk.importer.run(file, default_pattern=PATTERN, actor=ACTOR)
        token = self.world.tokens[raw]
        is_new = token is None or not token.is_imported
        assert (outcome.imported, outcome.rejected) == (int(is_new), 0)
        if token is None:
            (found,) = self.desk.store.find([Secret(raw)])
            assert found.token is not None
            token = self.issued(raw, found.token.token_id, owner)
        token.is_imported = True

    @rule(target=raws, raw=raws, overlap=st.sampled_from([0, 3_600]))
    def rotate(self, raw: bytes, overlap: int) -> Any:
        token = self.world.tokens[raw]
        if token is None:
            return multiple()
        new = generate(PATTERN)
        made = self.expecting(
            self.world.validity(raw) is not Validity.ACTIVE or token.successor is not None,
            lambda: self.desk.tokens.rotate(
                token.token_id, new, mask="npm_…a1B2", overlap=overlap, actor=ACTOR
            ),
        )
        if made is None:
            return multiple()
        assert made["predecessor_id"] == token.token_id
        self.world.tokens[new.reveal()] = Model(made["id"], token.owner)
        token.successor, token.is_over = new.reveal(), overlap == 0
        return new.reveal()

    # It ends, and goes on.

    @rule(raw=raws)
    def time_passes(self, raw: bytes) -> None:
        """A token, or an overlap, comes to its end."""
        token = self.world.tokens[raw]
        if token is not None:
            self.desk.end(token.token_id)
            token.is_over = True

    @rule(raw=raws)
    def expire(self, raw: bytes) -> None:
        token = self.world.tokens[raw]
        if token is not None:
            self.expecting(
                token.is_revoked, lambda: self.desk.tokens.expire(token.token_id, actor=ACTOR)
            )
            token.is_over |= not token.is_revoked

    @rule(raw=raws, ends=st.sampled_from([None, timedelta(days=1)]))
    def prolong(self, raw: bytes, ends: timedelta | None) -> None:
        token = self.world.tokens[raw]
        if token is None:
            return
        changes = {"valid_to": None if ends is None else datetime.now(UTC) + ends}
        self.expecting(
            token.is_revoked,
            lambda: self.desk.tokens.update(token.token_id, changes, actor=ACTOR),
        )
        token.is_over &= token.is_revoked
        now = self.world.validity(raw)
        if token.incident is Validity.EXPIRED and now in WORKS:  # its leak is worth it again
            token.incident = now

    @rule(raw=raws)
    def revoke(self, raw: bytes) -> None:
        token = self.world.tokens[raw]
        if token is not None:
            row, ours = self.desk.tokens.revoke(token.token_id, cause="incident-1", actor=ACTOR)
            assert (row["validity"], ours) == ("revoked", True)
            token.is_revoked = True

    # Who may have tokens, and where they are seen.

    @rule(owner=st.sampled_from(OWNERS), enabled=st.booleans())
    def enable_owner(self, owner: str, enabled: bool) -> None:
        self.desk.accounts.enable_owner(self.owners[owner], enabled=enabled, actor=ACTOR)
        (self.world.disabled.discard if enabled else self.world.disabled.add)(owner)

    @rule(enabled=st.booleans())
    def enable_organisation(self, enabled: bool) -> None:
        self.desk.accounts.enable_organisation("Acme", enabled=enabled, actor=ACTOR)
        (self.world.disabled.discard if enabled else self.world.disabled.add)("Acme")

    @rule(raw=raws)
    def leak(self, raw: bytes) -> None:
        self.desk.leak(Secret(raw))
        self.world.sightings += 1
        token = self.world.tokens[raw]
        if token is None:
            self.leaked.add(raw)
        elif token.incident is None:
            token.incident = self.world.validity(raw)

    # Keys.

    @rule(is_wrapped=st.booleans())
    def turn_the_pepper(self, is_wrapped: bool) -> None:
        keys = self.desk.ring.keys
        name = f"2026-{len(keys):02}-01"
        self.desk.ring.keys = (Key(name, name.encode() * 8), *keys)
        if is_wrapped:
            wrap_digests(self.engine, self.desk.peppers, actor=ACTOR)

    # What must be true.

    @invariant()
    def the_store_answers_as_the_model(self) -> None:
        raws = list(self.world.tokens)
        asked = [Secret(raw) for raw in raws]
        restarted = SqlTokenStore(self.engine, Peppers(self.desk.ring, (ACME,)))
        for store in (self.desk.store, restarted):
            for raw, found in zip(raws, store.find(asked), strict=True):
                token = self.world.tokens[raw]
                assert found.validity is self.world.validity(raw)
                known = None if found.token is None else found.token.token_id
                assert known == (None if token is None else token.token_id)
        for raw in raws[-2:]:
            may = self.desk.store.authenticate(Secret(raw)) is not None
            assert may is (self.world.validity(raw) is Validity.ACTIVE)

    @invariant()
    def every_leak_has_met_its_token(self) -> None:
        wanted = {
            token.token_id: token.incident.value
            for token in self.world.tokens.values()
            if token is not None and token.incident is not None
        }
        found = {row["token_id"]: row["validity"] for row in self.desk.incidents()}
        assert found == wanted
        seen = self.desk.sightings()
        assert len(seen) == self.world.sightings
        waiting = {row["fingerprint"] for row in seen if row["incident_id"] is None}
        assert len(waiting) == len(self.leaked)

    def teardown(self) -> None:
        self.engine.dispose()
        self.databases.drop(self.url)


@pytest.mark.parametrize(("kind", "examples"), [(SQLITE, 30), (POSTGRESQL, 5)])
def test_a_token_lives_as_the_model_says(
    databases_of: Callable[[str], Databases], matcher: Matcher, kind: str, examples: int
) -> None:
    Life.databases, Life.matcher = databases_of(kind), matcher
    run_state_machine_as_test(
        Life, settings=settings(max_examples=examples, stateful_step_count=20, deadline=None)
    )
