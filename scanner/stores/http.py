"""The issuer's token service over HTTP: asked, told to revoke, and asked again.

What is asked and how answers read is an `Exchange` (http_rfc.py, http_mapped.py); how a request
travels is http_client.py; what a user sets is http_config.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from secrets import randbelow
from typing import Protocol

from scanner.errors import (
    ConfigurationError,
    ConnectError,
    SecretNeededError,
    StoreUnavailableError,
    StoreUntrustedError,
)
from scanner.guard import ConnectGuard
from scanner.matcher.engine import Matcher
from scanner.model import Lookup, Secret, Validity
from scanner.ports import StoreAbilities
from scanner.prove import UNKNOWN, never_issued
from scanner.stores.http_answers import AnswerReader, is_id
from scanner.stores.http_auth import Signer, tls_context
from scanner.stores.http_client import Answer, Request, StoreClient
from scanner.stores.http_config import RfcService
from scanner.stores.http_file import HttpService, read_service
from scanner.stores.http_mapped import MappedExchange
from scanner.stores.http_rfc import RfcExchange
from scanner.stores.loop_thread import LoopThread

log = logging.getLogger(__name__)

_ENDED = (Validity.REVOKED, Validity.EXPIRED, Validity.INACTIVE)
_CONFIRM_AGAIN = 0.25  # seconds


class Exchange(Protocol):
    """A service's language: requests to send, and what its answers mean."""

    abilities: StoreAbilities

    def can_ask(self, secret: Secret) -> bool:
        """True: the token can be written into a request; else it was never issued."""
        ...

    def find(self, secrets: Sequence[Secret]) -> Request:
        """Ask about at most `abilities.batch` different tokens."""
        ...

    def read(
        self, answer: Answer, secrets: Sequence[Secret]
    ) -> Sequence[Lookup | StoreUnavailableError]:
        """Answer each, in order; an error stands for one whose answer cannot be read."""
        ...

    def revoke(self, token_id: str, incident_id: str, secret: Secret | None) -> Request:
        """Revoke one; `secret` when it is done by the raw token."""
        ...

    def is_done(self, answer: Answer) -> bool:
        """True when the answer to `revoke` says that it was done; False: it knew no such token, or
        one that was revoked before."""
        ...

    def confirm(self, token_id: str, secret: Secret | None) -> Request:
        """Ask what became of it."""
        ...

    def read_confirmation(
        self, answer: Answer, secret: Secret | None
    ) -> tuple[Validity, str | None]:
        """Its validity, and who revoked it where that is told."""
        ...


