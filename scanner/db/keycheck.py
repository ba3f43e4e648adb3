"""Key-check values: a start with the wrong key is refused.

With a wrong pepper every lookup would read "never issued", and no leak would ever be answered.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from sqlalchemy import Connection, select

from scanner.db.dialect import upsert
from scanner.db.schema import key_checks
from scanner.errors import ConfigurationError
from scanner.keyring import Key


def check_keys(
    connection: Connection, purpose: str, ring: Sequence[Key], *, may_be_all_new: bool = False
) -> None:
    """Compare the ring with the database's check values, recording new keys.

    A new key is known by the company of one that was here before: a ring of new keys only is the
    wrong ring, or has lost the keys that all there is was made with; unless `may_be_all_new`, where
    keys are destroyed once what they made is gone. Errors: `ConfigurationError`.
    """
    problem = key_problem(connection, purpose, ring, may_be_all_new=may_be_all_new)
    if problem is not None:
        raise ConfigurationError(problem)
    for key in ring:
        connection.execute(
            upsert(connection, key_checks)
            .values(purpose=purpose, key_id=key.id, value=_value(purpose, key))
            .on_conflict_do_nothing()
        )
    # Another process may have recorded a key of the same name meanwhile.
    problem = key_problem(connection, purpose, ring, may_be_all_new=may_be_all_new)
    if problem is not None:
        raise ConfigurationError(problem)


def key_problem(
    connection: Connection, purpose: str, ring: Sequence[Key], *, may_be_all_new: bool = False
) -> str | None:
    """Say what is wrong with the ring, changing nothing; None: it is one for this database."""
    rows = connection.execute(
        select(key_checks.c.key_id, key_checks.c.value).where(key_checks.c.purpose == purpose)
    ).all()
    recorded: dict[str, str] = {row.key_id: row.value for row in rows}
    if recorded and not may_be_all_new and recorded.keys().isdisjoint(key.id for key in ring):
        return (
            f"No key for {purpose} is one this database was made with; put a new key before the "
            f"old ones and keep these ({', '.join(sorted(recorded))})."
        )
    for key in ring:
        value = _value(purpose, key)
        if not hmac.compare_digest(recorded.get(key.id, value), value):
            return (
                f"The key {key.id!r} for {purpose} is not the one this database was made with; "
                "restore the right key (patrol-data/keys or the PATROL_ setting)."
            )
    return None


def _value(purpose: str, key: Key) -> str:
    message = f"patrol key check {purpose}".encode()
    return hmac.new(key.value, message, hashlib.sha256).hexdigest()
