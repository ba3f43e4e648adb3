"""Logs: one event a line, in one form from every process, with nothing in it that may not be shown.

Modules and libraries speak to `logging` as usual; `configure` makes every record, whoever wrote it,
pass the same steps. Of an exception only its type and its place are told: its text may hold
anything, a token too. As the last net every string goes through `redact`, loses what could deceive
a reader (threat 15), and is cut.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, cast

import structlog
from structlog.typing import EventDict, Processor

from scanner.correlation import current_id
from scanner.errors import PatrolError
from scanner.text import printable

log = logging.getLogger(__name__)

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_OURS = ("scanner", "notifier")
_MOST_TEXT = 1_000  # characters of one value
_MOST_READ = 8 * _MOST_TEXT  # of which that much is looked at
_MOST_FRAMES = 12
_PLAIN = (bool, int, float, type(None))
_RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# What a library's template may fill in when an exception is at hand: the rest may quote it.
_HARMLESS = frozenset({"name", "id", "description", "hostname"})


def configure(
    role: str,
    *,
    style: str = "auto",
    level: str = "INFO",
    redact: Callable[[str], str] | None = None,
) -> None:
    """Send all logging of this process, and of those it forks, to standard error.

    `role` names the process in every line. `style` is "json", "console", or "auto": JSON unless a
    person is looking. `level` is one of `LEVELS` and is for our own modules; libraries are heard
    from WARNING on, whatever it is: some of them would show headers and bodies. `redact` masks the
    tokens in a text.
    """
    is_terminal = sys.stderr.isatty()
    render: Processor
    if style == "console" or (style == "auto" and is_terminal):
        render = structlog.dev.ConsoleRenderer(colors=is_terminal, timestamp_key="time")
    else:
        render = structlog.processors.JSONRenderer(ensure_ascii=False)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[_Line(role, redact), render],
            use_get_message=False,
            pass_foreign_args=True,
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    logging.lastResort = handler  # for loggers that keep to themselves, such as the pool's
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level]))
    for name in _OURS:
        logging.getLogger(name).setLevel(level)
    # A record that cannot be written is lost; its text must not come out by another way.
    logging.raiseExceptions = False
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("the process ends", exc_info=(kind, error, trace))


def _uncaught_in_thread(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is not None and not isinstance(failed.exc_value, SystemExit):
        log.critical(
            "a thread ends", exc_info=(failed.exc_type, failed.exc_value, failed.exc_traceback)
        )


def _unraisable(failed: sys.UnraisableHookArgs) -> None:
    """What a destructor or a callback of C raised: only its type and place, as of all others."""
    if failed.exc_value is not None:
        log.error(
            "an error was ignored",
            exc_info=(failed.exc_type, failed.exc_value, failed.exc_traceback),
        )


class _Line:
    """The one step before rendering: from a record to the fields that may be shown."""

    def __init__(self, role: str, redact: Callable[[str], str] | None) -> None:
        self._role, self._redact = role, redact

    def __call__(self, _logger: Any, _method: str, given: EventDict) -> EventDict:
        record: logging.LogRecord = given["_record"]
        _, error, _ = given.get("exc_info") or (None, None, None)
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: EventDict = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "role": self._role,
            "pid": record.process or os.getpid(),
        }
        correlation_id = current_id()
        if correlation_id is not None:
            line["correlation_id"] = correlation_id
        said = {"logger": record.name, "event": _message(record, given["positional_args"], error)}
        if _is_ours(record):
            said |= {k: v for k, v in vars(record).items() if k not in _RECORD_FIELDS}
        if error is not None:
            said |= _fault(error)
        return {**line, **self._shown(said)}

    def _shown(self, said: Mapping[str, Any]) -> Mapping[str, Any]:
        texts = {
            name: str(value)[:_MOST_READ]
            for name, value in said.items()
            if not isinstance(value, _PLAIN)
        }
        # One look at all of them together: hardly any line holds a token.
        joined = "\n".join(texts.values())
        try:
            if self._redact is not None and self._redact(joined) != joined:
                texts = {name: self._redact(text) for name, text in texts.items()}
        except Exception as error:  # noqa: BLE001 (logging must not raise, nor show what it must not)
            texts = dict.fromkeys(texts, f"(not shown: {type(error).__name__})")
        return {
            name: printable(texts[name], _MOST_TEXT) if name in texts else value
            for name, value in said.items()
        }


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] in _OURS


def _message(record: logging.LogRecord, arguments: object, error: BaseException | None) -> str:
    """The record's text; exceptions in it are named, not quoted."""
    template = str(record.msg)
    guarded = error is not None and not _is_ours(record)
    if guarded:
        # What follows the first line is the exception's text, and so may be what fills it in.
        template = template.strip().partition("\n")[0]
    if not arguments:
        return template
    try:
        if isinstance(arguments, Mapping):
            kept = {
                key: _named(value) if not guarded or key in _HARMLESS else "…"
                for key, value in arguments.items()
            }
            return template % kept
        return template % tuple(map(_named, cast(tuple[object, ...], arguments)))
    except (TypeError, ValueError, KeyError):
        return f"{template} (its arguments do not fit)"


def _named(value: object) -> object:
    if isinstance(value, BaseException) and not isinstance(value, PatrolError):
        return type(value).__name__
    return value


def _fault(error: BaseException) -> dict[str, str]:
    """An exception without its text, unless it is one of ours: those are written to be shown."""
    said = {"error": type(error).__name__, "trace": " > ".join(_frames(error))}
    if isinstance(error, PatrolError):
        said["reason"] = str(error)
    return said


def _frames(error: BaseException) -> Iterator[str]:
    frames = list(traceback.walk_tb(error.__traceback__))
    for frame, line in frames[-_MOST_FRAMES:]:
        module = frame.f_globals.get("__name__", "?")
        yield f"{module}.{frame.f_code.co_name}:{line}"
