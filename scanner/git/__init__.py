"""Smart-HTTP fetch, pack reading, provenance, local history."""
