"""Alembic's environment: migrations run on the connection the caller opened."""

from __future__ import annotations

from alembic import context

from scanner.db.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
