"""What every `Fetcher` owes, against the real `git http-backend`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from scanner.errors import FetchRefusedError, NotServedError, ObjectNotFoundError
from scanner.git.pack import Bounds, PackReader
from scanner.model import FetchPlan
from scanner.ports import Fetcher

Fetch = Callable[..., bytes]


def ids(pack: bytes, hash_size: int = 20) -> set[str]:
    return {item.id for item in PackReader(pack, Bounds(), hash_size).objects()}


def listed(repository, *revisions: str) -> set[str]:
    """Every object git reaches from these."""
    return set(repository.git("rev-list", "--objects", "--no-object-names", *revisions).split())


def test_a_new_ref_brings_everything(repository, fetch: Fetch) -> None:
    repository.commit({"a.txt": "one"})
    head = repository.commit({"a.txt": "two"})
    repository.push()
    assert ids(fetch(repository.url, head)) == listed(repository, "--all")


def test_a_have_leaves_only_what_is_new(repository, fetch: Fetch) -> None:
    before = repository.commit({"a.txt": "one\n" * 500, "b.txt": "same"})
    after = repository.commit({"a.txt": "one\n" * 500 + "two\n"})
    repository.push()
    new = listed(repository, after, f"^{before}")
    assert ids(fetch(repository.url, after, haves=(before,))) == new


def test_an_unknown_have_costs_only_bytes(repository, fetch: Fetch) -> None:
    head = repository.commit({"a.txt": "one"})
    repository.push()
    assert ids(fetch(repository.url, head, haves=("1" * 40,))) == listed(repository, "--all")


def test_many_wants_are_one_pack(repository, fetch: Fetch) -> None:
    first = repository.commit({"a.txt": "one"})
    repository.git("checkout", "--quiet", "--orphan", "other")
    second = repository.commit({"b.txt": "two"})
    repository.push("HEAD:refs/heads/other", f"{first}:refs/heads/main")
    assert ids(fetch(repository.url, first, second, first)) == listed(repository, first, second)


def test_a_tag_object_comes_with_its_commit(repository, fetch: Fetch) -> None:
    head = repository.commit({"a.txt": "one"})
    repository.git("tag", "-a", "v1", "-m", "first")
    repository.push("HEAD:refs/heads/main", "v1")
    tag = repository.git("rev-parse", "v1")
    assert {tag, head} <= ids(fetch(repository.url, tag))


def test_an_orphan_of_a_forced_push_is_still_served(repository, fetch: Fetch) -> None:
    base = repository.commit({"a.txt": "base"})
    orphan = repository.commit({"a.txt": "regretted"})
    repository.push()
    repository.git("reset", "--quiet", "--hard", base)
    head = repository.commit({"a.txt": "clean"})
    repository.push()
    assert {orphan, head} <= ids(fetch(repository.url, head, orphan, haves=(base,)))


def test_a_depth_leaves_out_what_came_before(repository, fetcher: Fetcher) -> None:
    old = repository.commit({"a.txt": "old"})
    repository.commit({"a.txt": "middle"})
    head = repository.commit({"a.txt": "new", "b.txt": "same"})
    repository.push()
    tree = listed(repository, "HEAD^{tree}")
    assert ids(take(fetcher, FetchPlan(repository.url, (head,), depth=1))) == {head, *tree}
    everything = take(fetcher, FetchPlan(repository.url, (head,), depth=9))
    assert old in ids(everything)


def test_a_sha256_repository(sha256_repository, fetch: Fetch, fetcher: Fetcher) -> None:
    head = sha256_repository.commit({"a.txt": "one"})
    sha256_repository.push()
    assert ids(fetch(sha256_repository.url, head), 32) == listed(sha256_repository, "--all")
    assert asyncio.run(fetcher.list_refs(sha256_repository.url))["refs/heads/main"] == head


def test_an_unknown_want_is_not_found(repository, fetch: Fetch) -> None:
    head = repository.commit({"a.txt": "one"})
    repository.push()
    for wants in (("1" * 40,), (head, "1" * 40)):
        with pytest.raises(ObjectNotFoundError) as caught:
            fetch(repository.url, *wants)
        assert caught.value.retry is False
        assert "1111" not in str(caught.value)


def test_a_repository_that_does_not_exist(git_server, fetch: Fetch, fetcher: Fetcher) -> None:
    url = f"{git_server.url}/nobody/nothing.git"
    for ask in (
        lambda: fetch(url, "1" * 40),
        lambda: asyncio.run(fetcher.list_refs(url)),
    ):
        with pytest.raises(FetchRefusedError, match="does not exist") as caught:
            ask()
        assert type(caught.value) is NotServedError
        assert caught.value.retry is False


def test_refs(repository, fetcher: Fetcher) -> None:
    head = repository.commit({"a.txt": "one"})
    repository.git("tag", "-a", "v1", "-m", "first")
    repository.git("tag", "light")
    side = repository.commit({"a.txt": "two"})
    repository.push(f"{head}:refs/heads/main", f"{side}:refs/heads/ü/x", "HEAD:refs/other/x", "v1")
    repository.push("light")
    assert asyncio.run(fetcher.list_refs(repository.url)) == {
        "HEAD": head,
        "refs/heads/main": head,
        "refs/heads/ü/x": side,
        "refs/tags/light": head,
        "refs/tags/v1": repository.git("rev-parse", "v1"),
    }


def test_an_empty_repository_has_no_refs(repository, fetcher: Fetcher) -> None:
    assert asyncio.run(fetcher.list_refs(repository.url)) == {}


def take(fetcher: Fetcher, plan: FetchPlan) -> bytes:
    async def once() -> bytes:
        async with fetcher.fetch(plan) as pack:
            return pack.file.read()

    return asyncio.run(once())


@pytest.mark.parametrize("size", [10, 200_000])
def test_the_pack_has_no_name_and_is_gone_after_the_block(
    repository, fetcher: Fetcher, size: int
) -> None:
    head = repository.commit({"big.bin": os.urandom(size)})
    repository.push()

    async def run() -> None:
        async with fetcher.fetch(FetchPlan(repository.url, (head,))) as pack:
            link = Path(f"/proc/self/fd/{pack.file.fileno()}")
            assert str(link.readlink()).endswith("(deleted)")  # noqa: ASYNC240 (of this process)
            assert pack.file.tell() == 0
            data = pack.file.read()
            assert len(data) == pack.size
            assert head in ids(data)
            assert pack.partial == ()
        assert pack.file.closed

    asyncio.run(run())


def test_the_pack_is_gone_after_an_error_too(repository, fetcher: Fetcher) -> None:
    head = repository.commit({"a.txt": "one"})
    repository.push()
    packs = []

    async def run() -> None:
        async with fetcher.fetch(FetchPlan(repository.url, (head,))) as pack:
            packs.append(pack)
            raise KeyError(head)

    with pytest.raises(KeyError):
        asyncio.run(run())
    assert packs[0].file.closed
