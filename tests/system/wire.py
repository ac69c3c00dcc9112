"""A plain HTTP client for the system tests that reports what other clients hide.

It distinguishes a body that was cut from a complete one, keeps repeated headers, and sends any
bytes as a request.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Mapping
from typing import Any

from attrs import frozen

DEADLINE = 20.0  # seconds for each step of an exchange


@frozen(kw_only=True)
class Answer:
    """A response.

    :param headers: names in lower case; repeated ones are joined by commas.
    :param whole: whether the body ended as HTTP says.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool = True

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def fields(self) -> dict[str, str]:
        """The body as a narinfo, with the last one of repeated fields."""
        lines = self.body.decode().splitlines()
        return dict(line.split(": ", 1) for line in lines)

    @property
    def outcome(self) -> str:
        """The value of X-Cache."""
        return self.headers.get("x-cache", "")


class Exchange:
    """A response whose body the test reads later.

    :param deadline: seconds for each step.
    :param source: address of the client.
    """

    def __init__(
        self,
        port: int,
        path: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        deadline: float = DEADLINE,
        source: str = "127.0.0.1",
        body: bytes | None = None,
    ) -> None:
        self._connection = http.client.HTTPConnection(
            "127.0.0.1", port, timeout=deadline, source_address=(source, 0)
        )
        self._connection.request(method, path, body, dict(headers or {}))
        self._response = self._connection.getresponse()
        self._body = bytearray()
        self.status = self._response.status

    @property
    def headers(self) -> dict[str, str]:
        """Names in lower case."""
        found: dict[str, str] = {}
        for name, value in self._response.getheaders():
            key = name.lower()
            found[key] = f"{found[key]}, {value}" if key in found else value
        return found

    def read(self, size: int) -> bytes:
        """Read this many bytes of the body; fewer only if it ends or is cut."""
        before = len(self._body)
        while len(self._body) - before < size:
            more = self._response.read1(size - (len(self._body) - before))
            if not more:
                break
            self._body += more
        return bytes(self._body[before:])

    def finish(self) -> Answer:
        """Read the rest and close; the answer has all of the body."""
        whole = True
        try:
            while more := self._response.read1(65536):
                self._body += more
            whole = not self._response.length
        except http.client.IncompleteRead as error:
            self._body += error.partial
            whole = False
        except ConnectionResetError:
            whole = False
        finally:
            self.close()
        return Answer(status=self.status, headers=self.headers, body=bytes(self._body), whole=whole)

    def close(self) -> None:
        """Close the connection; harmless if it is closed."""
        self._response.close()
        self._connection.close()


def ask(port: int, path: str, **options: Any) -> Answer:
    """Send one request on a connection of its own and read the whole answer.

    :param options: those of `Exchange`.
    """
    return Exchange(port, path, **options).finish()


def send_raw(address: tuple[str, int] | str, data: bytes, *, deadline: float = DEADLINE) -> bytes:
    """Send bytes and return all received bytes until the connection ends.

    :param address: host and port, or the path of a UNIX socket.
    """
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as line:
        line.settimeout(deadline)
        line.connect(address)
        answer = b""
        try:
            line.sendall(data)
            while more := line.recv(65536):
                answer += more
        except ConnectionResetError:
            pass
        return answer


def raw_status(answer: bytes) -> int:
    """Return the status of the first response in these bytes; 0 if there is none."""
    found = re.match(rb"HTTP/1\.[01] ([0-9]{3})[ \r]", answer)
    return int(found[1]) if found else 0
