"""Redis and database together against a model, a dict of what is true: whatever Redis loses or is
told by others, and wherever a scan is killed, they know what is true and nothing else."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis import Redis

from scanner.cache.redis_ledger import RedisLedger
from scanner.db.engine import create_database_engine
from scanner.db.ledger import DatabaseLedger
from scanner.db.upgrade import upgrade_database
from scanner.keyring import Key
from scanner.ports import BlobLedger
from tests.servers.redis import LEDGER_KEYS, RedisServer, access_to

RULESETS = [digit * 64 for digit in "12"]
FILES = [letter * 40 for letter in "abcdef"]
some_files = st.sets(st.sampled_from(FILES), min_size=1)
rulesets = st.sampled_from(RULESETS)


class Ledgers(RuleBasedStateMachine):
    template: Path
    url: str

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        path = shutil.copy(self.template, Path(self.folder.name) / "patrol.db")
        self.engine = create_database_engine(f"sqlite:///{path}")
        self.redis = Redis.from_url(self.url)
        self.redis.flushall()
        self.ring = [Key("k1", secrets.token_bytes(32))]
        self.truth: dict[str, set[str]] = defaultdict(set)
        self.ledger: BlobLedger = DatabaseLedger(self.engine, keep_ms=1 << 40, most_rows=1_000)

    @initialize(has_redis=st.booleans())
    def build(self, has_redis: bool) -> None:
        if has_redis:
            self.ledger = RedisLedger(self.ledger, access_to(self.url), self.ring, timeout=5)

    # What scans do.

    @rule(ruleset=rulesets, files=some_files)
    def a_scan_ends_well(self, ruleset: str, files: set[str]) -> None:
        self.a_scan_is_killed_before_it_could_publish(ruleset, files)
        self.ledger.publish(ruleset, files)

    @rule(ruleset=rulesets, files=some_files)
    def a_scan_is_killed_before_it_could_publish(self, ruleset: str, files: set[str]) -> None:
        with self.engine.begin() as connection:
            self.ledger.remember(connection, ruleset, files)
        self.truth[ruleset] |= files

    @rule(ruleset=rulesets, files=some_files)
    def a_verdict_is_rolled_back(self, ruleset: str, files: set[str]) -> None:
        with self.engine.connect() as connection, connection.begin() as transaction:
            self.ledger.remember(connection, ruleset, files)
            transaction.rollback()

    @rule(file=st.sampled_from(FILES))
    def an_entry_was_false(self, file: str) -> None:
        self.ledger.distrust(file)
        self.truth.clear()

    # What happens to Redis.

    @rule()
    def redis_is_flushed(self) -> None:
        self.redis.flushall()

    @rule(file=st.sampled_from(FILES))
    def redis_evicts(self, file: str) -> None:
        for name in self.redis.keys(f"{LEDGER_KEYS}*:{file}"):
            self.redis.delete(name)

    @rule(ruleset=rulesets, value=st.binary(max_size=99) | st.binary(min_size=16, max_size=16))
    def somebody_forges(self, ruleset: str, value: bytes) -> None:
        for file in FILES:
            self.redis.set(f"{LEDGER_KEYS}{ruleset[:16]}:{file}", value)

    @precondition(lambda self: self.redis.dbsize())
    @rule(data=st.data())
    def somebody_copies_an_entry_everywhere(self, data: st.DataObject) -> None:
        value = self.redis.get(data.draw(st.sampled_from(sorted(self.redis.keys("*")))))
        for ruleset in RULESETS:
            for file in FILES:
                self.redis.set(f"{LEDGER_KEYS}{ruleset[:16]}:{file}", value)

    @rule()
    def the_ring_is_turned(self) -> None:
        self.ring.insert(0, Key(f"k{len(self.ring) + 1}", secrets.token_bytes(32)))

    @invariant()
    def it_knows_what_is_true_and_nothing_else(self) -> None:
        for ruleset in RULESETS:
            assert self.ledger.known(ruleset, FILES) == self.truth[ruleset]

    def teardown(self) -> None:
        self.engine.dispose()
        self.redis.close()
        self.folder.cleanup()


def test_it_knows_what_is_true(redis_server: RedisServer, tmp_path: Path) -> None:
    engine = create_database_engine(f"sqlite:///{tmp_path / 'patrol.db'}")
    upgrade_database(engine)  # once; each example works on a copy
    engine.dispose()
    Ledgers.template, Ledgers.url = tmp_path / "patrol.db", redis_server.url(database=9)
    run_state_machine_as_test(
        Ledgers, settings=settings(max_examples=60, stateful_step_count=25, deadline=None)
    )
