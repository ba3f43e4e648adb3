"""The house's own rules: import order, module shape, and what no committed file may name."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOST_LINES = 400

# Written in pieces, so that this file does not name what it forbids.
REGISTRY_HOSTS = (
    ("pypi", "org"),
    ("pythonhosted", "org"),
    ("registry.npmjs", "org"),
    ("deb.debian", "org"),
    ("security.debian", "org"),
    ("proxy.golang", "org"),
    ("index.crates", "io"),
)
INDEX_OPTIONS = (("index", "url"), ("find", "links"), ("trusted", "host"))
OWN_FOLDERS = (("/wor", "k/"), ("/roo", "t/"), ("/hom", "e/"), ("/opt/whe", "els"))


def committed_files() -> list[Path]:
    """Every file that is, or would be, committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    files = {ROOT / name for name in listed.stdout.split("\0") if name}
    return sorted(file for file in files if file.is_file())


def modules() -> list[Path]:
    """The product's Python files."""
    return [
        file
        for file in committed_files()
        if file.suffix == ".py" and file.relative_to(ROOT).parts[0] in {"scanner", "notifier"}
    ]


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def places_of(expression: re.Pattern[bytes]) -> list[str]:
    """`file:line` of each hit in the committed files."""
    return [
        f"{name_of(file)}:{number}"
        for file in committed_files()
        for number, line in enumerate(file.read_bytes().splitlines(), 1)
        if expression.search(line)
    ]


def test_the_import_contracts_hold() -> None:
    # In a process of its own: the linter switches off other people's loggers.
    lint = "import sys; from importlinter import cli; sys.exit(cli.lint_imports(no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", lint], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_committed_file_names_a_registry_host() -> None:
    names = "|".join(re.escape(".".join(host)) for host in REGISTRY_HOSTS)
    expression = re.compile(rf"\b(?:{names})\b".encode())
    assert places_of(expression) == []


def test_no_committed_file_sets_an_index_address() -> None:
    options = "|".join("-".join(option) for option in INDEX_OPTIONS)
    # "no-emit-..." tells the lock's compiler to leave the address out.
    expression = re.compile(rf"(?<!no-emit-)(?<!no_emit_)\b(?:extra-)?(?:{options})\b".encode())
    assert places_of(expression) == []


def test_no_committed_file_names_a_folder_of_one_machine() -> None:
    folders = "|".join(re.escape("".join(folder)) for folder in OWN_FOLDERS)
    assert places_of(re.compile(rf"(?<![\w.~}}-])(?:{folders})".encode())) == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        name_of(file)
        for file in modules()
        if ast.get_docstring(ast.parse(file.read_text("utf-8"))) is None
    ]
    assert modules()
    assert silent == []


def test_no_module_is_long() -> None:
    lengths = {name_of(file): len(file.read_text("utf-8").splitlines()) for file in modules()}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_every_path_the_docs_name_exists() -> None:
    missing = [
        f"{name_of(page)}: {path}"
        for page in committed_files()
        if page.suffix == ".md"
        for path in re.findall(
            # A name with a placeholder ("patterns/<issuer>.toml") is a pattern, not a path.
            r"(?<![\w/.-])((?:scanner|notifier|tests|scripts|docs)/[\w./-]*)(?![\w./<*{-])",
            page.read_text("utf-8"),
        )
        if not (ROOT / path.rstrip(".")).exists()
    ]
    assert missing == []


def test_the_architecture_page_names_every_room() -> None:
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter", "utf-8")
    rooms = re.findall(r"\w+", contracts["importlinter:contract:layers"]["layers"])
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    assert len(rooms) > 10
    assert [room for room in rooms if not re.search(rf"\b{room}\b", page)] == []
