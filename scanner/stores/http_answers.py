"""Reading a service's answer about each token. What is not as it must be is no answer, for that
token alone; what contradicts itself is not believed."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

from scanner.errors import StoreUnavailableError, StoreUntrustedError
from scanner.matcher.engine import Matcher
from scanner.model import Lookup, Secret, TokenRecord, Validity
from scanner.stores.http_config import Fields, Organisation
from scanner.stores.http_template import getter

log = logging.getLogger(__name__)

_MOST_ID, _MOST_ORGANISATION_ID, _MOST_TEXT, _MOST_SCOPES = 200, 64, 200, 100  # as columns allow
_ID = re.compile(r"[^\x00-\x20\x7f-\xa0\ud800-\udfff]+")
_MAIL = re.compile(r"[^\s@<>\",;\x00-\x1f\x7f]{1,64}@[^\s@<>\",;\x00-\x1f\x7f]{1,255}")
_NUL = re.compile("[\x00\ud800-\udfff]")  # no database keeps these

KNOWN = (Validity.ACTIVE, Validity.REVOKED, Validity.EXPIRED, Validity.OWNER_DISABLED)


def is_id(text: str) -> bool:
    """True for what may be a token's id: short, visible, and no step in an address."""
    return bool(_ID.fullmatch(text)) and len(text) <= _MOST_ID and text not in (".", "..")


class AnswerReader:
    """Turns one JSON item into a `Lookup`, by the paths of the configuration.

    `matcher` names a token's format and masks what free text may hold of others. Errors:
    `StoreUnavailableError`, `StoreUntrustedError`, neither with anything of the answer.
    """

    def __init__(
        self, store: str, fields: Fields, organisation: Organisation, matcher: Matcher
    ) -> None:
        self._store = store
        self._organisation = organisation
        self._matcher = matcher
        self._per_second = 1_000 if fields.times == "milliseconds" else 1
        self._get: dict[str, Callable[[Any], Any]] = {
            name: getter(getattr(fields, name) or None)
            for name in Fields.model_fields
            if name != "times"
        }

    def read_each(
        self, items: Sequence[Any], secrets: Sequence[Secret], validity: Callable[[Any], Validity]
    ) -> Sequence[Lookup | StoreUnavailableError]:
        """Answer for each token by its item, in order. One that cannot be read is an error in its
        place: whoever holds a token in a strange state must not silence the answers about others.
        """
        answers: list[Lookup | StoreUnavailableError] = []
        for item, secret in zip(items, secrets, strict=True):
            try:
                answers.append(self.lookup(validity(item), item, secret))
            except StoreUnavailableError as error:
                answers.append(error)
        return answers

    def lookup(self, validity: Validity, item: Any, secret: Secret) -> Lookup:
        """Return the answer about `secret`, with the token's record where it is known."""
        if validity is Validity.NEVER_ISSUED:
            return Lookup(validity)
        token_id = self._identity(item, "token_id", _MOST_ID)
        if token_id is None:
            if validity in KNOWN:
                raise StoreUntrustedError(f"The store {self._store} knows a token, but not which.")
            return Lookup(validity)
        if not is_id(token_id):
            self._refuse("token_id", "no id")
        record = self._record(token_id, item, secret)
        self._require_no_secret(record, secret)
        return Lookup(validity, record)

    def _record(self, token_id: str, item: Any, secret: Secret) -> TokenRecord:
        whole = (0, len(secret.reveal()))
        found = [c for c in self._matcher.scan(secret.reveal()) if (c.start, c.end) == whole]
        given = self._organisation
        organisation_id = self._identity(item, "organisation_id", _MOST_ORGANISATION_ID) or given.id
        if organisation_id is None:
            self._refuse("organisation_id", "nothing, nor does organisation.id")
        return TokenRecord(
            store=self._store,
            token_id=token_id,
            name=self._text(item, "name") or "",
            pattern=found[0].pattern if found else "",
            mask=found[0].mask if found else "…",
            organisation_id=organisation_id,
            organisation=self._text(item, "organisation") or given.name or organisation_id,
            organisation_contact=self._mail(item, "organisation_contact") or given.contact,
            owner_id=self._identity(item, "owner_id", _MOST_ID),
            owner_name=self._text(item, "owner_name"),
            owner_email=self._mail(item, "owner_email"),
            scopes=self._scopes(item),
            valid_from=self._time(item, "valid_from"),
            valid_to=self._time(item, "valid_to"),
        )

    def _refuse(self, name: str, what: str) -> NoReturn:
        raise StoreUnavailableError(f"The store {self._store} answered {what} at fields.{name}.")

    def _identity(self, item: Any, name: str, most: int) -> str | None:
        value = self._get[name](item)
        if value is None or value == "":
            return None
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or len(value) > most or _NUL.search(value):
            self._refuse(name, f"no text of up to {most} characters")
        return str(value)

    def _text(self, item: Any, name: str) -> str | None:
        value = self._get[name](item)
        if value is None:
            return None
        if not isinstance(value, str):
            self._refuse(name, "no text")
        return self._safe(value)

    def _safe(self, text: str) -> str:
        """Free text that somebody chose: without other people's tokens, and short (threat 2)."""
        return _NUL.sub("\ufffd", self._matcher.redact(text))[:_MOST_TEXT]

    def _mail(self, item: Any, name: str) -> str | None:
        value = self._get[name](item)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            self._refuse(name, "no text")
        if not _MAIL.fullmatch(value):
            # The token is what counts: its mail goes to the next who can act.
            log.warning("store %s: fields.%s holds no e-mail address", self._store, name)
            return None
        return str(value)

    def _scopes(self, item: Any) -> tuple[str, ...]:
        value = self._get["scopes"](item)
        if value is None:
            return ()
        scopes = value.split() if isinstance(value, str) else value
        if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
            self._refuse("scopes", "no list of texts")
        return tuple(self._safe(scope) for scope in scopes[:_MOST_SCOPES])

    def _time(self, item: Any, name: str) -> datetime | None:
        value = self._get[name](item)
        if value is None:
            return None
        try:
            if isinstance(value, str):
                moment = datetime.fromisoformat(value)
                if moment.tzinfo is not None:
                    return moment.astimezone(UTC)
            elif not isinstance(value, bool) and math.isfinite(value):
                return datetime.fromtimestamp(value / self._per_second, UTC)
        except (TypeError, ValueError, OverflowError, OSError):
            pass  # its text would show the value
        return self._refuse(name, "no time")

    def _require_no_secret(self, record: TokenRecord, secret: Secret) -> None:
        """Ids are stored as they are: one that is the token itself must not be (law 1)."""
        raw = secret.reveal().decode("utf-8", "replace")
        texts = (
            record.token_id, record.organisation_id, record.owner_id, record.owner_email,
            record.organisation_contact, record.name, record.organisation, record.owner_name,
            *record.scopes,
        )  # fmt: skip
        if any(raw in text for text in texts if text):
            raise StoreUntrustedError(
                f"The store {self._store} names a token by the token itself, which is not kept."
            )
