"""A world to scan in: see world.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from cryptography.fernet import Fernet

from scanner.db.engine import create_database_engine
from scanner.db.leases import Patience
from scanner.db.ledger import DatabaseLedger
from scanner.db.seals import Sealer
from scanner.git.inline import InlineInspector
from scanner.guard import ConnectGuard
from scanner.judge import Judge
from scanner.keyring import Key
from scanner.matcher.engine import Matcher
from scanner.patterns.generate import generate
from scanner.recheck import Rechecker
from scanner.scan import Scanner
from scanner.sources.intake import Intake
from tests.scans.world import DAY_MS, OURS, AskedStore, ShyFetcher, World


@pytest.fixture
def world(database_url: str, git_server, ruleset) -> Iterator[World]:
    engine = create_database_engine(database_url)
    bound = frozenset({OURS})
    matcher, store = Matcher(ruleset, bound=bound), AskedStore()
    sealer = Sealer([Key("s1", Fernet.generate_key())])
    fetcher = ShyFetcher(ConnectGuard([git_server.address]))
    judge = Judge(
        engine=engine, store=store, bound=bound, keys=[Key("f1", b"k" * 32)], sealer=sealer,
        keep_ms=DAY_MS, redact=matcher.redact,
    )  # fmt: skip
    scanner = Scanner(
        engine=engine, fetcher=fetcher, inspector=InlineInspector(matcher), matcher=matcher,
        judge=judge, sealer=sealer, patience=Patience(60_000, 3, 2),
        ledger=DatabaseLedger(engine, keep_ms=DAY_MS, most_rows=1_000),
    )  # fmt: skip
    rechecker = Rechecker(engine, judge, Patience(60_000, 3, None))
    yield World(
        engine, store, scanner, rechecker, Intake(engine, matcher, sealer, git_server.url), fetcher
    )
    engine.dispose()


@pytest.fixture
def ours(world: World) -> Callable[[], str]:
    """Issue a token of the store's own pattern."""

    def issue() -> str:
        secret = generate(OURS)
        world.store.issue(secret, pattern=OURS, mask="…abcd")
        return secret.reveal().decode()

    return issue
