"""Token patterns as data: one TOML file an issuer, and their loader."""
