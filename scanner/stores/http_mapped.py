"""A JSON service of its own shape, by a template of its requests and paths into its answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from scanner.errors import StoreUnavailableError, StoreUntrustedError
from scanner.model import Lookup, Secret, Validity
from scanner.ports import StoreAbilities
from scanner.stores.http_answers import AnswerReader
from scanner.stores.http_client import Answer, Request
from scanner.stores.http_mapping import MappedService
from scanner.stores.http_template import ABSENT, fill, fill_url, getter

_JSON = "application/json"


class MappedExchange:
    """Writes requests by their templates and reads answers by paths. Satisfies `http.Exchange`."""

    def __init__(self, service: MappedService, reader: AnswerReader) -> None:
        self._service = service
        self._reader = reader
        self._find = find = service.find
        by_secret = "token" in service.revoke.names
        self.abilities = StoreAbilities(
            tells_reason=not service.states.inactive,
            revokes_by="secret" if by_secret else "id",
            keeps_cause=service.fields.revoked_by is not None,
            batch=find.batch,
            is_replicated=service.is_replicated,
        )
        self._items, self._item = getter(find.items), getter(find.item, ABSENT)
        self._echo = getter(find.echo)
        self._confirmed = getter(service.confirm.item if service.confirm else "", ABSENT)
        self._state = getter(service.fields.state)
        self._cause = getter(service.fields.revoked_by)
        self._meanings = {(type(said), said): v for said, v in service.states.spellings}

    def can_ask(self, secret: Secret) -> bool:
        """True: the token can be written into a request."""
        return _text(secret) not in (None, "")

    def find(self, secrets: Sequence[Secret]) -> Request:
        """Return the request that looks these tokens up."""
        find = self._find
        if find.is_batch:
            each = [fill(find.each, {"token": _text(secret)}) for secret in secrets]
            return _request("POST", find.url, fill(find.body, {"tokens": each}))
        (secret,) = secrets
        body = fill(find.body, {"token": _text(secret)})
        return _request("POST", find.url, body, missing=find.missing)

    def read(
        self, answer: Answer, secrets: Sequence[Secret]
    ) -> Sequence[Lookup | StoreUnavailableError]:
        """Return what the answer says of each token, in the order of the question."""
        return self._reader.read_each(self._found(answer, secrets), secrets, self._validity)

    def _found(self, answer: Answer, secrets: Sequence[Secret]) -> Sequence[Any]:
        """Each token's item; None: the service knows no such token."""
        if not self._find.is_batch:
            return [self._one(answer, self._item, "find.item")]
        items = self._items(answer.value)
        if not isinstance(items, list):
            self._refuse("no list at find.items")
        if self._find.echo is not None:
            return self._sorted(items, secrets)
        if len(items) != len(secrets):
            self._distrust("another number of tokens")
        return items

    def _one(self, answer: Answer, item: Callable[[Any], Any], key: str) -> Any:
        if answer.status != 200:
            return None
        value = item(answer.value)
        if value is ABSENT:  # an error in a 200, say, is not "never issued"
            self._refuse(f"nothing at {key}")
        return value

    def _sorted(self, items: Sequence[Any], secrets: Sequence[Secret]) -> Sequence[Any]:
        asked = [self._echo_of(secret) for secret in secrets]
        found: dict[Any, Any] = {}
        for item in items:
            echo = self._echo(item)
            if not isinstance(echo, str) or echo not in asked or echo in found:
                self._distrust("for a token it was not asked for, or twice for one")
            found[echo] = item
        if len(found) < len(asked) and not self._find.omits_unknown:
            self._distrust("another number of tokens")
        return [found.get(echo) for echo in asked]

    def revoke(self, token_id: str, incident_id: str, secret: Secret | None) -> Request:
        """Return the request that revokes a token."""
        revoke = self._service.revoke
        values = {"token_id": token_id, "incident_id": incident_id}
        url = fill_url(revoke.url, values)
        if secret is not None:
            values["token"] = _text(secret) or ""  # in the body only: the configuration says so
        return _request(revoke.method, url, fill(revoke.body, values), (*revoke.done, *revoke.gone))

    def confirm(self, token_id: str, secret: Secret | None) -> Request:
        """Return the request that looks a token up after its revocation."""
        confirm = self._service.confirm
        if confirm is None:
            if secret is None:
                raise ValueError("without confirm, the token itself is looked up")
            return self.find([secret])
        values = {"token_id": token_id}
        url, body = fill_url(confirm.url, values), fill(confirm.body, values)
        return _request(confirm.method, url, body, missing=confirm.missing)

    def is_done(self, answer: Answer) -> bool:
        """True when the service says that it revoked; else only that it knows no such token."""
        return answer.status in self._service.revoke.done

    def read_confirmation(
        self, answer: Answer, secret: Secret | None
    ) -> tuple[Validity, str | None]:
        """Return the token's validity, and who revoked it where that is told."""
        if self._service.confirm is None and secret is not None:
            (item,) = self._found(answer, [secret])
        else:
            item = self._one(answer, self._confirmed, "confirm.item")
        cause = self._cause(item)
        return self._validity(item), cause if isinstance(cause, str) else None

    def _validity(self, item: Any) -> Validity:
        if item is None:  # the item itself: a null, or a status that says so
            return Validity.NEVER_ISSUED
        said = self._state(item)
        meaning = None
        if isinstance(said, str | bool | int):
            meaning = self._meanings.get((type(said), said))
        if meaning is None:
            self._refuse("a state that is not in [states]")
        return meaning

    def _echo_of(self, secret: Secret) -> str:
        if self._find.echo_is == "sha256":
            return hashlib.sha256(secret.reveal()).hexdigest()
        return secret.reveal().decode()

    def _refuse(self, what: str) -> NoReturn:
        raise StoreUnavailableError(f"The store {self._service.name} answered {what}.")

    def _distrust(self, what: str) -> NoReturn:
        raise StoreUntrustedError(f"The store {self._service.name} answered {what}.")


def _text(secret: Secret) -> str | None:
    try:
        return secret.reveal().decode()
    except UnicodeDecodeError:  # JSON cannot carry it
        return None


def _request(
    method: str, url: str, body: Any, statuses: Sequence[int] = (), *, missing: Sequence[int] = ()
) -> Request:
    return Request(
        method,
        url,
        b"" if body is None else json.dumps(body).encode(),
        None if body is None else _JSON,
        frozenset(statuses),
        frozenset(missing),
    )
