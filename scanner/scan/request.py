"""What a scan asks of its repository: a push its commits, a watch every ref there is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scanner.matcher.engine import Matcher
from scanner.model import LocatedCandidate, ObjectKind, Place
from scanner.ports import Fetcher

_ANY_BYTES = ("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Request:
    """What a scan asks of a repository; `heads` are remembered if everything was read."""

    url: str
    heads: tuple[str, ...]
    wants: tuple[str, ...]
    known: tuple[str, ...]  # heads that were scanned completely: all we may say `have` for
    orphans: tuple[str, ...] = ()  # wanted too, but may be gone
    names: tuple[tuple[str, str], ...] = ()  # (object id, name that may hold a token)


async def make_request(
    fetcher: Fetcher,
    row: Mapping[str, Any],
    raw: Mapping[str, str],
    url: str,
    known: Sequence[str],
) -> Request:
    """Return what the scan of `row` asks for; of a watched repository the refs are asked first.

    `raw` are the names that were sealed because they hold a token, `known` the heads that were
    scanned completely. Errors: `FetchError`.
    """
    if row["source"] == "watch":
        refs = await fetcher.list_refs(url)
        heads = tuple(sorted(set(refs.values())))
        names = tuple((object_id, name) for name, object_id in refs.items())
        return Request(url, heads, heads, tuple(known), names=names)
    after, before = row["after"], row["before"]
    heads = () if _is_zero(after) else (after,)
    # A forced push or a deleted branch orphans commits that stay public by their hash.
    orphaned = row["forced"] or _is_zero(after)
    return Request(
        url,
        heads,
        heads,
        tuple(known),
        orphans=(before,) if orphaned and not _is_zero(before) and before not in known else (),
        names=tuple((after, text) for text in raw.values()),
    )


def spoken(matcher: Matcher, names: Sequence[tuple[str, str]]) -> Iterator[LocatedCandidate]:
    """Tokens in names (of a branch, of the repository) leak as much as those in files."""
    if not names or not matcher.scan("\n".join(name for _, name in names).encode(*_ANY_BYTES)):
        return
    for object_id, name in names:
        for candidate in matcher.scan(name.encode(*_ANY_BYTES)):
            yield LocatedCandidate(candidate, Place(object_id, ObjectKind.REF, name))


def _is_zero(object_id: str | None) -> bool:
    return not object_id or not object_id.strip("0")
