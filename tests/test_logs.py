"""Log lines: one event a line, tied together by one id, and nothing in them that may not be."""

from __future__ import annotations

import asyncio
import ctypes
import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from scanner import logs
from scanner.correlation import correlate, correlated, current_id
from scanner.errors import StoreUnavailableError
from scanner.matcher.engine import Matcher
from scanner.model import Secret

ours = logging.getLogger("scanner.somewhere")
theirs = logging.getLogger("library.somewhere")

Lines = Callable[[], list[dict[str, Any]]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., io.StringIO]]:
    """Configure logging as a service does; afterwards it is the tests' own again."""
    root = logging.getLogger()
    kept = (root.handlers[:], root.level, logging.raiseExceptions, logging.lastResort)
    hooks = (sys.excepthook, threading.excepthook, sys.unraisablehook)

    def configure(out: io.StringIO | None = None, **options: Any) -> io.StringIO:
        stream = out or io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        logs.configure("worker", **options)
        return stream

    yield configure
    root.handlers[:], root.level, logging.raiseExceptions, logging.lastResort = kept
    root.setLevel(kept[1])  # forgets what was decided for the levels before
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(capture=False)
    for name in ("scanner", "notifier"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture
def lines(configured: Callable[..., io.StringIO], matcher: Matcher) -> Lines:
    """What was logged, as JSON; tokens are masked."""
    stream = configured(redact=matcher.redact)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_says_when_what_who_and_where(lines: Lines) -> None:
    with correlated("a" * 24):
        ours.info("scan %s is done", "x", extra={"objects": 3, "seconds": 0.5, "final": True})
    theirs.warning("it is %d o'clock", 5)
    mine, other = lines()
    assert mine.pop("time") <= other["time"]
    assert mine.pop("pid") == other["pid"]
    assert mine == {
        "level": "info", "role": "worker", "correlation_id": "a" * 24,
        "logger": "scanner.somewhere", "event": "scan x is done",
        "objects": 3, "seconds": 0.5, "final": True,
    }  # fmt: skip
    assert (other["event"], other["level"]) == ("it is 5 o'clock", "warning")
    assert "correlation_id" not in other
    assert len(other["time"]) == len("2026-11-24T11:38:13.418Z")
    assert other["time"].endswith("Z")


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("DEBUG", ["scanner.somewhere"] * 3 + ["library.somewhere"]),
        ("INFO", ["scanner.somewhere"] * 2 + ["library.somewhere"]),
        ("ERROR", []),
    ],
)
def test_libraries_are_never_heard_below_a_warning(
    configured: Callable[..., io.StringIO], level: str, heard: list[str]
) -> None:
    stream = configured(level=level)
    for logger in (ours, theirs):
        for at in (logging.DEBUG, logging.INFO, logging.WARNING):
            logger.log(at, "x")
    assert [json.loads(line)["logger"] for line in stream.getvalue().splitlines()] == heard


def test_whoever_looks_gets_what_can_be_read(configured: Callable[..., io.StringIO]) -> None:
    for options, is_json in (
        ({}, False),
        ({"style": "json"}, True),
        ({"style": "console"}, False),
    ):
        stream = configured(Terminal(), **options)
        ours.warning("look here", extra={"number": 7})
        said = stream.getvalue()
        assert ("\x1b" in said) is not is_json
        assert "look here" in said
        assert said.startswith("{") is is_json
    plain = configured(style="console")
    ours.warning("look\nhere")
    assert plain.getvalue().count("\n") == 1
    assert "\x1b" not in plain.getvalue()


# One id.


def test_work_at_once_keeps_its_ids_apart(lines: Lines) -> None:
    async def scan(name: str, gate: asyncio.Barrier) -> None:
        with correlated(name):
            await gate.wait()  # all are in their blocks
            ours.info("here %s", name)
            await asyncio.to_thread(ours.info, "there %s", name)
            await asyncio.sleep(0)
            ours.info("again %s", name)

    async def main() -> None:
        gate = asyncio.Barrier(5)
        await asyncio.gather(*(scan(f"scan-{n}", gate) for n in range(5)))
        assert current_id() is None

    asyncio.run(main())
    assert len(lines()) == 15
    for line in lines():
        assert line["event"].endswith(f" {line['correlation_id']}")


def test_an_id_that_comes_late_holds_until_the_context_ends(lines: Lines) -> None:
    async def request() -> None:
        ours.info("before")
        correlate("late")
        ours.info("after")

    async def main() -> None:
        await asyncio.create_task(request())
        ours.info("another")

    asyncio.run(main())
    assert [line.get("correlation_id") for line in lines()] == [None, "late", None]


def test_blocks_nest(lines: Lines) -> None:
    with correlated("outer"):
        with correlated("inner"):
            ours.info("x")
        with correlated(None):
            ours.info("x")
        ours.info("x")
    assert [line.get("correlation_id") for line in lines()] == ["inner", None, "outer"]


# What may not be in a line.


@pytest.mark.parametrize(
    "text", ["one\ntwo", "\r\x1b[2J", "safe\u202egpj.exe", "a\u2028b", "x\x00y"]
)
def test_what_deceives_a_reader_is_escaped(lines: Lines, text: str) -> None:
    ours.info("%s", text, extra={"path": text, "paths": [text]})
    theirs.warning(text)
    for line in lines():
        assert len(json.dumps(line).splitlines()) == 1
        for name in ("event", "path", "paths"):
            assert all(character.isprintable() for character in line.get(name, ""))
            assert text not in line.get(name, "")


