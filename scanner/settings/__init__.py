"""The only reader of the environment.

Every setting is `PATROL_NAME` or, for secrets in files, `PATROL_NAME_FILE`. What is not set and
must be secret is made once, in the data directory, readable by its owner only.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from scanner.errors import ConfigurationError
from scanner.keyring import Key, Ring, create_once, fernet_key, read_secret, require_strong
from scanner.settings.values import LEAST_QUOTA, MOST_SECRETS, Hook, Values

__all__ = ["LEAST_QUOTA", "Hook", "Settings", "load_settings"]


class Settings(Values):
    """All of Patrol's settings, validated, and what follows from them; build one with
    `load_settings()`."""

    def secret_file(self, name: str) -> Path:
        """Where a secret that was made here lives."""
        return self.data_dir / "keys" / name

    @property
    def metrics_dir(self) -> Path:
        """Where the services count."""
        return self.data_dir / "metrics"

    @property
    def is_embedded_broker(self) -> bool:
        """True: no broker was set, the one in the data directory serves."""
        return self.broker_url is None

    @cached_property
    def database(self) -> str:
        """SQLAlchemy URL of the database."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{(self.data_dir / 'patrol.db').resolve()}"

    @cached_property
    def smtp(self) -> str:
        """Where mail goes; the embedded catcher when nothing is set."""
        if self.smtp_url is not None:
            return self.smtp_url.get_secret_value()
        return f"smtp://127.0.0.1:{self.smtp_port}"

    @cached_property
    def base_url(self) -> str:
        """The address people and webhooks reach us at."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (self.public_url or f"http://{host}:{self.port}").rstrip("/")

    @cached_property
    def pepper_ring(self) -> Ring:
        """Keys of the store's digests, newest first."""
        return self._ring("peppers", self.peppers)

    @cached_property
    def issuer_ring(self) -> Sequence[Key]:
        """Keys that digests to be imported were made with elsewhere; none unless they are set."""
        return () if self.issuer_keys is None else self._ring("issuer_keys", self.issuer_keys)

    @cached_property
    def seal_ring(self) -> Ring:
        """Fernet keys of sealed rows, newest first."""
        return self._ring("seal_keys", self.seal_keys, fernet_key)

    @cached_property
    def fingerprint_ring(self) -> Ring:
        """Keys of fingerprints, newest first."""
        return self._ring("fingerprint_keys", self.fingerprint_keys)

    @property
    def api_bearer(self) -> str:
        """The newest token of the read-only API."""
        return self.api_bearers[0]

    @cached_property
    def api_bearers(self) -> tuple[str, ...]:
        """Tokens of the read-only API: one, or the new one and the old one while they rotate."""
        return self._bearers("api_token")

    @cached_property
    def admin_bearers(self) -> tuple[str, ...]:
        """The same of who looks after tokens, owners and organisations."""
        return self._bearers("admin_token")

    @cached_property
    def service_bearers(self) -> tuple[str, ...]:
        """The same of services that look tokens up and revoke them."""
        return self._bearers("service_token")

    def _bearers(self, name: str) -> tuple[str, ...]:
        setting = f"PATROL_{name.upper()}"
        valid = self._rotating(name, getattr(self, name))
        for other in {"api_token", "admin_token", "service_token"} - {name}:
            given: SecretStr | None = getattr(self, other)
            if given is not None and not {*_parts(given.get_secret_value())}.isdisjoint(valid):
                raise ConfigurationError(
                    f"{setting} and PATROL_{other.upper()} must differ: they open different doors."
                )
        return valid

    def _rotating(self, name: str, given: SecretStr | None) -> tuple[str, ...]:
        """The secrets of a setting that may hold two, comma between, newest first."""
        setting = f"PATROL_{name.upper()}"
        valid = _parts(self._secret(name, given))
        if len(valid) > MOST_SECRETS:
            raise ConfigurationError(
                f"{setting} may hold two secrets, the new one and the old one."
            )
        for secret in valid or ("",):
            require_strong(secret, setting)
        return valid

    @cached_property
    def all_hooks(self) -> tuple[Hook, ...]:
        """Configured hooks and the default one."""
        valid = self._rotating("github_webhook_secret", self.github_webhook_secret)
        default = Hook(
            id="default",
            secrets=tuple(map(SecretStr, valid)),
            repositories=self.github_hook_repositories,
        )
        for hook in self.hooks:
            for given in hook.secrets:
                require_strong(given.get_secret_value(), "PATROL_HOOKS")
        if len({hook.id for hook in (default, *self.hooks)}) != len(self.hooks) + 1:
            raise ConfigurationError(
                "PATROL_HOOKS: each hook needs an id of its own, and 'default' is taken."
            )
        return (default, *self.hooks)

    @cached_property
    def own_patterns(self) -> tuple[Path, ...]:
        """The issuer's own pattern files and directories."""
        local = self.data_dir / "patterns"
        return (*self.patterns, *([local] if any(local.glob("*.toml")) else []))

    def _secret(
        self, name: str, given: SecretStr | None, make: Callable[[], str] | None = None
    ) -> str:
        """The value that was set, or that was made here once."""
        if given is not None:
            return given.get_secret_value().strip()
        path = self.secret_file(name)
        create_once(path, make or (lambda: secrets.token_hex(32)))
        setting = f"PATROL_{name.upper()}"
        value = read_secret(path, f"{setting} is not set, and {path}").strip()
        if not value:
            raise ConfigurationError(
                f"{path} is empty; restore it from a back-up or set {setting}."
            )
        return value

    def _ring(
        self, name: str, given: SecretStr | None, make: Callable[[], str] | None = None
    ) -> Ring:
        ring = Ring(
            f"PATROL_{name.upper()}",
            None if given is None else given.get_secret_value(),
            self.secret_file(name),
            make or (lambda: secrets.token_hex(32)),
        )
        _ = ring[0]  # made, or refused, here and now
        return ring


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def load_settings(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read the environment; a bad value is one sentence that names the setting, never its value."""
    try:
        return Settings(**(overrides or {}))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        said = first["msg"].removeprefix("Value error, ")
        if first["loc"]:
            said = f"PATROL_{str(first['loc'][0]).upper()}: {said}"
        raise ConfigurationError(f"{said}.") from None
