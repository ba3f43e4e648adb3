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
        return Lookup(validity, self._record(token_id, item, secret))

    def _record(self, token_id: str, item: Any, secret: Secret) -> TokenRecord:
        whole = (0, len(secret.reveal()))
        found = [c for c in self._matcher.scan(secret.reveal()) if (c.start, c.end) == whole]
        given, hide = self._organisation, _Hider(secret, found[0].mask if found else "…")
        organisation_id = self._identity(item, "organisation_id", _MOST_ORGANISATION_ID) or given.id
        if organisation_id is None:
            self._refuse("organisation_id", "nothing, nor does organisation.id")
        for name, value in (("token_id", token_id), ("organisation_id", organisation_id)):
            if hide.is_in(value):  # an id is stored as it is (law 1)
                self._refuse(name, "the token itself")
        owner_id = self._identity(item, "owner_id", _MOST_ID)
        return TokenRecord(
            store=self._store,
            token_id=token_id,
            name=self._text(item, "name", hide) or "",
            pattern=found[0].pattern if found else "",
            mask=hide.mask,
            organisation_id=organisation_id,
            organisation=self._text(item, "organisation", hide) or given.name or organisation_id,
            organisation_contact=self._mail(item, "organisation_contact", hide) or given.contact,
            owner_id=None if owner_id is None or hide.is_in(owner_id) else owner_id,
            owner_name=self._text(item, "owner_name", hide),
            owner_email=self._mail(item, "owner_email", hide),
            scopes=self._scopes(item, hide),
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

    def _text(self, item: Any, name: str, hide: _Hider) -> str | None:
        value = self._get[name](item)
        if value is None:
            return None
        if not isinstance(value, str):
            self._refuse(name, "no text")
        return self._safe(value, hide)

    def _safe(self, text: str, hide: _Hider) -> str:
        """Free text that somebody chose: without any token, and short (threat 2)."""
        return _NUL.sub("\ufffd", self._matcher.redact(hide(text)))[:_MOST_TEXT]

    def _mail(self, item: Any, name: str, hide: _Hider) -> str | None:
        value = self._get[name](item)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            self._refuse(name, "no text")
        # The token is what counts: its mail goes to the next who can act.
        if not _MAIL.fullmatch(value):
            log.warning("store %s: fields.%s holds no e-mail address", self._store, name)
            return None
        if hide.is_in(value) or self._matcher.redact(value) != value:
            log.warning("store %s: fields.%s holds a token", self._store, name)
            return None
        return str(value)

    def _scopes(self, item: Any, hide: _Hider) -> tuple[str, ...]:
        value = self._get["scopes"](item)
        if value is None:
            return ()
        scopes = value.split() if isinstance(value, str) else value
        if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
            self._refuse("scopes", "no list of texts")
        return tuple(self._safe(scope, hide) for scope in scopes[:_MOST_SCOPES])

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


class _Hider:
    """Takes the token that was asked about out of what somebody chose: its owner may have named it,
    or himself, by it (law 1). That is his record's own matter, and no reason to distrust a store.
    """

    def __init__(self, secret: Secret, mask: str) -> None:
        self.mask = mask
        raw = secret.reveal().decode("utf-8", "replace")
        self._raw = re.compile(re.escape(raw), re.IGNORECASE)  # addresses are written in any case

    def __call__(self, text: str) -> str:
        return self._raw.sub(lambda _: self.mask, text)

    def is_in(self, text: str) -> bool:
        return self._raw.search(text) is not None
