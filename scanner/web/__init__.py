"""The HTTP side: hooks and API."""
