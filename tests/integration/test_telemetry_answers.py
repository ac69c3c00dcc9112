"""Endless answers of a collector over HTTP, over real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading

from requests.exceptions import RequestException
from twisted.trial.unittest import SynchronousTestCase

from ncps.observe.otel.session import MOST_BYTES, BoundedSession

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class AnswerTests(SynchronousTestCase):
    def serve(self, piece: bytes, pause_s: float) -> str:
        """Answer one request with an endless body; return the URL."""
        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)
        self.ended = threading.Event()
        is_over = threading.Event()
        self.addCleanup(is_over.set)

        def answer() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(HEAD)
                while not is_over.wait(pause_s):
                    connection.sendall(piece)
            self.ended.set()

        threading.Thread(target=answer, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/v1/traces"

    def check(self, piece: bytes, pause_s: float) -> None:
        """Check that the request fails, and that the connection is closed."""
        url = self.serve(piece, pause_s)
        with BoundedSession() as session:
            self.assertRaises(
                RequestException, session.request, method="POST", url=url, data=b"x", timeout=0.5
            )
        self.assertTrue(self.ended.wait(10))

    def test_an_answer_without_end_fills_no_memory(self) -> None:
        """It is cut at a limit."""
        self.check(b"x" * MOST_BYTES, 0.0)

    def test_an_answer_that_trickles_holds_no_thread(self) -> None:
        """The time of a request includes that of its whole answer."""
        self.check(b"x", 0.05)
