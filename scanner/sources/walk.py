"""Which files there are: targets and what lies below them, in an order that is always the same."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scanner.errors import ConfigurationError
from scanner.sources.ignore import Ignored, ignored_at

MOST_BYTES = 128 << 20  # a larger file is named in `partial`, not read
_MOST_FILES = 32  # in one batch: what a reader that died may have to be asked for one by one


@dataclass(frozen=True, slots=True)
class Batch:
    """Some files, next to each other in the order, and what could not be listed before them.

    `follow`: a name that was given by the user may be a link; one that was found may not.
    """

    paths: tuple[str, ...] = ()
    follow: bool = False
    partial: tuple[str, ...] = ()


def list_files(targets: Sequence[Path], *, gitignore: bool = False) -> Iterator[Batch]:
    """Yield every regular file that is a target or lies below one: by name, and folders after the
    files beside them.

    Links below a target are not followed, git's own folder is left out (`scan git` reads it), and
    with `gitignore` so is what git would ignore. What cannot be listed is named in `partial`.
    Errors: `ConfigurationError`, at once, when a target is neither a folder nor a file.
    """
    folders = [_is_folder(target) for target in targets]
    return _list(targets, folders, gitignore=gitignore)


def _is_folder(target: Path) -> bool:
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        raise ConfigurationError(f"{target} does not exist.") from None
    except OSError as error:
        raise ConfigurationError(f"{target} cannot be read ({error.strerror}).") from None
    if stat.S_ISDIR(mode):
        return True
    if stat.S_ISREG(mode):
        return False
    raise ConfigurationError(f"{target} is neither a folder nor a file; for a pipe: scan stdin")


def _list(targets: Sequence[Path], folders: Sequence[bool], *, gitignore: bool) -> Iterator[Batch]:
    files: list[str] = []
    for target, is_folder in zip(targets, folders, strict=True):
        if not is_folder:
            files.append(str(target))
        if files and (is_folder or len(files) == _MOST_FILES):
            yield Batch(tuple(files), follow=True)
            files.clear()
        if is_folder:
            yield from _list_below(str(target), ignored_at(target) if gitignore else None)
    if files:
        yield Batch(tuple(files), follow=True)


def _list_below(root: str, ignored: Ignored | None) -> Iterator[Batch]:
    # A list of folders, not recursion: a hostile tree is deeper than Python's stack.
    folders = [(root, ignored)]
    paths: list[str] = []
    partial: list[str] = []
    while folders:
        folder, rules = folders.pop()
        prefix = "" if folder == "." else folder if folder.endswith("/") else f"{folder}/"
        files: list[str] = []
        inner: list[str] = []
        try:
            with os.scandir(folder) as listed:
                # Pipes, sockets and devices are not even opened: that alone can have effects.
                for entry in listed:
                    if entry.is_file(follow_symlinks=False):
                        files.append(entry.name)
                    elif entry.is_dir(follow_symlinks=False) and entry.name != ".git":
                        inner.append(entry.name)
        except OSError as error:
            partial.append(f"{folder}: {error.strerror}")
            continue
        files.sort()
        inner.sort(reverse=True)
        if rules is not None:
            rules = rules.below(folder, has_own=".gitignore" in files)
            files = [name for name in files if not rules.holds(name, is_folder=False)]
            inner = [name for name in inner if not rules.holds(name, is_folder=True)]
        folders += [
            (prefix + name, None if rules is None else rules.inside(name)) for name in inner
        ]
        for name in files:
            paths.append(prefix + name)
            if len(paths) == _MOST_FILES:
                yield Batch(tuple(paths), partial=tuple(partial))
                paths.clear()
                partial.clear()
    if paths or partial:
        yield Batch(tuple(paths), partial=tuple(partial))
