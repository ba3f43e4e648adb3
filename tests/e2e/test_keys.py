"""Keys are turned while leaks come in: nobody restarts anything, and no leak is missed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import select

from scanner.db import audit
from scanner.db.engine import reader
from scanner.db.schema import incidents, scans, sightings, tokens

ZEROS = "0" * 40


@pytest.mark.parametrize("ring", ["pepper", "fingerprint", "seal"])
def test_a_ring_is_turned_under_a_stream_of_leaks(house: Any, wait: Any, ring: str) -> None:
    leaked, names = [], []
    for number in range(8):
        token, token_id = house.issue()
        leaked.append(token_id)
        name = f"acme/{ring}-{number}"
        repository = house.repository(name)
        after = repository.commit({"key.txt": f"key = {token}\n"})
        # The name of the branch holds a token too, so that the push is stored sealed.
        ref, ref_id = house.issue()
        leaked.append(ref_id)
        repository.push(f"HEAD:refs/heads/{ref}")
        answer = house.deliver(house.push_event(name, ZEROS, after, ref=f"refs/heads/{ref}"))
        assert answer.status_code == 202
        names.append(answer.json()["scan"])
        if number in (2, 5):
            done = house.patrol("keys", "rotate", ring)
            assert done.returncode == 0, done.stderr

    def ended() -> bool:
        query = select(tokens.c.state).where(tokens.c.id.in_(leaked))
        return all(row["state"] == "revoked" for row in house.rows(query))

    wait("every leak to be revoked", ended)
    found = house.rows(select(incidents.c.token_id).where(incidents.c.token_id.in_(leaked)))
    assert sorted(row["token_id"] for row in found) == sorted(leaked)
    assert {r["state"] for r in house.rows(select(scans).where(scans.c.id.in_(names)))} == {"done"}
    listed = json.loads(house.patrol("keys", "list", "--format", "json").stdout)
    mine = [row["key"] for row in listed if row["ring"] == ring]
    assert len(mine) >= 3
    keys = {
        "pepper": select(tokens.c.key_id).where(tokens.c.id.in_(leaked)),
        "fingerprint": select(sightings.c.fingerprint_key).where(sightings.c.scan_id.in_(names)),
        "seal": select(scans.c.seal_key).where(scans.c.id.in_(names)),
    }
    # What makes the keys' use visible: all of them were used, each in its time.
    used = {next(iter(row.values())) for row in house.rows(keys[ring])}
    assert len(used) >= 2
    with reader(house.services.database).connect() as connection:
        assert audit.verify(connection).problems == ()


def test_a_key_that_is_needed_is_not_destroyed(house: Any) -> None:
    house.issue()
    house.patrol("keys", "rotate", "pepper")
    (needed, *_) = [
        row["key"]
        for row in json.loads(house.patrol("keys", "list", "--format", "json").stdout)
        if row["ring"] == "pepper" and row["rows"]
    ]
    done = house.patrol("keys", "destroy", "pepper", needed)
    assert done.returncode == 2
    assert "still need the key" in done.stderr
    house.patrol("keys", "rotate", "fingerprint")
    house.patrol("keys", "rotate", "fingerprint")
    unused = [
        row["key"]
        for row in json.loads(house.patrol("keys", "list", "--format", "json").stdout)
        if row["ring"] == "fingerprint" and row["rows"] == 0 and row["makes"] != "what is new"
    ]
    done = house.patrol("keys", "destroy", "fingerprint", unused[0])
    assert (done.returncode, done.stdout) == (0, f"{unused[0]} is gone.\n")
