"""Policies by organisation: every change is a new version and an audit event."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert, select

from scanner.db import audit
from scanner.db.clock import now_ms, to_iso
from scanner.db.schema import organisations, policies
from scanner.errors import FinalError
from scanner.model import AuditAction
from scanner.policy import Policy


def current_policy(connection: Connection, organisation_id: str) -> Policy:
    """Return the newest version; the default (version 0, revoke) where none was set."""
    row = connection.execute(
        select(policies.c.version, policies.c.auto_revoke)
        .where(policies.c.organisation_id == organisation_id)
        .order_by(policies.c.version.desc())
        .limit(1)
    ).one_or_none()
    return Policy() if row is None else Policy(row.version, row.auto_revoke)


def organisation_id(connection: Connection, name: str) -> str:
    """Return the id of the named organisation; `FinalError` names the known ones."""
    found = connection.execute(select(organisations.c.id).where(organisations.c.name == name))
    row = found.scalar_one_or_none()
    if row is None:
        names = connection.execute(select(organisations.c.name).order_by(organisations.c.name))
        known = ", ".join(names.scalars()) or "none yet"
        raise FinalError(f"There is no organisation {name!r}; known: {known}.")
    return str(row)


def set_auto_revoke(connection: Connection, name: str, *, enabled: bool, actor: str) -> Policy:
    """Store a new version for the named organisation, audited with before and after."""
    org = organisation_id(connection, name)
    lock = select(organisations.c.id).where(organisations.c.id == org).with_for_update()
    connection.execute(lock)  # two administrators at once make two versions
    before = current_policy(connection, org)
    after = Policy(before.version + 1, enabled)
    connection.execute(
        insert(policies).values(
            organisation_id=org,
            version=after.version,
            auto_revoke=enabled,
            changed_by=actor,
            changed_at=now_ms(connection),
        )
    )
    audit.record(
        connection,
        AuditAction.POLICY_CHANGED,
        actor=actor,
        organisation_id=org,
        before={"version": before.version, "auto_revoke": before.auto_revoke},
        after={"version": after.version, "auto_revoke": after.auto_revoke},
    )
    return after


def list_policies(connection: Connection) -> list[dict[str, Any]]:
    """Return the policy in force of every organisation."""
    listed = []
    for org in connection.execute(select(organisations).order_by(organisations.c.name)):
        policy = current_policy(connection, org.id)
        changed = connection.execute(
            select(policies.c.changed_by, policies.c.changed_at).where(
                policies.c.organisation_id == org.id, policies.c.version == policy.version
            )
        ).one_or_none()
        listed.append(
            {
                "organisation": org.name,
                "version": policy.version,
                "auto_revoke": policy.auto_revoke,
                "changed_by": changed.changed_by if changed else "default",
                "changed_at": to_iso(changed.changed_at) if changed else None,
            }
        )
    return listed
