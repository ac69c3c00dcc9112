"""Clients that fetch NARs and drop the bytes, fast or slowly, in a process of their own.

    python -m benchmarks.sink pull PORT PATH CONNECTIONS SECONDS [AUTHORITY]
    python -m benchmarks.sink once PORT PATH
    python -m benchmarks.sink crowd PORT PATH CONNECTIONS
    python -m benchmarks.sink slow PORT PATH CONNECTIONS BYTES_PER_SECOND

The kernel drops the bytes of bodies (MSG_TRUNC, tcp(7)), so that the sink needs little processor
time. With the file of an authority, `pull` speaks TLS and decrypts the bytes. Each prints one line
of JSON. `slow` reads until its standard input closes.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import sys
import time
from contextlib import ExitStack

from benchmarks.chunks import Chunks

PIECE = 1 << 20
_buffer = bytearray(PIECE)


class Fetch:
    """One keep-alive connection that asks for one path repeatedly."""

    def __init__(
        self, port: int, path: str, receive_buffer: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(("127.0.0.1", port))
        self._flags = int(socket.MSG_TRUNC)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="127.0.0.1")
            self._flags = 0
        self.received = 0
        self.responses = 0
        self.left = 0
        self._head = b""
        self._first = b""
        self._chunks: Chunks | None = None
        self._path = path

    def ask(self, path: str = "") -> None:
        """Send the request for the path, or for another path."""
        path = path or self._path
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\r\n"
        self.socket.sendall(head.encode())

    def take(self, most: int = PIECE) -> bool:
        """Receive once; return whether a whole response has come. Raises OSError if it is wrong."""
        if (chunks := self._chunks) is not None:
            data = self.socket.recv(most)
            if not data:
                raise OSError("cut off")
            return self._take_chunks(data, chunks)
        if self.left:
            count = self.socket.recv_into(_buffer, min(self.left, most), self._flags)
            if not count:
                raise OSError("cut off")
        else:
            count = self._take_head()
            if (chunks := self._chunks) is not None:
                return self._take_chunks(self._first, chunks)
        self.received += count
        self.left -= count
        if self.left or self._head:
            return False
        self.responses += 1
        return True

    @property
    def has_more(self) -> bool:
        """Whether the TLS library holds bytes, of which epoll does not know."""
        return isinstance(self.socket, ssl.SSLSocket) and self.socket.pending() > 0

    def _take_head(self) -> int:
        data = self.socket.recv(4096)
        if not data:
            raise OSError("closed")
        head, end, body = (self._head + data).partition(b"\r\n\r\n")
        if not end:
            self._head = head
            return 0
        self._head = b""
        status, *lines = head.decode("latin-1").lower().split("\r\n")
        if status.split()[1] != "200":
            raise OSError(status)
        fields = dict(line.split(": ", 1) for line in lines)
        if fields.get("transfer-encoding") == "chunked":
            self._chunks, self._first = Chunks(), body
            return 0
        self.left = int(fields["content-length"])
        return len(body)

    def _take_chunks(self, data: bytes, chunks: Chunks) -> bool:
        """Read a part of a body in chunks; return whether the body is complete now."""
        self.received += chunks.take(data)
        if not chunks.is_whole:
            return False
        self._chunks = None
        self.responses += 1
        return True


def pull(
    port: int, path: str, connections: int, seconds: float, authority: str = ""
) -> dict[str, float]:
    """Fetch for a time, and count all bytes that come within it."""
    tls = ssl.create_default_context(cafile=authority) if authority else None
    poll = select.epoll()
    fetches: dict[int, Fetch] = {}
    errors = 0
    for _ in range(connections):
        fetch = Fetch(port, path, tls=tls)
        fetches[fetch.socket.fileno()] = fetch
        poll.register(fetch.socket, select.EPOLLIN)
    began = time.monotonic()
    for fetch in fetches.values():
        fetch.ask()
    while (now := time.monotonic()) < began + seconds and errors < connections:
        for number, _ in poll.poll(1):
            try:
                fetch = fetches[number]
                is_more = True
                while is_more:
                    if fetch.take():
                        fetch.ask()
                    is_more = fetch.has_more
            except OSError:
                errors += 1
                poll.unregister(number)
    received = sum(fetch.received for fetch in fetches.values())
    return {"bytes": received, "seconds": now - began, "errors": errors}


def once(port: int, path: str) -> dict[str, float]:
    """Fetch one whole response."""
    fetch = Fetch(port, path)
    began = time.monotonic()
    first = 0.0
    try:
        fetch.ask()
        while not fetch.take():
            first = first or (time.monotonic() if fetch.received else 0.0)
    except OSError:
        return {"errors": 1, "bytes": fetch.received, "seconds": 1.0, "first": 1.0}
    seconds = time.monotonic() - began
    return {"bytes": fetch.received, "seconds": seconds, "first": first - began, "errors": 0}


def crowd(port: int, path: str, connections: int) -> dict[str, float]:
    """Fetch one whole response on each of many connections at the same time."""
    poll = select.epoll()
    fetches = {}
    for _ in range(connections):
        fetch = Fetch(port, path)
        fetches[fetch.socket.fileno()] = fetch
        poll.register(fetch.socket, select.EPOLLIN)
    errors, received = 0, 0
    began = time.monotonic()
    for fetch in fetches.values():
        fetch.ask()
    while fetches:
        for number, _ in poll.poll():
            fetch = fetches[number]
            try:
                if not fetch.take():
                    continue
            except OSError:
                errors += 1
            received += fetch.received
            poll.unregister(number)
            del fetches[number]
    return {"bytes": received, "seconds": time.monotonic() - began, "errors": errors}


def slow(port: int, path: str, connections: int, rate: int) -> dict[str, float]:
    """Read `rate` bytes a second on each connection until standard input closes."""
    tick = 0.1
    with ExitStack() as stack:
        fetches = [Fetch(port, path, receive_buffer=65536) for _ in range(connections)]
        for fetch in fetches:
            stack.enter_context(fetch.socket)
            fetch.ask()
            fetch.socket.setblocking(False)
        errors, lost = 0, set()
        began = time.monotonic()
        while not select.select([sys.stdin], [], [], tick)[0]:
            for fetch in fetches:
                try:
                    if fetch not in lost:
                        fetch.take(int(rate * tick))
                except BlockingIOError:
                    pass
                except OSError:
                    errors += 1
                    lost.add(fetch)
        seconds = time.monotonic() - began
        received = sum(fetch.received for fetch in fetches)
        started = sum(fetch.received > 0 for fetch in fetches)
    return {"bytes": received, "seconds": seconds, "errors": errors, "started": started}


def main(kind: str, port: str, path: str, *numbers: str) -> None:
    """Run one kind of client."""
    if kind == "pull":
        found = pull(int(port), path, int(numbers[0]), float(numbers[1]), *numbers[2:])
    elif kind == "crowd":
        found = crowd(int(port), path, int(numbers[0]))
    elif kind == "slow":
        found = slow(int(port), path, int(numbers[0]), int(numbers[1]))
    else:
        found = once(int(port), path)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
