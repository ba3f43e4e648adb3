"""The tables of a mapped service: templates of its requests, paths into its answers, its words."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from scanner.model import Validity
from scanner.stores.http_config import Fields, JsonPath, Part, Service, Url
from scanner.stores.http_template import names_in

_TOKENS = {"token", "tokens"}
_Status = Annotated[int, Field(ge=200, le=499)]


class MappedFields(Fields):
    """A mapped answer says more: its state, and who revoked."""

    state: JsonPath
    revoked_by: JsonPath | None = None


class Find(Part):
    """How tokens are looked up: one a request, or a batch."""

    url: Url
    body: JsonValue
    batch: int = Field(default=1, ge=1, le=10_000)
    each: JsonValue = "{token}"
    item: JsonPath = ""  # one a request: where the answer's item is
    missing: tuple[_Status, ...] = ()  # a proxy's 404 must not read as "never issued"
    items: JsonPath = ""  # a batch: where the answer's list is
    echo: JsonPath | None = None  # in each item: which token it is of; else by order
    echo_is: Literal["token", "sha256"] = "token"
    omits_unknown: bool = False

    @property
    def is_batch(self) -> bool:
        """True: the body carries a list of tokens."""
        return "tokens" in names_in(self.body)

    @model_validator(mode="after")
    def _check_find(self) -> Self:
        names = names_in(self.body)
        if len(names & _TOKENS) != 1 or names - _TOKENS:
            raise ValueError('body needs "{token}" or, for a batch, "{tokens}", once')
        if self.is_batch and names_in(self.each) != {"token"}:
            raise ValueError('each needs "{token}"')
        if not self.is_batch and self.batch != 1:
            raise ValueError('batch is for a body with "{tokens}"')
        if self.omits_unknown and self.echo is None:
            raise ValueError("omits_unknown needs echo, else nobody knows which is left out")
        return self


class Revoke(Part):
    """How a token is revoked: by its id or, with "{token}" in the body, by itself."""

    url: Url
    method: Literal["POST", "PUT", "PATCH", "DELETE"] = "POST"
    body: JsonValue = None
    done: tuple[_Status, ...] = (200, 201, 202, 204)
    gone: tuple[_Status, ...] = (404, 409, 410)  # unknown or revoked before: the look-up says which

    @property
    def names(self) -> set[str]:
        """The placeholders of the request."""
        return names_in(self.url) | names_in(self.body)

    @model_validator(mode="after")
    def _check_revoke(self) -> Self:
        if not self.names & {"token", "token_id"}:
            raise ValueError('url or body needs "{token_id}", or body "{token}"')
        if unknown := self.names - {"token", "token_id", "incident_id"}:
            raise ValueError(f"nothing is known to stand for {{{min(unknown)}}}")
        return self


class Confirm(Part):
    """How a token is looked up by its id, after its revocation."""

    url: Url
    method: Literal["GET", "POST"] = "GET"
    body: JsonValue = None
    item: JsonPath = ""
    missing: tuple[_Status, ...] = ()

    @model_validator(mode="after")
    def _check_confirm(self) -> Self:
        if names_in(self.url) | names_in(self.body) != {"token_id"}:
            raise ValueError('url or body needs "{token_id}", and nothing else')
        if self.body is not None and self.method == "GET":
            raise ValueError("a GET has no body")
        return self


class States(Part):
    """How the service spells each validity; what it says else is no answer."""

    active: tuple[JsonValue, ...] = Field(min_length=1)
    revoked: tuple[JsonValue, ...] = ()
    expired: tuple[JsonValue, ...] = ()
    owner_disabled: tuple[JsonValue, ...] = ()
    never_issued: tuple[JsonValue, ...] = ()
    inactive: tuple[JsonValue, ...] = ()

    @property
    def spellings(self) -> tuple[tuple[JsonValue, Validity], ...]:
        """Every spelling with what it means."""
        return tuple(
            (said, Validity(name)) for name in type(self).model_fields for said in self[name]
        )

    def __getitem__(self, name: str) -> tuple[JsonValue, ...]:
        said: tuple[JsonValue, ...] = getattr(self, name)
        return said

    @model_validator(mode="after")
    def _check_states(self) -> Self:
        said = [value for value, _ in self.spellings]
        if any(not isinstance(value, str | bool | int) for value in said):
            raise ValueError("a state is a text, a number or true/false")
        if len({(type(value), value) for value in said}) != len(said):
            raise ValueError("one spelling cannot mean two things")
        if not self.revoked and not self.inactive:
            raise ValueError("revoked or inactive is missing")
        return self


class MappedService(Service):
    """A JSON service of its own shape."""

    kind: Literal["mapped"]
    find: Find
    revoke: Revoke
    confirm: Confirm | None = None
    fields: MappedFields
    states: States

    @property
    def urls(self) -> tuple[tuple[str, str], ...]:
        """Each address with the key that names it."""
        named = [("find.url", self.find.url), ("revoke.url", self.revoke.url)]
        return (*named, *([("confirm.url", self.confirm.url)] if self.confirm else []))

    @model_validator(mode="after")
    def _check_mapped(self) -> Self:
        self.require_organisation(self.fields)
        for key, url in self.urls:
            if names_in(url) & _TOKENS:
                raise ValueError(f"{key}: a token must not stand in an address")
        if names_in(self.find.url):
            raise ValueError("find.url has no placeholders")
        if "token" not in self.revoke.names and self.confirm is None:
            raise ValueError("confirm is missing: every revocation is looked up again, by its id")
        if self.fields.revoked_by is not None and "incident_id" not in self.revoke.names:
            raise ValueError('fields.revoked_by needs "{incident_id}" in revoke.body or revoke.url')
        return self