def test_no_value_is_long(lines: Lines) -> None:
    ours.info("x" * 100_000, extra={"more": "y" * 100_000})
    (line,) = lines()
    assert {len(line["event"]), len(line["more"])} == {1_000}


def test_a_token_is_masked_wherever_it_stands(lines: Lines, token: Callable[[], str]) -> None:
    raw = token()
    ours.info("found %s here", raw)
    ours.info("x", extra={"path": f"a/{raw}.txt", "list": [raw], "place": {"of": raw}})
    ours.info(raw, extra={"secret": Secret(raw.encode())})
    theirs.warning("GET /?t=%s", raw)
    ours.info("y" * 900 + " " + raw)  # the cut goes through it
    ours.info("z" * 7_990 + " " + raw)  # so does that of what is looked at
    told = json.dumps(lines())
    assert len(lines()) == 6
    assert raw not in told
    assert raw[8:24] not in told
    assert lines()[2]["secret"] == "Secret(hidden)"
    assert lines()[0]["event"].startswith("found npm_")


def raising(error: BaseException) -> None:
    raise error


def test_of_an_unknown_exception_only_its_place_is_told(lines: Lines) -> None:
    hidden = "whatever-it-says"
    for logger in (ours, theirs):
        try:
            raising(KeyError(hidden))
        except KeyError as error:
            logger.exception("it failed")
            logger.error("it failed: %s", error)  # noqa: TRY400
            logger.error("it failed: %r %s", error, 5)  # noqa: TRY400
    assert hidden not in json.dumps(lines())
    for first, second, third in (lines()[:3], lines()[3:]):
        assert (first["event"], first["error"]) == ("it failed", "KeyError")
        assert first["trace"].startswith("tests.test_logs.test_of_an_unknown")
        assert "test_logs.raising:" in first["trace"]
        assert second["event"] == "it failed: KeyError"
        assert third["event"] == "it failed: 'KeyError' 5"


def test_an_error_of_ours_says_its_sentence(lines: Lines) -> None:
    try:
        raising(StoreUnavailableError("The store did not answer."))
    except StoreUnavailableError as error:
        ours.exception("waiting: %s", error)
    (line,) = lines()
    assert line["event"] == "waiting: The store did not answer."
    assert (line["error"], line["reason"]) == (
        "StoreUnavailableError", "The store did not answer."
    )  # fmt: skip


def test_what_a_library_quotes_of_an_exception_is_left_out(lines: Lines) -> None:
    hidden = "whatever-it-says"

    async def fail() -> None:
        raise RuntimeError(hidden)

    async def main() -> None:
        failing = asyncio.create_task(fail())
        await asyncio.wait([failing])  # nobody asks for its result

    asyncio.run(main())
    error = KeyError(hidden)
    logging.getLogger("celery.app.trace").error(
        "Task %(name)s[%(id)s] %(description)s: %(exc)s\n%(traceback)s",
        {"name": "patrol.scan", "id": "1", "description": "raised", "exc": repr(error),
         "traceback": hidden},
        exc_info=(KeyError, error, None), extra={"data": {"exc": hidden}},
    )  # fmt: skip
    never, task = lines()
    assert never["event"] == "Task exception was never retrieved"
    assert never["error"] == "RuntimeError"
    assert task["event"] == "Task patrol.scan[1] raised: …"
    assert hidden not in json.dumps(lines())


def test_what_nobody_catches_is_a_line(lines: Lines) -> None:
    hidden = "whatever-it-says"
    try:
        raising(ValueError(hidden))
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    thread = threading.Thread(target=raising, args=[ValueError(hidden)])
    thread.start()
    thread.join()
    quiet = threading.Thread(target=raising, args=[SystemExit(0)])
    quiet.start()
    quiet.join()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old habits", stacklevel=1)
    ctypes.CFUNCTYPE(None)(lambda: raising(ValueError(hidden)))()
    first, second, third, fourth = lines()
    assert (first["event"], second["event"]) == ("the process ends", "a thread ends")
    assert (fourth["event"], fourth["error"]) == ("an error was ignored", "ValueError")
    assert (first["level"], first["error"], second["error"]) == ("critical", *["ValueError"] * 2)
    assert "old habits" in third["event"]
    assert hidden not in json.dumps(lines())


def test_a_logger_that_keeps_to_itself_is_heard_as_well(lines: Lines) -> None:
    hermit = logging.getLogger("hermit")
    hermit.propagate = False
    hermit.info("nothing")
    hermit.error("process %r exited", "x")
    (line,) = lines()
    assert (line["logger"], line["event"]) == ("hermit", "process 'x' exited")


def test_arguments_that_do_not_fit_lose_nothing_but_themselves(lines: Lines) -> None:
    ours.info("%d of %d", "x")
    assert lines()[0]["event"] == "%d of %d (its arguments do not fit)"


def test_a_net_that_tears_shows_nothing(configured: Callable[..., io.StringIO]) -> None:
    def torn(_text: str) -> str:
        raise RuntimeError("torn")

    stream = configured(redact=torn)
    ours.info("secret thing", extra={"number": 5})
    line = json.loads(stream.getvalue())
    assert line["event"] == "(not shown: RuntimeError)"
    assert line["number"] == 5


def test_an_output_that_is_gone_stops_nobody(configured: Callable[..., io.StringIO]) -> None:
    stream = configured()
    stream.close()
    ours.error("nobody hears this")
