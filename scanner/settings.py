"""The only reader of the environment.

Every setting is `PATROL_NAME` or, for secrets in files, `PATROL_NAME_FILE`. What is not set and
must be secret is made once, in the data directory, readable by its owner only.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from scanner.errors import ConfigurationError
from scanner.keyring import Key, Ring, create_once, fernet_key, read_secret, require_strong

LEAST_QUOTA = 500  # tokens of the largest look-up
_MOST_SECRETS = 2
# As the mail channel has it: no name, no comments, nothing that could end a header.
_ADDRESS = re.compile(r"[^\s@<>()\[\],;:\\\"\x00-\x20\x7f]+@[^\s@<>()\[\],;:\\\"\x00-\x20\x7f]+")


class Hook(BaseModel):
    """A webhook we answer for: its secrets (newest first, two valid while rotating) and the
    repositories it may speak of, as globs over owner/name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    provider: str = "github"
    secrets: tuple[SecretStr, ...] = Field(min_length=1, max_length=_MOST_SECRETS)
    repositories: tuple[str, ...] = ("*/*",)


class _FileSource(PydanticBaseSettingsSource):
    """`PATROL_X_FILE`: the setting's value is that file's content, without its line end."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        variable = f"PATROL_{field_name.upper()}_FILE"
        path = os.environ.get(variable)
        if path is None:
            return None, field_name, False
        # The path is not shown: where a name is expected, the secret itself may stand by mistake.
        return read_secret(Path(path), f"{variable}: the file").rstrip("\r\n"), field_name, False

    def __call__(self) -> dict[str, Any]:
        values = {}
        for name, field in self.settings_cls.model_fields.items():
            value, _, _ = self.get_field_value(field, name)
            if value is not None:
                values[name] = value
        return values


class Settings(BaseSettings):
    """All of Patrol's settings, validated; build one with `load_settings()`."""

    model_config = SettingsConfigDict(env_prefix="PATROL_", frozen=True, extra="ignore")

    data_dir: Path = Path("patrol-data")
    database_url: SecretStr | None = None
    broker_url: SecretStr | None = None
    redis_ca_file: Path | None = None
    redis_cert_file: Path | None = None
    redis_key_file: Path | None = None
    redis_prefix: str = Field(default="patrol:", pattern=r"^[\x21-\x7e]*$")
    ledger_url: SecretStr | None = None
    smtp_url: SecretStr | None = None
    mail_from: str = "Patrol <patrol@localhost>"
    operator_email: str = "operator@localhost"
    issuer_name: str = Field(default="Patrol", min_length=1)
    peppers: SecretStr | None = None
    issuer_keys: SecretStr | None = None
    seal_keys: SecretStr | None = None
    fingerprint_keys: SecretStr | None = None
    api_token: SecretStr | None = None
    admin_token: SecretStr | None = None
    service_token: SecretStr | None = None
    github_webhook_secret: SecretStr | None = None
    github_hook_repositories: Annotated[tuple[str, ...], NoDecode] = ("*/*",)
    hooks: Annotated[tuple[Hook, ...], NoDecode] = ()
    github_url: str = "https://github.com"
    public_url: str | None = None
    allow_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    patterns: Annotated[tuple[Path, ...], NoDecode] = ()
    store: Path | None = None
    store_patterns: Annotated[tuple[str, ...], NoDecode] = (
        "azure-devops-pat",
        "azure-devops-pat-legacy",
    )
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=1, le=65535)
    smtp_port: int = Field(default=8025, ge=1, le=65535)
    mail_port: int = Field(default=8026, ge=1, le=65535)
    fetch_max_bytes: int = Field(default=512 << 20, ge=1 << 10)
    fetch_timeout: float = Field(default=120.0, gt=0, allow_inf_nan=False)
    inspect_timeout: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    task_seconds: float = Field(default=300.0, gt=0, allow_inf_nan=False)
    stop_seconds: float = Field(default=8.0, ge=0, allow_inf_nan=False)
    lease_seconds: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    worker_max_memory_mb: int = Field(default=1024, ge=128)
    worker_max_tasks: int = Field(default=10_000, ge=1)
    ledger_days: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    ledger_rows: int = Field(default=1_000_000, ge=1)
    seal_days: float = Field(default=14.0, gt=0, allow_inf_nan=False)
    body_timeout: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    lookups_per_minute: int = Field(default=60_000, ge=LEAST_QUOTA)
    ready_lag_seconds: float = Field(default=120.0, gt=0, allow_inf_nan=False)
    ready_grace_seconds: float = Field(default=60.0, ge=0, allow_inf_nan=False)
    min_free_bytes: int = Field(default=64 << 20, ge=0)
    metrics_open: bool = False
    metrics_port: int = Field(default=0, ge=0, le=65535)
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    unknown_days: float = Field(default=90.0, gt=0, allow_inf_nan=False)
    max_attempts: int = Field(default=5, ge=1)  # claims that never came back: then parked
    max_retries: int = Field(default=84, ge=0)  # backing off to an hour: about three days

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then files, then the environment; no dotenv, no surprises."""
        return init_settings, _FileSource(settings_cls), env_settings

    @field_validator(
        "github_hook_repositories", "allow_hosts", "patterns", "store_patterns", mode="before"
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("hooks", mode="before")
    @classmethod
    def _parse_hooks(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            hooks = json.loads(value)
        except json.JSONDecodeError:
            raise ValueError("it is not valid JSON") from None
        if not isinstance(hooks, list):
            raise ValueError("it must be a JSON list of hooks")  # noqa: TRY004 (pydantic's way)
        return hooks

    @field_validator("data_dir", mode="before")
    @classmethod
    def _check_data_dir(cls, value: Any) -> Any:
        if value == "":  # it would be whatever folder one stands in
            raise ValueError("it is empty")
        return value

    @field_validator("operator_email")
    @classmethod
    def _check_operator(cls, value: str) -> str:
        if not _ADDRESS.fullmatch(value):  # nobody would hear the alarms
            raise ValueError("it must be one plain address, such as name@host")
        return value

    @field_validator("github_url", "public_url")
    @classmethod
    def _check_web_address(cls, value: str | None) -> str | None:
        parts = urlsplit(value or "https://unset")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("it must be an address such as https://host")
        return value

    @field_validator("broker_url")
    @classmethod
    def _check_broker(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.match(r"[a-z][a-z+]*://", value.get_secret_value()):
            raise ValueError("it must be an address such as redis://host:6379/0")
        return value

    @field_validator("ledger_url")
    @classmethod
    def _check_ledger(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.match(r"rediss?://|$", value.get_secret_value()):
            raise ValueError("it must be redis://host:6379/0, or rediss:// for TLS, or empty")
        return value

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        if len({self.port, self.smtp_port, self.mail_port}) != len(("web", "smtp", "mail")):
            raise ValueError("PATROL_PORT, PATROL_SMTP_PORT and PATROL_MAIL_PORT must differ")
        return self

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        if self.batch_seconds < self.fetch_timeout:
            raise ValueError(
                "PATROL_TASK_SECONDS must leave time for one fetch (PATROL_FETCH_TIMEOUT) and for "
                "reading two packs (PATROL_INSPECT_TIMEOUT)"
            )
        return self

    @property
    def batch_seconds(self) -> float:
        """When a task gives back what it has not begun: what it reads just then may take its time,
        and the task still ends before it would be killed."""
        return self.task_seconds - 2 * self.inspect_timeout

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
        if len(valid) > _MOST_SECRETS:
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
