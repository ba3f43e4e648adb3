"""From an object to its places: paths and the commit that introduced it, within one pack."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

_TREE_MODE = b"40000"
_MOST_PATHS = 100  # places kept of one object; a blob in ten thousand folders is one leak
_MOST_PATH_BYTES = 4_096
_DEEPEST = 512
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z


@dataclass(frozen=True, slots=True)
class Commit:
    """What provenance needs of a commit."""

    id: str
    tree: str
    parents: tuple[str, ...]
    committed_at: datetime | None


@dataclass(slots=True)
class Origin:
    """Where an object was introduced: the commit, and the object's paths in it."""

    commit: Commit
    paths: list[str] = field(default_factory=list)


def parse_commit(object_id: str, data: bytes) -> Commit:
    """Read a commit's header; what is malformed is left out, never an error."""
    tree, parents, moment = "", [], None
    for line in data.partition(b"\n\n")[0].split(b"\n"):
        name, _, value = line.partition(b" ")
        if name == b"tree":
            tree = value.decode("ascii", "replace")
        elif name == b"parent":
            parents.append(value.decode("ascii", "replace"))
        elif name == b"committer":
            moment = _moment(value)
    return Commit(object_id, tree, tuple(parents), moment)


def tree_entries(data: bytes, hash_size: int) -> Iterator[tuple[bool, bytes, str]]:
    """Yield (is a folder, name, object id); stops at the first malformed byte."""
    position = 0
    while position < len(data):
        space = data.find(b" ", position)
        end = data.find(b"\0", space + 1) if space >= 0 else -1
        if end < 0 or end + 1 + hash_size > len(data):
            return
        mode = data[position:space]
        yield mode == _TREE_MODE, data[space + 1 : end], data[end + 1 : end + 1 + hash_size].hex()
        position = end + 1 + hash_size


def trace(
    wanted: Collection[str],
    commits: Sequence[Commit],
    trees: Mapping[str, bytes],
    hash_size: int,
) -> dict[str, Origin]:
    """Return, for each wanted object that a tree of the pack holds, its introducing commit.

    Commits are walked parents first, and each tree once: the first commit whose tree leads to an
    object introduced it.
    """
    origins: dict[str, Origin] = {}
    seen: set[str] = set()
    for commit in parents_first(commits):
        stack: list[tuple[str, bytes, int]] = [(commit.tree, b"", 0)]
        while stack:
            tree, prefix, depth = stack.pop()
            if tree in wanted:
                _note(origins, tree, commit, prefix)
            if tree in seen or tree not in trees or depth > _DEEPEST:
                continue
            seen.add(tree)
            for is_folder, name, object_id in tree_entries(trees[tree], hash_size):
                path = _bounded(prefix + name)
                if is_folder:
                    stack.append((object_id, path + b"/", depth + 1))
                elif object_id in wanted:
                    _note(origins, object_id, commit, path)
    return origins


def parents_first(commits: Sequence[Commit]) -> Iterator[Commit]:
    """Yield each commit after those of its parents that are among them; no recursion."""
    known = {commit.id: commit for commit in commits}
    done: set[str] = set()
    for commit in commits:
        stack = [commit]
        while stack:
            top = stack[-1]
            if top.id in done:
                stack.pop()
                continue
            missing = [known[one] for one in top.parents if one in known and one not in done]
            if missing:
                stack.extend(missing)
                continue
            done.add(top.id)
            yield stack.pop()


def _bounded(path: bytes) -> bytes:
    """Cut a path that is too long between its segments: half a token could not be masked."""
    if len(path) <= _MOST_PATH_BYTES:
        return path
    return path[:_MOST_PATH_BYTES].rpartition(b"/")[0] + b"/..."


def _note(origins: dict[str, Origin], object_id: str, commit: Commit, path: bytes) -> None:
    origin = origins.setdefault(object_id, Origin(commit))
    shown = path.decode("utf-8", "surrogateescape")
    if origin.commit is commit and len(origin.paths) < _MOST_PATHS and shown not in origin.paths:
        origin.paths.append(shown)


def _moment(value: bytes) -> datetime | None:
    """Read the time of "Name <mail> seconds zone"."""
    fields = value.rsplit(b" ", 2)
    if len(fields) < 3 or not fields[1].isdigit() or len(fields[1]) > 18:
        return None
    return datetime.fromtimestamp(min(int(fields[1]), _LAST_SECOND), UTC)
