"""git's wire format, pure: pkt-lines and the requests and answers of protocol version 2.

Source: gitprotocol-v2(5), gitprotocol-common(5), gitprotocol-pack(5) for the side bands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from scanner.errors import (
    FetchRefusedError,
    FetchTooLargeError,
    FetchUnavailableError,
    ObjectNotFoundError,
)

FLUSH, DELIMITER = b"0000", b"0001"
_LONGEST = 65_520
_OBJECT_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHA256_HEX = 64
_PACK_DATA, _PROGRESS, _FATAL = 1, 2, 3
_NOT_OURS = (b"not our ref", b"not valid", b"missing object", b"bad object")


def line(payload: str) -> bytes:
    """Return one pkt-line."""
    data = payload.encode() + b"\n"
    return b"%04x" % (len(data) + 4) + data


def fetch_request(wants: Sequence[str], haves: Sequence[str], depth: int | None = None) -> bytes:
    """Ask for everything reachable from `wants` and not from `haves`, as one whole pack; with
    `depth`, for no more than that many commits from each of `wants`, each with its whole tree.

    Errors: `FetchRefusedError` when an id is not a lower-case hex object id of one format.
    """
    ids = (*wants, *haves)
    if not wants or not all(_OBJECT_ID.fullmatch(one) for one in ids):
        raise FetchRefusedError("A fetch needs object ids in hex.")
    if len({len(one) for one in ids}) != 1:
        raise FetchRefusedError("A fetch cannot mix SHA-1 and SHA-256 object ids.")
    algorithm = "sha256" if len(wants[0]) == _SHA256_HEX else "sha1"
    body = line("command=fetch") + line("agent=patrol") + line(f"object-format={algorithm}")
    body += DELIMITER + line("ofs-delta") + line("no-progress")
    body += b"".join(line(f"want {want}") for want in dict.fromkeys(wants))
    body += b"".join(line(f"have {have}") for have in dict.fromkeys(haves))
    body += line(f"deepen {depth}") if depth is not None else b""
    return body + line("done") + FLUSH


def refs_request(object_format: str = "sha1") -> bytes:
    """Ask for HEAD, branches and tags."""
    body = line("command=ls-refs") + line("agent=patrol") + line(f"object-format={object_format}")
    body += DELIMITER
    for prefix in ("HEAD", "refs/heads/", "refs/tags/"):
        body += line(f"ref-prefix {prefix}")
    return body + FLUSH


class PacketReader:
    """Splits a stream of chunks into pkt-lines; `None` stands for a flush or delimiter packet."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def is_empty(self) -> bool:
        """True when no packet has begun: the stream may end here."""
        return not self._buffer

    def feed(self, chunk: bytes) -> Iterator[bytes | None]:
        """Yield the packets that are complete now. A malformed length is a broken remote end."""
        self._buffer += chunk
        position = 0
        while len(self._buffer) - position >= 4:
            length = _length(bytes(self._buffer[position : position + 4]))
            if length < 4:
                position += 4
                yield None
                continue
            if len(self._buffer) - position < length:
                break
            yield bytes(self._buffer[position + 4 : position + length])
            position += length
        del self._buffer[:position]


class PackAnswer:
    """Takes the answer to a fetch apart: pack bytes go to `write`, everything else is checked.

    Errors: `ObjectNotFoundError`, `FetchRefusedError`, `FetchUnavailableError`; none of them
    carries bytes of the answer.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._packets = PacketReader()
        self._in_pack = False
        self._complete = False

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the answer."""
        for packet in self._packets.feed(chunk):
            if self._complete:
                raise FetchUnavailableError("The server sent more than one answer.")
            if packet is None:
                self._complete = self._in_pack
            elif self._in_pack:
                self._demultiplex(packet)
            else:
                _refuse_error(packet)
                self._in_pack = packet.rstrip(b"\n") == b"packfile"

    def finish(self) -> None:
        """The answer has ended: it must have been whole."""
        if not self._in_pack:
            raise FetchUnavailableError("The server sent no pack.")
        if not self._complete or not self._packets.is_empty:
            raise FetchUnavailableError("The server's answer was cut off.")

    def _demultiplex(self, packet: bytes) -> None:
        band = packet[0] if packet else 0
        if band == _PACK_DATA:
            self._write(packet[1:])
        elif band == _FATAL:
            if any(words in packet for words in _NOT_OURS):
                raise ObjectNotFoundError("The repository does not serve a wanted object.")
            raise FetchUnavailableError("The server gave up while sending the pack.")
        elif band != _PROGRESS:
            raise FetchUnavailableError("The server does not speak git's protocol.")


class RefsAnswer:
    """Takes the answer to ls-refs apart, up to `most` refs in `most_bytes`.

    Errors: `FetchTooLargeError`, `FetchRefusedError`, `FetchUnavailableError`.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._packets = PacketReader()
        self._refs: dict[str, str] = {}
        self._bytes = 0
        self._complete = False

    @property
    def is_silent(self) -> bool:
        """True when the answer had no byte at all."""
        return self._bytes == 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the answer."""
        self._bytes += len(chunk)
        for packet in self._packets.feed(chunk):
            if packet is None:
                self._complete = True
                continue
            _refuse_error(packet)
            entry = _parse_ref(packet)
            if entry is not None:
                self._refs[entry[0]] = entry[1]
        if self._bytes > self._most_bytes or len(self._refs) > self._most:
            raise FetchTooLargeError("The repository has too many refs.")

    def finish(self) -> dict[str, str]:
        """The answer has ended; returns ref name -> object id."""
        if not self._complete or not self._packets.is_empty:
            raise FetchUnavailableError("The server's answer was cut off.")
        return self._refs


def _refuse_error(packet: bytes) -> None:
    if packet.startswith(b"ERR "):
        if any(words in packet for words in _NOT_OURS):
            raise ObjectNotFoundError("The repository does not serve a wanted object.")
        raise FetchRefusedError("The server refused the request.")


def _parse_ref(packet: bytes) -> tuple[str, str] | None:
    """Return (ref name, object id) of one line; None for a branch without a commit."""
    fields = packet.rstrip(b"\n").decode("utf-8", "surrogateescape").split(" ")
    if fields[0] == "unborn":
        return None
    if len(fields) < 2 or not _OBJECT_ID.fullmatch(fields[0]) or not fields[1]:
        raise FetchUnavailableError("The server does not speak git's protocol.")
    return fields[1], fields[0]


def _length(head: bytes) -> int:
    # int() also takes signs, spaces and underscores; the protocol knows four hex digits only.
    if not all(byte in b"0123456789abcdefABCDEF" for byte in head):
        raise FetchUnavailableError("The server does not speak git's protocol.")
    length = int(head, 16)
    if length == 3 or length > _LONGEST:
        raise FetchUnavailableError("The server does not speak git's protocol.")
    return length
