"""Patrol: finds the tokens an issuer handed out in public code, and ends the leak."""

__version__ = "0.1.0"
