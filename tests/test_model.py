"""`Secret` hides itself wherever values are shown, copied or written down."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import random
import traceback
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest

from scanner.errors import PatrolError, StoreUnavailableError
from scanner.model import Candidate, Checksum, LocatedCandidate, ObjectKind, Place, Secret
from scanner.patterns.generate import generate

SECRET = generate("azure-devops-pat", random.Random(3))
RAW = SECRET.reveal()
TEXT = RAW.decode()
HIDDEN = "Secret(hidden)"
CANDIDATE = Candidate(
    "azure-devops-pat", "azure-devops", 4, 4 + len(RAW), SECRET, Checksum.VALID, f"…{TEXT[-4:]}"
)


def is_clean(text: str) -> bool:
    """True when no eight characters of the token stand in `text`, raw or escaped."""
    return not any(TEXT[at : at + 8] in text for at in range(len(TEXT) - 7))


SHOWN: dict[str, Callable[[Any], str]] = {
    "repr": repr,
    "str": str,
    "ascii": ascii,
    "format": format,
    "format with a width": lambda secret: format(secret, "<200"),
    "f-string": lambda secret: f"{secret}",
    "f-string, debug": lambda secret: f"{secret=}",
    "f-string, repr": lambda secret: f"{secret!r}",
    "format method": "{0} {0!s} {0!a}".format,
    "percent": lambda secret: "%s %r" % (secret, secret),  # noqa: UP031
    "in a list": lambda secret: str([secret]),
    "as a key": lambda secret: str({secret: secret}),
    "in a frozen value": lambda _: str(CANDIDATE),
    "deep in one": lambda _: repr(LocatedCandidate(CANDIDATE, Place("a", ObjectKind.BLOB))),
    "replaced in one": lambda secret: repr(replace(CANDIDATE, secret=secret)),
    "JSON by str": lambda secret: json.dumps([secret], default=str),
}


@pytest.mark.parametrize("how", SHOWN)
def test_it_is_never_shown(how: str) -> None:
    text = SHOWN[how](SECRET)
    assert is_clean(text)
    assert HIDDEN in text


REFUSED: dict[str, Callable[[], Any]] = {
    **{
        f"pickle {protocol}": lambda protocol=protocol: pickle.dumps(SECRET, protocol)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "pickle of a value that holds it": lambda: pickle.dumps(CANDIDATE),
    "pickle of a list": lambda: pickle.dumps([SECRET]),
    "copy": lambda: copy.copy(SECRET),
    "deep copy": lambda: copy.deepcopy(SECRET),
    "deep copy of a value that holds it": lambda: copy.deepcopy(CANDIDATE),
    "a value as a dict": lambda: asdict(CANDIDATE),
    "JSON": lambda: json.dumps(SECRET),
    "JSON of a list": lambda: json.dumps({"secret": [SECRET]}),
    "bytes": lambda: bytes(SECRET),
    "iteration": lambda: list(SECRET),  # type: ignore[call-overload]
    "vars": lambda: vars(SECRET),
    "joining": lambda: "".join([SECRET]),  # type: ignore[list-item]
    "its state": SECRET.__getstate__,
}


@pytest.mark.parametrize("how", REFUSED)
def test_it_does_not_leave_by_the_back_door(how: str) -> None:
    with pytest.raises(TypeError) as caught:
        REFUSED[how]()
    assert is_clean("".join(traceback.format_exception(caught.value)))


def test_logs_do_not_tell_it(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("test")
    with caplog.at_level(logging.DEBUG):
        log.info("found %s and %r", SECRET, CANDIDATE)
        log.info("found", extra={"secret": SECRET})
        log.error("it broke with %s", [SECRET], exc_info=ValueError(SECRET, CANDIDATE))
    assert len(caplog.records) == 3
    assert is_clean(caplog.text)
    assert all(is_clean(repr(vars(record))) for record in caplog.records)


@pytest.mark.parametrize("error_type", [PatrolError, StoreUnavailableError, ValueError, KeyError])
def test_errors_do_not_tell_it(error_type: type[Exception]) -> None:
    def fail(secret: Secret, candidate: Candidate) -> None:
        raise error_type(f"no answer for {secret}", secret, candidate)

    with pytest.raises(error_type) as caught:
        fail(SECRET, CANDIDATE)
    error = caught.value
    # With the locals of every frame, as some reporters send them.
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    text = "".join((str(error), repr(error), *told.format()))
    assert is_clean(text)
    assert HIDDEN in text


def test_reveal_is_the_way() -> None:
    assert Secret(RAW).reveal() == RAW
    assert type(Secret(bytearray(RAW)).reveal()) is bytes


def test_it_keeps_a_copy_and_does_not_pin_what_it_was_found_in() -> None:
    buffer = bytearray(b"x" + RAW + b"x")
    with memoryview(buffer) as view, view[1:-1] as found:
        secret = Secret(found)
    buffer.clear()  # refused while anything still looks at it
    assert secret.reveal() == RAW


def test_equal_bytes_are_equal_secrets() -> None:
    same, other = Secret(bytes(RAW)), generate("azure-devops-pat", random.Random(4))
    assert same == SECRET
    assert hash(same) == hash(SECRET)
    assert {SECRET: 1}[same] == 1
    assert other != SECRET
    assert SECRET not in (RAW, TEXT, HIDDEN, None)
    assert hash(SECRET) != hash(RAW)


def test_a_text_is_refused_without_being_told() -> None:
    with pytest.raises(TypeError) as caught:
        Secret(TEXT)  # type: ignore[arg-type]
    assert is_clean(str(caught.value))
