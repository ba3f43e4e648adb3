"""What may be set, from where it is read, and what is refused.

Every setting is `PATROL_NAME` or, for secrets in files, `PATROL_NAME_FILE`.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from scanner.keyring import read_secret

LEAST_QUOTA = 500  # tokens of the largest look-up
MOST_SECRETS = 2
# As the mail channel has it: no name, no comments, nothing that could end a header.
_ADDRESS = re.compile(r"[^\s@<>()\[\],;:\\\"\x00-\x20\x7f]+@[^\s@<>()\[\],;:\\\"\x00-\x20\x7f]+")


class Hook(BaseModel):
    """A webhook we answer for: its secrets (newest first, two valid while rotating) and the
    repositories it may speak of, as globs over owner/name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    provider: str = "github"
    secrets: tuple[SecretStr, ...] = Field(min_length=1, max_length=MOST_SECRETS)
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


class Values(BaseSettings):
    """Every setting as it was given, or its default."""

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
