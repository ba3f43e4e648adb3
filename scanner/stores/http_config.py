"""The file that says how a token service is asked: its keys, checked before anything is sent.

Secrets are never in it, only the paths of the files that hold them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)


def _beside(path: Path, info: ValidationInfo) -> Path:
    """A relative path starts at the folder of the file that names it."""
    return Path((info.context or {}).get("folder", ".")) / path


_Beside = Annotated[Path, AfterValidator(_beside)]
Url = Annotated[str, Field(min_length=1, max_length=2_000)]
_Header = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", max_length=100)]
_Visible = Annotated[str, Field(pattern=r"^[\x21-\x7e]+$", max_length=200)]
_Seconds = Annotated[float, Field(gt=0, le=300, allow_inf_nan=False)]
JsonPath = Annotated[str, Field(max_length=500)]


class Part(BaseModel):
    """A table of the file: no other keys, no changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NoAuth(Part):
    """The service knows us otherwise: by our certificate, or by where we stand."""

    kind: Literal["none"]


class BearerAuth(Part):
    """A token in a header, read anew for each request: it may rotate under a running service."""

    kind: Literal["bearer"]
    bearer_file: _Beside
    header: _Header = "Authorization"
    scheme: str = Field(default="Bearer", pattern=r"^[A-Za-z0-9-]*$")


class BasicAuth(Part):
    """OAuth client credentials (RFC 6749, 2.3.1)."""

    kind: Literal["basic"]
    client_id: str = Field(min_length=1, max_length=200)
    client_secret_file: _Beside


class HmacAuth(Part):
    """Requests signed as docs/your-token-service.md describes."""

    kind: Literal["hmac"]
    key_id: _Visible
    key_file: _Beside
    key_header: _Header = "X-Patrol-Key"
    timestamp_header: _Header = "X-Patrol-Timestamp"
    nonce_header: _Header = "X-Patrol-Nonce"
    signature_header: _Header = "X-Patrol-Signature"


class Tls(Part):
    """Who signs the service's certificate, and the certificate we show."""

    ca_file: _Beside | None = None
    client_cert_file: _Beside | None = None
    client_key_file: _Beside | None = None

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.client_cert_file is None) != (self.client_key_file is None):
            raise ValueError("client_cert_file and client_key_file go together")
        return self


class Limits(Part):
    """Bounds of what a service may cost us."""

    connect_seconds: _Seconds = 3.0
    seconds: _Seconds = 10.0  # one request, however slowly bytes drip
    attempts: int = Field(default=3, ge=1, le=20)
    budget_seconds: _Seconds = 20.0  # all attempts of one request, and the waits between
    lookup_seconds: _Seconds = 60.0  # all requests of one look-up, however many tokens a push has
    confirm_seconds: _Seconds = 5.0  # in which an accepted revocation must show
    max_bytes: int = Field(default=4 << 20, ge=1 << 10, le=256 << 20)
    parallel: int = Field(default=8, ge=1, le=256)  # requests at once, each on its connection
    failures: int = Field(default=5, ge=1, le=1_000)  # in a row: then nothing is asked for a while
    pause_seconds: _Seconds = 30.0


class Organisation(Part):
    """Whose token it is where the service does not say."""

    id: str | None = Field(default=None, min_length=1, max_length=64)
    name: str | None = Field(default=None, min_length=1, max_length=200)
    contact: str | None = Field(default=None, pattern=r"^[^\s@<>\",;]+@[^\s@<>\",;]+$")


class Fields(Part):
    """Where an answer says what; a path is "a.b.0" or a JSON pointer "/a.b/0"."""

    token_id: JsonPath
    name: JsonPath | None = None
    organisation_id: JsonPath | None = None
    organisation: JsonPath | None = None
    organisation_contact: JsonPath | None = None
    owner_id: JsonPath | None = None
    owner_name: JsonPath | None = None
    owner_email: JsonPath | None = None
    scopes: JsonPath | None = None
    valid_from: JsonPath | None = None
    valid_to: JsonPath | None = None
    times: Literal["seconds", "milliseconds"] = "seconds"  # what a number counts since 1970


class RfcFields(Fields):
    """RFC 7662's own names."""

    token_id: JsonPath = "jti"  # noqa: S105 (a member's name)
    owner_id: JsonPath | None = "sub"
    owner_name: JsonPath | None = "username"
    scopes: JsonPath | None = "scope"
    valid_from: JsonPath | None = "nbf"
    valid_to: JsonPath | None = "exp"


class FormCall(Part):
    """A form that is posted, with `token` and what else the service wants."""

    url: Url
    form: dict[str, str] = {}


class Service(Part):
    """What every kind of service has."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")
    auth: NoAuth | BearerAuth | BasicAuth | HmacAuth = Field(discriminator="kind")
    tls: Tls = Tls()
    limits: Limits = Limits()
    organisation: Organisation = Organisation()
    allow_hosts: tuple[str, ...] = ()
    is_replicated: bool = False

    @model_validator(mode="after")
    def _check_service(self) -> Self:
        if self.name in ("built-in", "memory"):
            raise ValueError(f"name: {self.name!r} is taken by a store that Patrol brings along")
        return self

    def require_organisation(self, fields: Fields) -> None:
        """Refuse, for a subclass, what leaves a token's organisation unknown."""
        if self.organisation.id is None and fields.organisation_id is None:
            raise ValueError("organisation.id is missing, and fields.organisation_id too")


class RfcService(Service):
    """OAuth introspection (RFC 7662) and revocation (RFC 7009)."""

    kind: Literal["rfc"]
    introspect: FormCall
    revoke: FormCall
    fields: RfcFields = RfcFields()

    @model_validator(mode="after")
    def _check_rfc(self) -> Self:
        self.require_organisation(self.fields)
        for key, call in (("introspect", self.introspect), ("revoke", self.revoke)):
            if "token" in call.form:
                raise ValueError(f"{key}.form.token is what is asked, it cannot be set")
        return self

    @property
    def urls(self) -> tuple[tuple[str, str], ...]:
        """Each address with the key that names it."""
        return (("introspect.url", self.introspect.url), ("revoke.url", self.revoke.url))
