"""From a proved leak to a revoked token, an audit trail and a mail; one file a step."""
