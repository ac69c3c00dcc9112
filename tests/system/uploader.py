"""The base of the tests of uploads: clients that send them byte by byte."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from tests.e2e.daemon import Daemon
from tests.fakes.samples import Sample
from tests.system.stage import Stage
from tests.system.wire import DEADLINE, raw_status
from tests.waiting import wait_until

ALLOWED = "--cache-allow-put-verb"
"""Every client may upload."""


def head(path: str, *fields: str) -> bytes:
    """Return the head of an upload."""
    lines = (f"PUT {path} HTTP/1.1", "Host: x", "Connection: close", *fields)
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


class UploadStage(Stage):
    """Clients that upload byte by byte.

    :ivar last_head: status line and headers of the last answer.
    """

    last_head = ""

    def connect(self, daemon: Daemon) -> socket.socket:
        line = socket.create_connection(("127.0.0.1", daemon.port), DEADLINE)
        self.addCleanup(line.close)
        return line

    def answer(self, line: socket.socket) -> tuple[int, str]:
        """Read an answer to its end; return the status, 0 if none came, and the body."""
        data = b""
        try:
            while more := line.recv(65536):
                data += more
        except ConnectionResetError:
            pass
        line.close()
        head, _, body = data.partition(b"\r\n\r\n")
        self.last_head = head.decode("latin-1")
        return raw_status(data), body.decode()

    def put(self, daemon: Daemon, path: str, data: bytes, *fields: str) -> tuple[int, str]:
        """Upload; return the status and the body of the answer."""
        line = self.connect(daemon)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            line.sendall(head(path, f"Content-Length: {len(data)}", *fields) + data)
        return self.answer(line)

    def put_nar(self, daemon: Daemon, one: Sample) -> tuple[int, str]:
        return self.put(daemon, f"/upload/{one.url}", one.file)

    def put_narinfo(self, daemon: Daemon, one: Sample) -> tuple[int, str]:
        return self.put(daemon, f"/upload/{one.digest}.narinfo", one.narinfo.render())

    def refuse(self, status: int, words: str, answer: tuple[int, str]) -> None:
        """Check a refusal, and that its text has these words."""
        self.assertEqual(status, answer[0], answer[1])
        self.assertIn(words, answer[1])

    def assert_absent(self, daemon: Daemon, one: Sample) -> None:
        for path in (one.url, f"{one.digest}.narinfo"):
            self.assertEqual(404, self.ask(daemon, f"/upload/{path}", method="HEAD").status, path)

    def assert_served_whole(self, daemon: Daemon, one: Sample) -> None:
        answer = self.ask(daemon, f"/{one.digest}.narinfo")
        self.assertEqual(200, answer.status)
        self.assertEqual(one.file, self.ask(daemon, f"/{answer.fields['URL']}").body)

    def assert_nothing_is_left(self, daemon: Daemon) -> None:
        """Check that there is no NAR, no narinfo and no unfinished file."""
        wait_until(lambda: not self.unfinished(daemon), "spools to go", daemon=daemon)
        self.assertEqual([], daemon.stored_nars())
        self.assertEqual([], self.narinfos(daemon))

    def narinfos(self, daemon: Daemon) -> list[Path]:
        return [path for path in daemon.storage.rglob("*.narinfo") if path.is_file()]
