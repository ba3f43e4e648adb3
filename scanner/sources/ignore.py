"""What git would ignore: `.gitignore` files and `.git/info/exclude`, as gitignore(5) has it.

The last pattern that matches decides, in the file nearest to the path, and nothing comes back from
an ignored folder. A user's own `core.excludesFile` is left out: a scan must not depend on who runs
it. Names are bytes here, as they are to git.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from scanner.sources.ignore_pattern import IgnorePattern, read_pattern

_MOST_BYTES = 1 << 20  # of one .gitignore; git has no bound, people have less
_MARK = b"\xef\xbb\xbf"  # some editors begin a file with it

_Rules = tuple[IgnorePattern, ...]  # of one file, the last line first


@dataclass(frozen=True, slots=True)
class Ignored:
    """The rules that hold in one folder: those of the nearest file first, each with the way there
    from the file's own folder (b"src/", or nothing)."""

    rules: tuple[tuple[bytes, _Rules], ...] = ()

    def below(self, folder: str, *, has_own: bool) -> Ignored:
        """Return the rules within `folder`, whose own file is read if there is one."""
        own = _read(f"{folder}/.gitignore") if has_own else ()
        return replace(self, rules=((b"", own), *self.rules)) if own else self

    def inside(self, name: str) -> Ignored:
        """Return these rules as they are seen from the folder `name` in this one."""
        step = os.fsencode(name) + b"/"
        return replace(self, rules=tuple((way + step, rules) for way, rules in self.rules))

    def holds(self, name: str, *, is_folder: bool) -> bool:
        """Tell whether `name`, in this folder, is ignored."""
        last = os.fsencode(name)
        for way, rules in self.rules:
            path = way + last
            for rule in rules:
                if (is_folder or not rule.for_folders) and rule.expression.fullmatch(
                    path if rule.is_anchored else last
                ):
                    return rule.ignores
        return False


def ignored_at(folder: Path) -> Ignored:
    """Return what holds at `folder` from above: of the repository that it lies in, if it does."""
    here = Path(os.path.abspath(folder))  # noqa: PTH100 (a link is where the user sees it)
    top = next((one for one in (here, *here.parents) if (one / ".git").exists()), None)
    if top is None:
        return Ignored()
    exclude = _read(str(top / ".git" / "info" / "exclude"))
    ignored = Ignored(((b"", exclude),)) if exclude else Ignored()
    way = here.relative_to(top).parts
    for count, name in enumerate(way):
        place = top.joinpath(*way[:count])
        ignored = ignored.below(str(place), has_own=(place / ".gitignore").is_file())
        ignored = ignored.inside(name)
    return ignored


def _read(path: str) -> _Rules:
    """Return a file's rules. One that cannot be read ignores nothing: more is scanned, not less."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(_MOST_BYTES)
    except OSError:
        return ()
    return parse(content.removeprefix(_MARK).split(b"\n"))


def parse(lines: Iterable[bytes]) -> _Rules:
    """Read the lines of a .gitignore, the last one first; what can match nothing is left out."""
    read = [read_pattern(line) for line in lines]
    return tuple(pattern for pattern in reversed(read) if pattern is not None)
