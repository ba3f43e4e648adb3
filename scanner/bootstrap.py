"""The composition root: the only place that builds services from settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from urllib.parse import urlsplit

from sqlalchemy import Engine
from stamina.instrumentation import (
    LoggingOnRetryHook,
    PrometheusOnRetryHook,
    set_on_retry_hooks,
)

from notifier.channels.email import EmailChannel
from notifier.render import Renderer
from scanner import redis_access
from scanner.cache.redis_ledger import RedisLedger
from scanner.db import sealkeys
from scanner.db.chains import all_chains
from scanner.db.engine import create_database_engine
from scanner.db.keycheck import check_keys
from scanner.db.leases import Patience
from scanner.db.ledger import DatabaseLedger
from scanner.db.seals import Sealer
from scanner.db.upgrade import is_current, refuse_unreadable
from scanner.errors import ConfigurationError
from scanner.git.sandbox import SandboxInspector
from scanner.git.smart_http import SmartHttpFetcher
from scanner.guard import ConnectGuard
from scanner.judge import Judge
from scanner.matcher.engine import Matcher
from scanner.matcher.pattern import Ruleset
from scanner.patterns.bound import bound_patterns
from scanner.patterns.loader import load
from scanner.ports import BlobLedger, TokenStore
from scanner.recheck import Rechecker
from scanner.respond.deliver import Deliverer
from scanner.respond.run import Responder
from scanner.scan.run import Scanner
from scanner.settings import Settings
from scanner.sources.intake import Intake
from scanner.stores.accounts import Accounts
from scanner.stores.digests import Peppers
from scanner.stores.http import HttpTokenStore, open_http_store
from scanner.stores.importer import Importer
from scanner.stores.lifecycle import TokenLifecycle
from scanner.stores.mint import Mint
from scanner.stores.sql import SqlTokenStore

_DAY_MS = 86_400_000


@dataclass(frozen=True)
class Services:
    """Everything a process may need, built on first use."""

    settings: Settings

    @cached_property
    def engine(self) -> Engine:
        """The database, whatever its schema."""
        return create_database_engine(self.settings.database)

    @cached_property
    def database(self) -> Engine:
        """The database, refused when its schema or its keys are not ours."""
        with refuse_unreadable():
            current = is_current(self.engine)
        if not current:
            raise ConfigurationError(
                "The database is new, or of an older version; run: patrol db upgrade "
                "(patrol up does so by itself)."
            )
        with self.engine.begin() as connection:
            check_keys(connection, "pepper", self.settings.pepper_ring)
            if missing := self.peppers.now().missing(all_chains(connection)):
                raise ConfigurationError(
                    f"PATROL_PEPPERS or PATROL_ISSUER_KEYS lacks the keys {', '.join(missing)}, "
                    "which tokens are stored under; restore them, behind the newest pepper."
                )
            check_keys(connection, "fingerprint", self.settings.fingerprint_ring)
            # A seal's key is destroyed once its time to live has passed.
            check_keys(connection, sealkeys.PURPOSE, self.settings.seal_ring, may_be_all_new=True)
        return self.engine

    @cached_property
    def bound(self) -> frozenset[str]:
        """Patterns whose candidates the store may see: those named, and all of the issuer's own."""
        return bound_patterns(self.matcher_ruleset, self.settings.store_patterns)

    @cached_property
    def matcher_ruleset(self) -> Ruleset:
        """The patterns in force."""
        return load(self.settings.own_patterns)

    @cached_property
    def matcher(self) -> Matcher:
        """The compiled patterns, cached in the data directory."""
        return Matcher(
            self.matcher_ruleset, cache_dir=self.settings.data_dir / "cache", bound=self.bound
        )

    @cached_property
    def builtin_store(self) -> SqlTokenStore:
        """Patrol's own token store, which also issues."""
        return SqlTokenStore(self.database, self.peppers)

    @cached_property
    def peppers(self) -> Peppers:
        """The keys of the built-in store's digests."""
        return Peppers(self.settings.pepper_ring, self.settings.issuer_ring)

    @cached_property
    def tokens(self) -> TokenLifecycle:
        """The life of the built-in store's tokens."""
        return TokenLifecycle(self.database, self.peppers)

    @cached_property
    def accounts(self) -> Accounts:
        """Whose tokens they are."""
        return Accounts(self.database)

    @cached_property
    def importer(self) -> Importer:
        """Takes digests of tokens that were issued elsewhere."""
        matcher = self.matcher
        return Importer(
            self.database,
            self.peppers,
            self.bound,
            lambda text: bool(matcher.scan(text)),
            matcher.redact,
        )

    @cached_property
    def mint(self) -> Mint:
        """Makes new tokens."""
        return Mint(self.matcher_ruleset, self.bound)

    @cached_property
    def store(self) -> TokenStore:
        """The store that proves and revokes: the issuer's service, or else the built-in one."""
        if self.settings.store is None:
            return self.builtin_store
        # The library's own choice would be to print retries to standard output.
        set_on_retry_hooks((PrometheusOnRetryHook, LoggingOnRetryHook))
        return open_http_store(self.settings.store, self.matcher, self.settings.allow_hosts)

    @cached_property
    def sealer(self) -> Sealer:
        """Seals what must wait."""
        return Sealer(self.settings.seal_ring)

    @cached_property
    def intake(self) -> Intake:
        """Pushes -> rows."""
        return Intake(self.database, self.matcher, self.sealer, self.settings.github_url)

    @cached_property
    def guard(self) -> ConnectGuard:
        """Where connections may go."""
        try:
            return ConnectGuard(self.settings.allow_hosts)
        except ValueError as error:
            raise ConfigurationError(f"PATROL_ALLOW_HOSTS: {error}") from None

    @cached_property
    def fetcher(self) -> SmartHttpFetcher:
        """Reads repositories over HTTP."""
        return SmartHttpFetcher(
            self.guard,
            max_bytes=self.settings.fetch_max_bytes,
            timeout=self.settings.fetch_timeout,
        )

    @cached_property
    def inspector(self) -> SandboxInspector:
        """Reads packs in a child process without keys."""
        return SandboxInspector(
            self.matcher_ruleset,
            bound=self.bound,
            cache_dir=self.settings.data_dir / "cache",
            timeout=self.settings.inspect_timeout,
        )

    @cached_property
    def scanner(self) -> Scanner:
        """Push -> verified leaks."""
        return Scanner(
            engine=self.database,
            fetcher=self.fetcher,
            inspector=self.inspector,
            matcher=self.matcher,
            judge=self.judge,
            sealer=self.sealer,
            patience=self._patience,
            ledger=self.ledger,
        )

    @cached_property
    def ledger(self) -> BlobLedger:
        """Files that need not be matched again: in the database, with Redis in front if there is
        one."""
        return self.redis_ledger or self._database_ledger

    @cached_property
    def redis_ledger(self) -> RedisLedger | None:
        """The ledger with its copy in Redis; None where no Redis is."""
        access = redis_access.of_ledger(self.settings)
        if access is None:
            return None
        return RedisLedger(
            self._database_ledger,
            access,
            self.settings.fingerprint_ring,
            keep_seconds=self.settings.ledger_days * _DAY_MS / 1000,
        )

    @cached_property
    def _database_ledger(self) -> DatabaseLedger:
        return DatabaseLedger(
            self.database,
            keep_ms=round(self.settings.ledger_days * _DAY_MS),
            most_rows=self.settings.ledger_rows,
        )

    @cached_property
    def judge(self) -> Judge:
        """Candidates -> verdicts, or sealed rows."""
        return Judge(
            engine=self.database,
            store=self.store,
            bound=self.bound,
            keys=self.settings.fingerprint_ring,
            sealer=self.sealer,
            keep_ms=round(self.settings.seal_days * _DAY_MS),
            redact=self.matcher.redact,
        )

    @cached_property
    def rechecker(self) -> Rechecker:
        """Sealed tokens -> verdicts."""
        return Rechecker(self.database, self.judge, self._patience)

    @cached_property
    def responder(self) -> Responder:
        """Verified leak -> revoked token."""
        return Responder(
            engine=self.database,
            # An incident may be older than the setting that names another store.
            stores={store.name: store for store in (self.builtin_store, self.store)},
            sealer=self.sealer,
            # A leak that was proved is never given up because the store is away, and when the store
            # is back its token is not left to work for another hour.
            patience=replace(self._patience, max_retries=None, longest_retry_ms=60_000),
        )

    @cached_property
    def email(self) -> EmailChannel:
        """Where mail goes out."""
        try:
            return EmailChannel(self.settings.smtp, self.settings.mail_from)
        except ValueError as error:
            raise ConfigurationError(f"PATROL_SMTP_URL or PATROL_MAIL_FROM: {error}") from None

    @cached_property
    def deliverer(self) -> Deliverer:
        """Outbox -> mail."""
        settings = self.settings
        return Deliverer(
            engine=self.database,
            channel=self.email,
            renderer=Renderer(),
            operator_email=settings.operator_email,
            issuer_name=settings.issuer_name,
            message_domain=urlsplit(settings.base_url).hostname or "localhost",
            pattern_names={p.id: p.name for p in self.matcher_ruleset.patterns},
            patience=self._patience,
        )

    def close(self) -> None:
        """Give back the connections to the database and to the token service."""
        opened = vars(self)  # what was never used was never built
        if isinstance(opened.get("store"), HttpTokenStore):
            opened["store"].close()
        if "engine" in opened:
            self.engine.dispose()

    @property
    def _patience(self) -> Patience:
        return Patience(
            lease_ms=round(self.settings.lease_seconds * 1000),
            max_attempts=self.settings.max_attempts,
            max_retries=self.settings.max_retries,
        )
