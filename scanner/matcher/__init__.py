"""Bytes in, candidates out. Pure: no I/O but the compiled database's cache."""
