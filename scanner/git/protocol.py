"""git's wire format, pure: pkt-lines and the requests of protocol version 2.

Source: gitprotocol-v2(5), gitprotocol-common(5).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scanner.errors import FetchUnavailableError

FLUSH, DELIMITER = b"0000", b"0001"
_LONGEST = 65_520
SHA256_HEX = 64


def line(payload: str) -> bytes:
    """Return one pkt-line."""
    data = payload.encode() + b"\n"
    return b"%04x" % (len(data) + 4) + data


def _head(command: str, object_id: str | None) -> bytes:
    algorithm = "sha256" if object_id and len(object_id) == SHA256_HEX else "sha1"
    capabilities = line(f"command={command}") + line("agent=patrol")
    return capabilities + line(f"object-format={algorithm}") + DELIMITER


def fetch_request(wants: Sequence[str], haves: Sequence[str]) -> bytes:
    """Ask for everything reachable from `wants` and not from `haves`, as one whole pack."""
    body = _head("fetch", wants[0]) + line("ofs-delta") + line("no-progress")
    body += b"".join(line(f"want {want}") for want in wants)
    body += b"".join(line(f"have {have}") for have in haves)
    return body + line("done") + FLUSH


def refs_request() -> bytes:
    """Ask for HEAD, branches and tags."""
    body = line("command=ls-refs") + line("agent=patrol") + DELIMITER
    for prefix in ("HEAD", "refs/heads/", "refs/tags/"):
        body += line(f"ref-prefix {prefix}")
    return body + FLUSH


class PacketReader:
    """Splits a stream of chunks into pkt-lines; `None` stands for a flush or delimiter packet."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> Iterator[bytes | None]:
        """Yield the packets that are complete now. A malformed length is a broken remote end."""
        self._buffer += chunk
        position = 0
        while len(self._buffer) - position >= 4:
            head = bytes(self._buffer[position : position + 4])
            try:
                length = int(head, 16)
            except ValueError:
                raise FetchUnavailableError("The server does not speak git's protocol.") from None
            if length in (0, 1, 2):
                position += 4
                yield None
                continue
            if length < 4 or length > _LONGEST:
                raise FetchUnavailableError("The server does not speak git's protocol.")
            if len(self._buffer) - position < length:
                break
            yield bytes(self._buffer[position + 4 : position + length])
            position += length
        del self._buffer[:position]
