"""The house holds: import order, no addresses, every module says what it is."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "scanner").rglob("*.py"), *(ROOT / "notifier").rglob("*.py")])


def test_the_import_contracts_hold() -> None:
    assert lint_imports(config_filename=str(ROOT / ".importlinter"), no_cache=True) == 0


def test_every_module_has_a_docstring() -> None:
    assert [p for p in SOURCES if not ast.get_docstring(ast.parse(p.read_text()))] == []


def test_no_lock_names_an_address() -> None:
    for lock in ROOT.glob("requirements*.lock"):
        assert not re.search("[a-z]+://", lock.read_text())


def test_no_committed_file_names_a_package_index() -> None:
    # Spelled in two halves, so that this file passes its own test.
    forbidden = re.compile(
        "|".join(["--(extra-)?" + "index" + "-url", "py" + r"pi\.org", "pythonhosted" + r"\."])
    )
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert listed
    found = [name for name in listed if forbidden.search((ROOT / name).read_text(errors="replace"))]
    assert found == []
