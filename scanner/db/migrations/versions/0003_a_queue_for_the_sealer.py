"""A queue for the sealer"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_queue",
        sa.Column(
            "number",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
        ),
        sa.Column("event_id", sa.String(length=24), nullable=False),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("event_id"),
    )
    op.execute(
        "INSERT INTO audit_queue (event_id) SELECT id FROM audit_events "
        "WHERE id NOT IN (SELECT event_id FROM audit_seals) ORDER BY at, id"
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION audit_events_queue() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN INSERT INTO audit_queue (event_id) VALUES (NEW.id); RETURN NULL; END $$"
        )
        op.execute(
            "CREATE TRIGGER audit_events_queue AFTER INSERT ON audit_events "
            "FOR EACH ROW EXECUTE FUNCTION audit_events_queue()"
        )
        return
    # A trigger, so that a worker of the version before, still running, queues its events as well.
    op.execute(
        "CREATE TRIGGER audit_events_queue AFTER INSERT ON audit_events "
        "BEGIN INSERT INTO audit_queue (event_id) VALUES (NEW.id); END"
    )
    # REPLACE removes the row it collides with, and no DELETE trigger sees it.
    op.execute(
        "CREATE TRIGGER audit_events_no_replace BEFORE INSERT ON audit_events "
        "WHEN EXISTS (SELECT 1 FROM audit_events WHERE id = NEW.id) "
        "BEGIN SELECT RAISE(ABORT, 'audit events are immutable'); END"
    )
