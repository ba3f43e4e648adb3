"""The door to the patterns: load them, and check that they match what they should.

Reading (reader.py), making tokens (generate.py) and trying them (examples.py) stand in files of
their own, because making a token by its id needs reading, and trying needs both.
"""

from __future__ import annotations

from scanner.patterns.examples import check_examples, try_examples
from scanner.patterns.reader import check_built_in, load

__all__ = ["check_built_in", "check_examples", "load", "try_examples"]
