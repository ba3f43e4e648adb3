"""The truth: tables, migrations, leases, intake, outbox, audit."""
