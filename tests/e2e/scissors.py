"""A TCP forwarder on loopback that can cut a connection."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable


class Scissors:
    """Forwards TCP connections to a port, and cuts the first one that carried enough bytes.

    :param after: bytes towards the client after which that connection is cut, once.
    """

    def __init__(self, port: int, *, after: int) -> None:
        self.is_cut = False
        self._target = port
        self._after = after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """The base URL of the forwarder."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def start(self) -> None:
        """Accept connections."""
        self._spawn(self._accept)

    def stop(self) -> None:
        """End all connections and wait for the threads."""
        for connection in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for connection in (self._listener, *self._sockets):
            connection.close()

    def _spawn(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._sockets.append(near)
                far = socket.create_connection(("127.0.0.1", self._target), timeout=10)
                far.settimeout(None)
                self._sockets.append(far)
                self._spawn(self._pump, near, far, False)
                self._spawn(self._pump, far, near, True)

    def _pump(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        carried = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
                carried += len(data)
                if counts and carried >= self._after and self._is_first():
                    break
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _is_first(self) -> bool:
        with self._lock:
            first, self.is_cut = not self.is_cut, True
            return first
