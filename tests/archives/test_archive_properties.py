"""Whatever is nested in whatever, tokens are found where they were put; and nothing breaks it."""

from __future__ import annotations

import functools
import random
import string
import tarfile
import zipfile
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.archives.bounds import ArchiveBounds
from scanner.examine import Examined, examine
from scanner.matcher.engine import Matcher
from scanner.patterns.generate import generate
from scanner.patterns.loader import load
from tests.archives import build

PATTERN = "npm-access-token"


@functools.cache
def matcher() -> Matcher:
    return Matcher(load((), [PATTERN]))


def fresh() -> str:
    return generate(matcher().ruleset.patterns[0]).reveal().decode()


@dataclass(frozen=True)
class Made:
    """Bytes, and which tokens must be found where: (member, start)."""

    data: bytes
    tokens: tuple[tuple[str, str, int], ...]


NAMES = st.text(string.ascii_lowercase + "/. é", min_size=1, max_size=12)


@st.composite
def files(draw: st.DrawFn) -> Made:
    if not draw(st.booleans()):
        return Made(b"." + draw(st.binary(max_size=200)) + b"\0", ())
    before = b"." + draw(st.binary(max_size=600)) + b"\n"  # a file that begins as no archive does
    token = fresh()
    return Made(before + token.encode() + b"\n", ((token, "", len(before)),))


def join(path: str, inner: str) -> str:
    return f"{path}!{inner}" if inner else path


@st.composite
def archives(draw: st.DrawFn, content: st.SearchStrategy[Made]) -> Made:
    kind = draw(st.sampled_from(["zip", "tar", *build.COMPRESS]))
    if kind in build.COMPRESS:
        inner = draw(content)
        tokens = inner.tokens
        if not is_tar(inner.data):  # a compressed tar file is one archive
            tokens = tuple((token, join("content", path), at) for token, path, at in tokens)
        return Made(build.COMPRESS[kind](inner.data), tokens)
    members = draw(st.dictionaries(NAMES, content, min_size=1, max_size=4))
    if kind == "zip":
        data = build.zipped(
            {name: one.data for name, one in members.items()},
            draw(st.sampled_from(sorted(build.ZIP_METHODS.values()))),
        )
    else:
        form = draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
        data = build.tarred({name: one.data for name, one in members.items()}, form)
    tokens = tuple(
        (token, join(name, path), at)
        for name, one in members.items()
        for token, path, at in one.tokens
    )
    return Made(data, tokens)


def is_tar(data: bytes) -> bool:
    return data[257:262] == b"ustar"


NESTED = st.recursive(files(), archives, max_leaves=8)


@settings(max_examples=150, deadline=None)
@given(archives(NESTED))
def test_tokens_are_found_where_they_were_put(made: Made) -> None:
    examined = examine(made.data, matcher(), 1_000)
    assert examined.partial == ()
    found = {
        (spot.candidate.secret.reveal().decode(), spot.member, spot.candidate.start)
        for spot in examined.spots
    }
    assert found == set(made.tokens)
    assert len(examined.spots) == len(made.tokens)
    assert examined.is_bare == (not made.tokens)


BOUNDS = ArchiveBounds(
    total_bytes=1 << 18, member_bytes=1 << 16, held_bytes=1 << 17, small_bytes=1 << 14,
    ratio=50, members=200, depth=4,
)  # fmt: skip


def assert_bounded(data: bytes) -> Examined:
    examined = examine(data, matcher(), 1_000, BOUNDS)
    assert examined.unpacked <= BOUNDS.total_bytes
    assert examined.unpacked <= BOUNDS.small_bytes + BOUNDS.ratio * len(data)
    assert not (examined.is_bare and examined.met)
    assert examined == examine(data, matcher(), 1_000, BOUNDS)  # no bound is one of time
    return examined


@functools.cache
def seeds() -> tuple[bytes, ...]:
    rng = random.Random(1)
    members = {
        "a.txt": b"\n" + fresh().encode() + b"\n",
        "dir/b": rng.randbytes(3_000),
        "x" * 120: bytes(20_000),
    }
    zips = [build.zipped(members, method) for method in build.ZIP_METHODS.values()]
    tars = [build.tarred(members, form) for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
    nested = build.zipped({"z": zips[1], "t": tars[0]}, zipfile.ZIP_STORED)
    plain = [*zips, *tars, nested, build.streamed_zip(members), build.zip64(members)]
    return (*plain, *(pack(one) for pack in build.COMPRESS.values() for one in (tars[1], zips[0])))


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_no_mutation_breaks_it(data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(range(len(seeds()))))
    mutant = bytearray(seeds()[seed])
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(mutant) - 1))
        # What is interesting stands at the ends.
        at = data.draw(st.sampled_from([at, at % 100, len(mutant) - 1 - at % 100]))
        match data.draw(st.sampled_from(["set", "cut", "copy", "remove"])):
            case "set":
                some = data.draw(st.binary(min_size=1, max_size=8))
                mutant[at : at + len(some)] = some
            case "cut":
                del mutant[max(at, 1) :]
            case "copy":
                piece = mutant[at : at + data.draw(st.integers(1, 3_000))]
                mutant[at:at] = piece
            case "remove":
                del mutant[max(at, 1) : at + data.draw(st.integers(1, 600))]
    assert_bounded(bytes(mutant))


STARTS = (
    *(b"PK\3\4", b"PK\5\6", b"\x1f\x8b\x08\0", b"BZh91AY&SY", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"),
    *(b"]\0\0\x80\0" + b"\xff" * 8, build.tar_block(b"a", b"17")),
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(STARTS), st.binary(max_size=2_000))
def test_no_noise_breaks_it(magic: bytes, noise: bytes) -> None:
    assert_bounded(magic + noise)
