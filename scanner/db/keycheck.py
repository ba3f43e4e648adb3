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


def check_keys(connection: Connection, purpose: str, ring: Sequence[Key]) -> None:
    """Compare the ring with the database's check values, recording new keys.

    A new key is known by the company of one that was here before: a ring of new keys only is the
    wrong ring, or has lost the keys that all there is was made with. Errors: `ConfigurationError`.
    """
    recorded = set(
        connection.execute(
            select(key_checks.c.key_id).where(key_checks.c.purpose == purpose)
        ).scalars()
    )
    if recorded and recorded.isdisjoint(key.id for key in ring):
        raise ConfigurationError(
            f"No key for {purpose} is one this database was made with; put a new key before the "
            f"old ones and keep these ({', '.join(sorted(recorded))})."
        )
    for key in ring:
        value = hmac.new(key.value, f"patrol key check {purpose}".encode(), hashlib.sha256)
        connection.execute(
            upsert(connection, key_checks)
            .values(purpose=purpose, key_id=key.id, value=value.hexdigest())
            .on_conflict_do_nothing()
        )
        stored = connection.execute(
            select(key_checks.c.value).where(
                key_checks.c.purpose == purpose, key_checks.c.key_id == key.id
            )
        ).scalar_one()
        if not hmac.compare_digest(stored, value.hexdigest()):
            raise ConfigurationError(
                f"The key {key.id!r} for {purpose} is not the one this database was made with; "
                "restore the right key (patrol-data/keys or the PATROL_ setting)."
            )
