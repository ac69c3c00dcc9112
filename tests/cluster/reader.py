"""A client that compares every byte, and continues at another server after a cut."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Sequence

BUFFER = 1024 * 1024
ATTEMPT_S = 60.0  # seconds without a byte
PAUSE_S = 0.3  # seconds that Nix waits before it tries again


class Reader(threading.Thread):
    """Reads one file as Nix does: it resumes by Range after a cut, and repeats after a 5xx.

    :param ports: of servers that all have it; it asks the first one first.
    :param attempts: without progress, until it gives up.
    :ivar position: number of received bytes, all of them right.
    :ivar trouble: the final error; empty if there is none.
    :ivar first_byte_s: from the start to the first byte.
    """

    def __init__(
        self, ports: Sequence[int], target: str, expected: bytes, *, attempts: int = 20
    ) -> None:
        super().__init__(daemon=True)
        self.position = 0
        self.trouble = ""
        self.first_byte_s = 0.0
        self.cuts = 0
        self._ports = list(ports)
        self._target = target
        self._expected = expected
        self._attempts = attempts
        self._buffer = bytearray(BUFFER)

    @property
    def is_done(self) -> bool:
        """Whether it has the whole file."""
        return self.position == len(self._expected) and not self.trouble

    def run(self) -> None:
        """See `threading.Thread`."""
        self._began = time.monotonic()
        vain = 0
        while not self.trouble and self.position < len(self._expected):
            before = self.position
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._attempt(self._ports[0])
            if self.position == len(self._expected) or self.trouble:
                break
            self.cuts += 1
            vain = 0 if self.position > before else vain + 1
            if vain > self._attempts:
                self.trouble = f"no progress at byte {self.position}"
                break
            self._ports.append(self._ports.pop(0))
            time.sleep(PAUSE_S)

    def _attempt(self, port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ATTEMPT_S)
        try:
            headers = {"Range": f"bytes={self.position}-"} if self.position else {}
            connection.request("GET", self._target, headers=headers)
            response = connection.getresponse()
            if response.status >= 500:
                response.read()
                return
            if response.status != (206 if self.position else 200):
                self.trouble = f"status {response.status} at byte {self.position}"
                return
            while count := response.readinto(self._buffer):
                if not self.first_byte_s:
                    self.first_byte_s = time.monotonic() - self._began
                self._take(count)
        finally:
            connection.close()

    def _take(self, count: int) -> None:
        end = self.position + count
        # Copies, because Python compares two views byte by byte, which takes ten times as long.
        if self._buffer[:count] != self._expected[self.position : end]:
            self.trouble = f"wrong bytes between {self.position} and {end}"
            raise OSError(self.trouble)
        self.position = end
