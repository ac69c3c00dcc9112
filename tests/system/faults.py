"""The faults of an origin: small frozen values that each change one answer.

A fault changes a `Reply` before it is sent. Faults compose in the order given, print as the
expression that makes them, and compare by value, so a list of them is a script that can be
drawn from a seed, logged and replayed.

Positions: `WrongBytes`, `Short` and `Long` change the object itself, before ranges are cut from
it; `Cut`, `Stall` and `Trickle` count the body bytes of this one answer.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Collection, Sequence
from math import inf
from typing import Literal, Protocol

import zstandard
from attrs import define, field, frozen

Framing = Literal["length", "chunked", "close"]
Ranges = Literal["honoured", "ignored", "shifted"]


@frozen(kw_only=True)
class Request:
    """A request that the origin has read.

    :param target: as on the request line, query included.
    :param headers: names in lower case.
    :param number: 1 for the first request with this method and target.
    """

    method: str
    target: str
    headers: dict[str, str]
    number: int

    @property
    def range(self) -> str | None:
        """The Range header, if any."""
        return self.headers.get("range")


@define(kw_only=True)
class Reply:
    """An answer before it is sent; without faults it is that of a good file server.

    :param content: the object whole.
    :param claim: Content-Length to send instead of the true one.
    :param after: bytes sent behind the body.
    :param raw: sent instead of everything, head included.
    :param silent: nothing is ever sent, the connection stays open.
    :param delay: seconds before the head.
    :param stall_at: body bytes after which the origin waits for `stall_for` seconds.
    :param cut_at: body bytes after which the connection is closed (`reset`: with a TCP reset).
    :param rate: bytes a second, None for all at once.
    """

    status: int
    content: bytes
    headers: list[tuple[str, str]] = field(factory=list)
    framing: Framing = "length"
    ranges: Ranges = "honoured"
    advertise_ranges: bool = True
    claim: int | None = None
    after: bytes = b""
    raw: bytes | None = None
    silent: bool = False
    delay: float = 0.0
    stall_at: int | None = None
    stall_for: float = inf
    cut_at: int | None = None
    reset: bool = False
    rate: float | None = None


class Fault(Protocol):
    """A fault of one answer."""

    def spoil(self, reply: Reply, request: Request) -> None:
        """Change the reply."""


Plan = Callable[[Request], Sequence[Fault]]
"""Chooses the faults for each request; a seeded one makes a chaos run that can be replayed."""


@frozen
class Only:
    """A fault of only some requests of a path, counted from 1: `Only(Hangup(), 3)`."""

    fault: Fault
    numbers: Collection[int] | int

    def spoil(self, reply: Reply, request: Request) -> None:
        numbers = {self.numbers} if isinstance(self.numbers, int) else self.numbers
        if request.number in numbers:
            self.fault.spoil(reply, request)


@frozen
class From:
    """A fault on every request of a path from the n-th on."""

    fault: Fault
    first: int

    def spoil(self, reply: Reply, request: Request) -> None:
        if request.number >= self.first:
            self.fault.spoil(reply, request)


@frozen
class Status:
    """Any status, usually an error, with a short text."""

    code: int
    retry_after: str | int | None = None
    text: str = "no\n"

    def spoil(self, reply: Reply, request: Request) -> None:
        reply.status, reply.content, reply.ranges = self.code, self.text.encode(), "ignored"
        reply.headers = [("Content-Type", "text/plain")]
        if self.retry_after is not None:
            reply.headers.append(("Retry-After", str(self.retry_after)))


@frozen
class Html:
    """The page of a captive portal, with status 200."""

    def spoil(self, reply: Reply, request: Request) -> None:
        reply.content, reply.ranges = b"<html><body>Please log in.</body></html>\n", "ignored"
        reply.headers = [("Content-Type", "text/html")]


@frozen
class Redirect:
    """A redirect: absolute, relative, to itself (a loop) or to another host."""

    location: str
    code: int = 302

    def spoil(self, reply: Reply, request: Request) -> None:
        Status(self.code, text="elsewhere\n").spoil(reply, request)
        reply.headers.append(("Location", self.location))


@frozen
class Cut:
    """The connection ends after `at` body bytes, by FIN or by a reset."""

    at: int
    reset: bool = False

    def spoil(self, reply: Reply, request: Request) -> None:
        reply.cut_at, reply.reset = self.at, self.reset


@frozen
class Stall:
    """After `at` body bytes nothing more comes until the time is over or the origin is released."""

    at: int
    seconds: float = inf

    def spoil(self, reply: Reply, request: Request) -> None:
        reply.stall_at, reply.stall_for = self.at, self.seconds


@frozen
class Trickle:
    """The body flows at `rate` bytes a second."""

    rate: float

    def spoil(self, reply: Reply, request: Request) -> None:
        reply.rate = self.rate


@frozen
class Delay:
    """The head comes `seconds` late."""

    seconds: float

    def spoil(self, reply: Reply, request: Request) -> None:
        reply.delay = self.seconds


@frozen
class WrongBytes:
    """Some bytes of the object are wrong; the size is right."""

    at: int
    data: bytes = b"\xff\x00wrong\x00\xff"

    def spoil(self, reply: Reply, request: Request) -> None:
        end = min(self.at + len(self.data), len(reply.content))
        data = self.data[: end - self.at]
        reply.content = reply.content[: self.at] + data + reply.content[end:]


@frozen
class Short:
    """The object ends early, and the headers agree: only its known size and hash differ."""

    size: int

    def spoil(self, reply: Reply, request: Request) -> None:
        reply.content = reply.content[: self.size]


@frozen
class Long:
    """The object has more bytes at its end, and the headers agree."""

    extra: bytes = b"and then some"

    def spoil(self, reply: Reply, request: Request) -> None:
        reply.content += self.extra


@frozen
class Claim:
    """Content-Length differs from the number of bytes."""

    length: int

    def spoil(self, reply: Reply, request: Request) -> None:
        reply.claim = self.length


@frozen
class Chunked:
    """The body comes in chunks, without a length."""

    def spoil(self, reply: Reply, request: Request) -> None:
        reply.framing = "chunked"


@frozen
class NoLength:
    """The end of the connection is the end of the body; there is no length."""

    def spoil(self, reply: Reply, request: Request) -> None:
        reply.framing = "close"


@frozen
class NoRanges:
    """Ranges are ignored: 200 and the whole object, even if the head `advertised` them."""

    advertised: bool = False

    def spoil(self, reply: Reply, request: Request) -> None:
        reply.ranges, reply.advertise_ranges = "ignored", self.advertised


@frozen
class WrongRange:
    """A 206 with another range than the requested one, and a Content-Range that says so."""

    def spoil(self, reply: Reply, request: Request) -> None:
        reply.ranges = "shifted"


@frozen
class HugeHeaders:
    """There are `count` more headers, of `size` bytes each."""

    count: int = 1000
    size: int = 100

    def spoil(self, reply: Reply, request: Request) -> None:
        reply.headers += [(f"X-Huge-{number}", "x" * self.size) for number in range(self.count)]


@frozen
class Silence:
    """The request is read and never answered."""

    def spoil(self, reply: Reply, request: Request) -> None:
        reply.silent = True


@frozen
class Hangup:
    """The connection is closed without an answer, by FIN or by a reset."""

    reset: bool = False

    def spoil(self, reply: Reply, request: Request) -> None:
        reply.raw, reply.reset = b"", self.reset


@frozen
class Raw:
    """These bytes in place of an answer, then the end: garbage, half a head, anything."""

    data: bytes

    def spoil(self, reply: Reply, request: Request) -> None:
        reply.raw = self.data


@frozen
class GarbageBody:
    """A good head that announces chunks, then bytes that are not chunks."""

    def spoil(self, reply: Reply, request: Request) -> None:
        reply.raw = (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-nix-nar\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\x00\xff not a chunk\r\n"
        )


@frozen
class Trailing:
    """A good answer, followed by further bytes on the same connection."""

    data: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"

    def spoil(self, reply: Reply, request: Request) -> None:
        reply.after = self.data


@frozen
class Encoded:
    """The body has a Content-Encoding; ranges are then ignored.

    :param asked_only: only for clients that name the coding in Accept-Encoding.
    """

    coding: Literal["zstd", "gzip"] = "zstd"
    asked_only: bool = False

    def spoil(self, reply: Reply, request: Request) -> None:
        if self.asked_only and self.coding not in request.headers.get("accept-encoding", ""):
            return
        if self.coding == "zstd":
            reply.content = zstandard.ZstdCompressor().compress(reply.content)
        else:
            reply.content = gzip.compress(reply.content, mtime=0)
        reply.headers.append(("Content-Encoding", self.coding))
        reply.ranges, reply.advertise_ranges = "ignored", False


@frozen
class FalseFields:
    """A narinfo with a good signature has false values in unsigned fields.

    :param name: 52 characters in place of the hash in URL; empty keeps URL.
    :param file_hash: in place of FileHash; empty keeps it.
    :param grown: bytes that are added to FileSize.
    """

    name: str = ""
    file_hash: str = ""
    grown: int = 0

    def spoil(self, reply: Reply, request: Request) -> None:
        lines = reply.content.decode("latin-1").splitlines()
        reply.content = "".join(f"{self._changed(line)}\n" for line in lines).encode("latin-1")

    def _changed(self, line: str) -> str:
        key, _, value = line.partition(": ")
        if key == "URL" and self.name:
            _, dot, rest = value.rpartition("/")[2].partition(".nar")
            value = f"nar/{self.name}{dot or '.nar'}{rest}"
        elif key == "FileHash" and self.file_hash:
            value = f"sha256:{self.file_hash}"
        elif key == "FileSize":
            value = str(max(1, int(value) + self.grown))
        return f"{key}: {value}"
