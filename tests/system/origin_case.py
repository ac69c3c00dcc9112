"""A client of the lying origin that reads every byte."""

from __future__ import annotations

import socket

from twisted.trial.unittest import SynchronousTestCase

from tests.system.faults import (
    Fault,
)
from tests.system.origin import Origin

BODY = bytes(range(256)) * 400


class Line:
    """A client that reads plain bytes."""

    def __init__(self, origin: Origin) -> None:
        self.socket = socket.create_connection(("127.0.0.1", origin.port), timeout=10)

    def ask(self, target: str = "/a", *headers: str, method: str = "GET") -> None:
        lines = [f"{method} {target} HTTP/1.1", "Host: x", *headers]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())

    def read_head(self) -> tuple[int, dict[str, str]]:
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            byte = self.socket.recv(1)
            if not byte:
                raise EOFError(data)
            data += byte
        status, *fields = data.decode("latin-1")[:-4].split("\r\n")
        return int(status.split()[1]), dict(field.split(": ", 1) for field in fields)

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(min(65536, size - len(data)))
            if not more:
                break
            data += more
        return data

    def read_all(self) -> bytes:
        """Read to the end. Raises ConnectionResetError if the connection ends by a reset."""
        return self.read(1 << 30)

    def close(self) -> None:
        self.socket.close()


class OriginCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.origin = Origin()
        self.origin.start()
        self.addCleanup(self.origin.stop)

    def line(self) -> Line:
        line = Line(self.origin)
        self.addCleanup(line.close)
        return line

    def get(
        self, *faults: Fault, headers: tuple[str, ...] = (), content: bytes = BODY
    ) -> tuple[Line, int, dict[str, str]]:
        """Serve an object at /a with faults, ask for it and read the head."""
        self.origin.serve("/a", content, *faults)
        line = self.line()
        line.ask("/a", *headers)
        return line, *line.read_head()
