"""The parsing child: it answers like the pure inspector, and dies without harm."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from scanner.errors import InspectionError, MalformedPackError
from scanner.git.inspect import inspect_pack
from scanner.git.pack import Bounds
from scanner.git.sandbox import SandboxInspector
from scanner.git.wire import InspectionLoader, dump_inspection, receive, send
from scanner.matcher.engine import Matcher
from scanner.matcher.pattern import Ruleset
from scanner.model import Inspection
from scanner.ports import Pack

Token = Callable[[], str]


@pytest.fixture
def inspector(ruleset: Ruleset, tmp_path: Path) -> Iterator[SandboxInspector]:
    made = SandboxInspector(ruleset, cache_dir=tmp_path / "cache")
    yield made
    made.close()


def anonymous(data: bytes, partial: tuple[str, ...] = ()) -> Pack:
    file = os.fdopen(os.memfd_create("test"), "w+b")
    file.write(data)
    file.seek(0)
    return Pack(cast(BinaryIO, file), len(data), partial)


def test_it_answers_like_the_pure_inspector(
    repository, matcher: Matcher, inspector: SandboxInspector, token: Token
) -> None:
    repository.commit({"a/b": f"x\n{token()}", "é\n": token()}, f"m {token()}")
    data = repository.pack()
    expected = inspect_pack(data, matcher)
    assert len(expected.found) == 3
    with anonymous(data).file as file:
        assert inspector.inspect(Pack(file, len(data))) == expected
        first = inspector.pid
        assert inspector.inspect(Pack(file, len(data))) == expected
        assert inspector.pid == first


def test_a_sha256_pack_and_the_packs_own_partial(
    sha256_repository, inspector: SandboxInspector, token: Token
) -> None:
    head = sha256_repository.commit({"a": token()})
    pack = anonymous(sha256_repository.pack(), ("a-reason: 1",))
    with pack.file:
        inspection = inspector.inspect(pack, 32)
    assert [one.place.commit for one in inspection.found] == [head]
    assert inspection.partial == ("a-reason: 1",)


def test_a_malformed_pack_is_final_and_the_child_lives_on(
    repository, inspector: SandboxInspector
) -> None:
    repository.commit({"a": "b"})
    data = repository.pack()
    inspector.warm()
    pid = inspector.pid
    for bad in (data[:-1], b"PACKxx", data[:-1] + b"\0"):
        pack = anonymous(bad)
        with pack.file, pytest.raises(MalformedPackError, match=r"The pack"):
            inspector.inspect(pack)
    pack = anonymous(data)
    with pack.file:
        assert inspector.inspect(pack).objects == 3
    assert inspector.pid == pid


def test_a_dead_child_is_replaced(repository, inspector: SandboxInspector) -> None:
    repository.commit({"a": "b"})
    pack = anonymous(repository.pack())
    with pack.file:
        inspector.warm()
        first = inspector.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)  # it cannot answer; then it dies in the middle of the work
        killer = threading.Timer(0.1, os.kill, (first, signal.SIGKILL))
        killer.start()
        with pytest.raises(InspectionError, match="died"):
            inspector.inspect(pack)
        killer.join()
        assert inspector.inspect(pack).objects == 3
        assert inspector.pid != first


def test_an_overrun_is_ended_and_the_next_call_works(ruleset: Ruleset, repository) -> None:
    repository.commit({"a": "b"})
    pack = anonymous(repository.pack())
    inspector = SandboxInspector(ruleset, timeout=0.5)
    try:
        inspector.warm()
        first = inspector.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        with pack.file:
            with pytest.raises(InspectionError, match=r"longer than 0\.5 seconds"):
                inspector.inspect(pack)
            assert not Path(f"/proc/{first}").exists()
            assert inspector.inspect(pack).objects == 3
    finally:
        inspector.close()


def test_the_child_holds_nothing(
    inspector: SandboxInspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATROL_PEPPERS", "k1:hush")
    monkeypatch.setenv("DATABASE_HINT", "hush")
    with socket.socket() as leaked:
        os.set_inheritable(leaked.fileno(), True)
        inspector.warm()
    process = Path(f"/proc/{inspector.pid}")
    environment = (process / "environ").read_bytes()
    assert b"PATROL" not in environment
    assert b"hush" not in environment
    assert {one.partition(b"=")[0] for one in environment.split(b"\0") if one} == {
        b"PYTHONPATH",
        b"LANG",
    }
    assert (process / "cwd").readlink() == Path("/")
    descriptors = {link.name: str(link.readlink()) for link in (process / "fd").iterdir()}
    assert descriptors.pop("0").startswith("socket:")
    assert set(descriptors.values()) <= {os.devnull}
    status = (process / "status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert os.getsid(inspector.pid or 0) == inspector.pid
    limits = (process / "limits").read_text()
    assert "Max core file size        0                    0" in limits
    assert "Max file size             0                    0" in limits


def test_it_says_what_it_gave_up(inspector: SandboxInspector) -> None:
    reached = inspector.describe()
    assert set(reached) == {"no_network", "no_files", "no_new_privileges"}
    assert inspector.has_network is not reached["no_network"]
    if reached["no_network"]:
        ours = Path("/proc/self/ns/net").readlink()
        assert Path(f"/proc/{inspector.pid}/ns/net").readlink() != ours


def test_the_child_ends_with_its_parent(ruleset: Ruleset) -> None:
    program = (
        "import os, sys\n"
        "from scanner.git.sandbox import SandboxInspector\n"
        "from scanner.patterns.loader import load\n"
        "inspector = SandboxInspector(load())\n"
        "inspector.warm()\n"
        "print(inspector.pid, flush=True)\n"
        "sys.stdin.read()\n"
        "os._exit(9)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        watch = os.pidfd_open(child)
        try:
            parent.kill()
            parent.wait()
            assert select.select([watch], [], [], 10)[0]
        finally:
            os.close(watch)


def test_a_child_started_in_a_passing_thread_outlives_it(inspector: SandboxInspector) -> None:
    passing = threading.Thread(target=inspector.warm)
    passing.start()
    passing.join()
    first = inspector.pid
    pack = anonymous(b"PACKxx")
    with pack.file, pytest.raises(MalformedPackError):
        inspector.inspect(pack)
    assert inspector.pid == first


def test_two_threads_share_one_child(
    repository, inspector: SandboxInspector, matcher: Matcher, token: Token
) -> None:
    repository.commit({"a": token()})
    data = repository.pack()
    expected = inspect_pack(data, matcher)
    answers: list[Any] = []

    def run() -> None:
        pack = anonymous(data)
        with pack.file:
            answers.extend(inspector.inspect(pack) for _ in range(5))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [expected] * 20


def test_a_pack_that_needs_too_much_memory(ruleset: Ruleset, repository) -> None:
    repository.commit({"a": b"\0" * (200 << 20)})
    pack = anonymous(repository.pack())
    inspector = SandboxInspector(
        ruleset, memory_bytes=160 << 20, bounds=Bounds(object_bytes=400 << 20)
    )
    try:
        with pack.file, pytest.raises(InspectionError):
            inspector.inspect(pack)
        empty = Pack(cast(BinaryIO, io.BytesIO()), 0)
        assert inspector.inspect(empty).objects == 0
    finally:
        inspector.close()


def test_the_child_is_believed_only_as_far_as_it_can_be_checked(
    repository, matcher: Matcher, ruleset: Ruleset, token: Token
) -> None:
    repository.commit({"a": token()})
    good = json.loads(json.dumps(dump_inspection(inspect_pack(repository.pack(), matcher))))
    loader = InspectionLoader(ruleset)
    assert loader.load(good).found[0].candidate.mask.startswith("npm_")
    (row,) = good["found"]
    lies = {
        0: ["nobody", 1, None], 1: [-1, "0", 1.5, True, 1 << 60], 2: [0, None],
        3: ["PLAIN", "a" * 99, 1], 4: ["!!", "aGVsbG8=", None, 5],
        5: ["x" * 40, "", None, row[5] + "\n"], 6: ["fork", None],
        7: ["a\0b", 5, "a" * 9_999, "\ud800"],
        8: ["main", 7], 9: ["now", -4], 10: [-1, "1"], 11: [None],
    }  # fmt: skip
    for column, values in lies.items():
        for value in values:
            lie = [*row[:column], value, *row[column + 1 :]]
            with pytest.raises(ValueError) as caught:  # noqa: PT011 (any will do, but not its text)
                loader.load({**good, "found": [lie]})
            assert row[4] not in str(caught.value)
    for changed in (
        {"found": None}, {"found": [row] * 20_001}, {"found": [row[:-1]]}, {"objects": -1},
        {"partial": ["<script>"]}, {"partial": "none"}, {"blobs": "1"}, {"found": [None]},
        {"bare": None}, {"bare": ["x" * 40]}, {"bare": ["a" * 41]}, {"bare": [row[5]]},
        {"bare": ["a" * 40, "b" * 40]}, {"known_blobs": 2}, {"known_blobs": None},
        {"bare": ["a" * 40, "a" * 40], "blobs": 9}, {"bare": ["a" * 40], "known_blobs": 1},
        {"bare": [f"{number:040x}" for number in range((1 << 15) + 1)], "blobs": 1 << 20},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="not"):
            loader.load({**good, **changed})
    with pytest.raises(ValueError, match="not that many objects"):
        loader.load(good, good["objects"] - 1)


# Questions about files that may be known.


@pytest.fixture
def large_pack(repository) -> bytes:
    """A pack of which a question is asked."""
    files = {f"f{number}": b"%d and nothing else\n" % number * 20_000 for number in range(16)}
    repository.commit(files)
    return repository.pack()


class BrokenChild:
    """Stands for a child that a pack broke: it says what it is told to."""

    def __init__(self, inspector: SandboxInspector, *answers: Any) -> None:
        ours, theirs = socket.socketpair()
        inspector.warm()
        assert inspector._channel is not None
        inspector._channel.close()
        inspector._channel = ours
        self.heard: list[Any] = []
        self._thread = threading.Thread(target=self._serve, args=[theirs, answers])
        self._thread.start()

    def _serve(self, channel: socket.socket, answers: tuple[Any, ...]) -> None:
        with channel:
            for answer in answers:
                try:
                    message, descriptors = receive(channel, 10)
                except (EOFError, OSError):
                    return
                self.heard.append(message)
                for descriptor in descriptors:
                    os.close(descriptor)
                send(channel, answer)

    def join(self) -> list[Any]:
        self._thread.join()
        return self.heard


NOTHING = dump_inspection(Inspection())


@pytest.mark.parametrize(
    "asked",
    [
        None, "a" * 40, 5, {"a" * 40: 1}, [None], ["a" * 39], ["A" * 40], ["a" * 40 + "\n"],
        ["a" * 40, "a" * 40], [f"{number:040x}" for number in range((1 << 15) + 1)],
    ],
    ids=["none", "text", "number", "map", "null", "short", "upper", "newline", "twice", "many"],
)  # fmt: skip
def test_a_question_that_is_none_ends_the_child(
    inspector: SandboxInspector, large_pack: bytes, asked: Any
) -> None:
    child = BrokenChild(inspector, {"asked": asked})
    pack = anonymous(large_pack)
    with pack.file:
        with pytest.raises(InspectionError, match="died"):
            inspector.inspect(pack, 20, lambda _: pytest.fail("nothing was asked properly"))
        child.join()
        assert len(inspector.inspect(pack, 20, lambda _: ()).bare) == 16


def test_a_child_may_not_ask_for_ever(inspector: SandboxInspector, large_pack: bytes) -> None:
    ids = [f"{number:040x}" for number in range(1 << 14)]
    child = BrokenChild(inspector, {"asked": ids}, {"asked": ids}, {"asked": ids[:1]})
    questions: list[int] = []

    def known(asked: Any) -> tuple[str, ...]:
        questions.append(len(asked))
        return ()

    pack = anonymous(large_pack)
    with pack.file, pytest.raises(InspectionError):
        inspector.inspect(pack, 20, known)
    child.join()
    assert questions == [1 << 14, 1 << 14]


def test_a_child_cannot_tell_of_more_files_than_the_pack_has(
    inspector: SandboxInspector, large_pack: bytes
) -> None:
    bare = [f"{number:040x}" for number in range(19)]
    lie = {**NOTHING, "objects": 19, "blobs": 19, "bare": bare}
    child = BrokenChild(inspector, {"inspection": lie})
    pack = anonymous(large_pack)
    with pack.file, pytest.raises(InspectionError, match="nonsense"):
        inspector.inspect(pack)
    child.join()


def test_a_child_that_was_not_allowed_to_ask_answers_nonsense(
    inspector: SandboxInspector, large_pack: bytes
) -> None:
    child = BrokenChild(inspector, {"asked": ["a" * 40]})
    pack = anonymous(large_pack)
    with pack.file, pytest.raises(InspectionError, match="nonsense"):
        inspector.inspect(pack)
    assert [message["may_ask"] for message in child.join()] == [False]


def test_it_hears_only_which_are_known(inspector: SandboxInspector, large_pack: bytes) -> None:
    ids = [letter * 40 for letter in "abcd"]
    child = BrokenChild(inspector, {"asked": ids}, {"inspection": NOTHING})
    pack = anonymous(large_pack)
    with pack.file:
        inspector.inspect(pack, 20, lambda _: {ids[1], ids[3], "e" * 40})
    assert child.join()[1:] == [[1, 3]]


def test_a_look_up_that_fails_does_not_confuse_the_next_pack(
    inspector: SandboxInspector, large_pack: bytes
) -> None:
    def known(_: Any) -> tuple[str, ...]:
        raise RuntimeError("out of order")

    pack = anonymous(large_pack)
    with pack.file:
        with pytest.raises(RuntimeError, match="out of order"):
            inspector.inspect(pack, 20, known)
        assert len(inspector.inspect(pack, 20, lambda _: ()).bare) == 16
        assert inspector.inspect(pack).bare == ()


def test_a_slow_look_up_is_not_the_childs_fault(ruleset: Ruleset, large_pack: bytes) -> None:
    inspector = SandboxInspector(ruleset, timeout=3)
    waited = threading.Event()

    def known(_: Any) -> tuple[str, ...]:
        waited.wait(4)  # nobody sets it: this is what the look-up takes
        return ()

    pack = anonymous(large_pack)
    try:
        inspector.warm()
        with pack.file:
            assert len(inspector.inspect(pack, 20, known).bare) == 16
    finally:
        inspector.close()