class HttpTokenStore:
    """Finds and revokes tokens at the issuer's service. Satisfies `ports.TokenStore`.

    Safe to share between threads and to carry over a fork: connections live in a thread that starts
    when first needed. Only what `prove` is given is ever sent, and never in an address.
    """

    def __init__(self, service: HttpService, exchange: Exchange, guard: ConnectGuard) -> None:
        self.name = service.name
        self.abilities = exchange.abilities
        self._service = service
        self._exchange = exchange
        self._guard = guard
        self._signer = Signer(service.auth)
        self._tls = tls_context(service.tls)
        self._thread = LoopThread()
        self._client: tuple[asyncio.AbstractEventLoop, StoreClient] | None = None

    def find(self, secrets: Sequence[Secret]) -> Sequence[Lookup]:
        """Answer each secret, in order; equal ones are asked about once. One that got no answer,
        while others did, is `STORE_UNAVAILABLE`."""
        asked = [s for s in dict.fromkeys(secrets) if self._exchange.can_ask(s)]
        answers = self._thread.run(self._find(asked)) if asked else {}
        tells = self.abilities.tells_reason
        unknown = Lookup(Validity.NEVER_ISSUED if tells else Validity.INACTIVE)
        return [answers.get(secret, unknown) for secret in secrets]

    def revoke(self, token_id: str, incident_id: str, *, secret: Secret | None = None) -> bool:
        """Request the revocation, then confirm it by a second look-up (law 4); at least once, since
        an attempt before a crash may have been heard."""
        by_secret = self.abilities.revokes_by == "secret"
        if by_secret and secret is None:
            raise SecretNeededError(
                f"The store {self.name} revokes only by the token itself, which is not kept any "
                "more; revoke it there by hand."
            )
        if not by_secret and not is_id(token_id):
            return False  # no token of this store has such an id, and in an address it would harm
        return self._thread.run(self._revoke(token_id, incident_id, secret if by_secret else None))

    def close(self) -> None:
        """Close the connections and end their thread; the next question starts another."""
        if self._client is not None:
            self._thread.run(self._close())
        self._thread.close()

    async def _close(self) -> None:
        client, self._client = self._session(), None
        await client.close()

    def _session(self) -> StoreClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._client[0] is not loop:
            client = StoreClient(
                self.name, self._guard, self._signer, self._tls, self._service.limits
            )
            self._client = loop, client
        return self._client[1]

    async def _find(self, asked: Sequence[Secret]) -> dict[Secret, Lookup]:
        size = max(1, self.abilities.batch - 1)  # beside the control
        batches = [asked[begin : begin + size] for begin in range(0, len(asked), size)]
        until = asyncio.get_running_loop().time() + self._service.limits.lookup_seconds
        # Each to its end: one that is cut off says nothing of the service.
        asking = (self._try(batch, until) for batch in batches)
        results = await asyncio.gather(*asking, return_exceptions=True)
        answers: dict[Secret, Lookup] = {}
        failures: list[StoreUnavailableError] = []
        for batch, result in zip(batches, results, strict=True):
            if isinstance(result, BaseException):
                raise result
            for secret, one in zip(batch, result, strict=True):
                if isinstance(one, Lookup):
                    answers[secret] = one
                else:
                    failures.append(one)
                    answers[secret] = Lookup(Validity.STORE_UNAVAILABLE)
        if len(failures) == len(asked):  # nothing was answered: the service itself may be the cause
            raise failures[0]
        for said_once in dict.fromkeys(map(str, failures)):
            log.warning("%s", said_once)
        return answers

    async def _try(
        self, batch: Sequence[Secret], until: float
    ) -> Sequence[Lookup | StoreUnavailableError]:
        try:
            return await self._ask(batch, until)
        except StoreUnavailableError as error:
            return [error] * len(batch)

    async def _ask(
        self, batch: Sequence[Secret], until: float
    ) -> Sequence[Lookup | StoreUnavailableError]:
        if self.abilities.batch == 1:
            answer = await self._session().send(self._exchange.find(batch), until)
            return self._exchange.read(answer, batch)
        # Many in one request may come back mixed up: each request carries a control (threat 12).
        place = randbelow(len(batch) + 1)
        asked = [*batch[:place], never_issued(), *batch[place:]]
        answer = await self._session().send(self._exchange.find(asked), until)
        lookups = list(self._exchange.read(answer, asked))
        said = lookups.pop(place)
        if isinstance(said, StoreUnavailableError):
            raise said
        if said.validity not in UNKNOWN or said.token is not None:
            raise StoreUntrustedError(f"The store {self.name} knows a token that was never issued.")
        return lookups

    async def _revoke(self, token_id: str, incident_id: str, secret: Secret | None) -> bool:
        exchange, limits = self._exchange, self._service.limits
        asked = await self._session().send(exchange.revoke(token_id, incident_id, secret))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limits.confirm_seconds
        while True:
            answer = await self._session().send(exchange.confirm(token_id, secret))
            validity, cause = exchange.read_confirmation(answer, secret)
            if validity is not Validity.ACTIVE and cause is not None:
                return cause == incident_id
            if validity is Validity.NEVER_ISSUED and exchange.is_done(asked):
                return True  # it is deleted where it is revoked
            if validity is Validity.NEVER_ISSUED and not self.abilities.is_replicated:
                return False
            if validity in _ENDED:
                return not self.abilities.keeps_cause
            if loop.time() + _CONFIRM_AGAIN > deadline:
                raise StoreUnavailableError(
                    f"The store {self.name} accepted a revocation but does not show it "
                    f"{limits.confirm_seconds:g} seconds later; it will be asked again."
                )
            await asyncio.sleep(_CONFIRM_AGAIN)  # a replica may not know yet


def open_http_store(
    path: Path, matcher: Matcher, allow_hosts: Collection[str] = ()
) -> HttpTokenStore:
    """Build the store that a TOML file describes. Nothing is sent yet.

    Errors: `ConfigurationError`, one sentence that names the file and the key.
    """
    service = read_service(path)
    try:
        guard = ConnectGuard(
            [*allow_hosts, *service.allow_hosts], named_in=f"allow_hosts of {path.name}"
        )
    except ValueError as error:
        raise ConfigurationError(f"{path}: allow_hosts: {error}") from None
    for key, url in service.urls:
        try:
            guard.check_url(url, has_query=True)
        except ConnectError as error:
            raise ConfigurationError(f"{path}: {key}: {error}") from None
    reader = AnswerReader(service.name, service.fields, service.organisation, matcher)
    exchange: Exchange
    if isinstance(service, RfcService):
        exchange = RfcExchange(service, reader)
    else:
        exchange = MappedExchange(service, reader)
    try:
        return HttpTokenStore(service, exchange, guard)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None
