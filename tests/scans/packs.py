"""Packs that were fetched beforehand."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from scanner.model import FetchPlan
from scanner.ports import Pack


class PacksAtHand:
    """Packs by the one commit that is wanted, in memory. Satisfies `ports.Fetcher`.

    `before` is told each commit, just before its pack is handed out.
    """

    def __init__(
        self, packs: Mapping[str, bytes], before: Callable[[str], object] = lambda _head: None
    ) -> None:
        self._packs: dict[str, Pack] = {}
        self._before = before
        for head, data in packs.items():
            file = os.fdopen(os.memfd_create("pack"), "w+b")
            file.write(data)
            file.flush()
            self._packs[head] = Pack(file, len(data))

    @asynccontextmanager
    async def fetch(self, plan: FetchPlan) -> AsyncIterator[Pack]:
        (head,) = plan.wants
        self._before(head)
        yield self._packs[head]

    async def list_refs(self, url: str) -> Mapping[str, str]:
        raise NotImplementedError(url)

    def close(self) -> None:
        for pack in self._packs.values():
            pack.file.close()
