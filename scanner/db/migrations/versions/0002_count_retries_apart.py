"""Count retries apart from attempts"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("scans", "incidents", "outbox"):
        op.add_column(table, sa.Column("retries", sa.Integer(), nullable=False, server_default="0"))
