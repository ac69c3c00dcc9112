"""Collectors for tests: one that accepts OTLP, and bad ones."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.server import Process, Server, spawn

ROOT = Path(__file__).parents[3]


class Collector(Server):
    """A receiver of OTLP.

    :param kind: grpc or http.
    :param certificate: speak TLS with this certificate and its key.
    """

    name = "the collector"

    def __init__(
        self, directory: Path, kind: str, certificate: tuple[Path, Path] | None = None
    ) -> None:
        directory.mkdir()
        super().__init__(directory)
        self.kind = kind
        self.files = () if certificate is None else certificate
        scheme = "https" if certificate else "http"
        self.url = f"{scheme}://127.0.0.1:{self.port}"

    def launch(self) -> Process:
        """See `Server`."""
        return spawn(
            *(sys.executable, "-m", "tests.machines.collector", self.kind, str(self.port)),
            *map(str, self.files),
            cwd=ROOT,
            log=self.log_file,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    def lines(self, signal: str) -> list[dict[str, Any]]:
        """Return all items of a signal, with their resource and headers."""
        found = [json.loads(line) for line in self.log.splitlines() if line.endswith("}")]
        return [line for line in found if line["signal"] == signal]

    def items(self, signal: str) -> list[dict[str, Any]]:
        """Return the received spans, metrics or records."""
        return [line["item"] for line in self.lines(signal)]

    def spans(self, name: str = "") -> list[dict[str, Any]]:
        """Return the spans of a name; all of them without one."""
        return [span for span in self.items("traces") if name in {"", span["name"]}]


class DeafCollector:
    """Accepts connections, and sends nothing or garbage.

    :ivar accepted: number of connections.
    """

    def __init__(self, says: bytes = b"") -> None:
        self._says = says
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._held: list[socket.socket] = []
        self.accepted = 0
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.accepted += 1
                if self._says:
                    with suppress(OSError):
                        connection.sendall(self._says)
                    connection.close()
                else:
                    self._held.append(connection)

    def close(self) -> None:
        """End, with all connections."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for connection in self._held:
            connection.close()
