"""OAuth 2.0 token introspection (RFC 7662) and revocation (RFC 7009).

`active: false` hides the reason, and revocation answers 200 for what was never issued (threat 7):
so a revocation counts only when a second look-up says that the token is not active.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote_plus, urlencode

from scanner.errors import StoreUnavailableError
from scanner.model import Lookup, Secret, Validity
from scanner.ports import StoreAbilities
from scanner.stores.http_answers import AnswerReader
from scanner.stores.http_client import Answer, Request
from scanner.stores.http_config import FormCall, RfcService

_FORM = "application/x-www-form-urlencoded"


class RfcExchange:
    """Writes the requests of the two RFCs and reads their answers. Satisfies `http.Exchange`."""

    def __init__(self, service: RfcService, reader: AnswerReader) -> None:
        self._service = service
        self._reader = reader
        self.abilities = StoreAbilities(
            tells_reason=False,
            revokes_by="secret",
            keeps_cause=False,
            batch=1,
            is_replicated=service.is_replicated,
        )

    def can_ask(self, secret: Secret) -> bool:
        """True: the token can be written into a request."""
        return bool(secret.reveal())

    def find(self, secrets: Sequence[Secret]) -> Request:
        """Return the request that introspects the one token."""
        (secret,) = secrets
        return _post(self._service.introspect, secret)

    def read(
        self, answer: Answer, secrets: Sequence[Secret]
    ) -> Sequence[Lookup | StoreUnavailableError]:
        """Return what the answer says of the one token."""
        return self._reader.read_each([answer.value], secrets, self._validity)

    def revoke(self, token_id: str, incident_id: str, secret: Secret | None) -> Request:
        """Return the request that revokes the token that `secret` is."""
        if secret is None:
            raise ValueError("RFC 7009 revokes by the token itself")
        return _post(self._service.revoke, secret, statuses=frozenset({200, 204}))

    def is_done(self, answer: Answer) -> bool:
        """True: RFC 7009 has no other answer."""
        return True

    def confirm(self, token_id: str, secret: Secret | None) -> Request:
        """Return the request that looks the token up again."""
        if secret is None:
            raise ValueError("RFC 7662 asks by the token itself")
        return self.find([secret])

    def read_confirmation(
        self, answer: Answer, secret: Secret | None
    ) -> tuple[Validity, str | None]:
        """Return the token's validity; who revoked is not told."""
        return self._validity(answer.value), None

    def _validity(self, value: Any) -> Validity:
        active = value.get("active") if isinstance(value, Mapping) else None
        if not isinstance(active, bool):
            raise StoreUnavailableError(
                f"The store {self._service.name} did not answer as RFC 7662 says: "
                '"active" must be true or false.'
            )
        return Validity.ACTIVE if active else Validity.INACTIVE


def _post(call: FormCall, secret: Secret, statuses: frozenset[int] = frozenset()) -> Request:
    body = f"token={quote_plus(secret.reveal())}"
    if call.form:
        body += "&" + urlencode(call.form)
    return Request("POST", call.url, body.encode(), _FORM, statuses)
