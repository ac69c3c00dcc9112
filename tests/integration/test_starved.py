"""Memory runs out between a file and its socket: right bytes, or a visible end.

Allocations fail one by one, or some in a row, counted from the arrival of a request on, in a
server of its own (`starved`). The step of the answer that this hits follows from the count alone.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.bench import remove_tree
from tests.unit.web.wire import Response, parse_response

try:
    from tests.machines import starved
except ImportError:  # an interpreter without _testcapi
    starved = None  # type: ignore[assignment]

DEADLINE_S = 30.0
PATIENCE_S = 0.5
"""Seconds without a byte until an answer is given up: it is not complete, so it is no lie."""


class Reply:
    """The received part of an answer."""

    def __init__(self, data: bytes) -> None:
        self.rest = b""
        self.response: Response | None = None
        if b"\r\n\r\n" in data:
            try:
                self.response, self.rest = parse_response(data)
            except ValueError:  # cut in the head of a chunk
                return

    @property
    def is_whole(self) -> bool:
        return self.response is not None and self.response.whole


def take(line: socket.socket) -> Reply:
    """Read an answer to its end, to the connection's end, or to the deadline."""
    data = b""
    while not (reply := Reply(data)).is_whole:
        try:
            piece = line.recv(1 << 20)
        except OSError:
            break
        if not piece:
            break
        data += piece
    return reply


@skipUnless(starved is not None and sys.platform == "linux", "_testcapi, epoll")
class StarvedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="ncps-starved-"))
        self.addCleanup(remove_tree, self.directory)
        self.process: subprocess.Popen[bytes] | None = None
        self.addCleanup(self.stop)
        self.start()

    def start(self) -> None:
        self.stop()
        command = [sys.executable, "-m", "tests.machines.starved", str(self.directory)]
        self.process = subprocess.Popen(
            command,
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()

    def connect(self, patience_s: float) -> socket.socket:
        line = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S)
        line.settimeout(patience_s)
        return line

    def check(
        self, target: str, truth: bytes, *counts: tuple[int, int], wanted: tuple[int, int] | None
    ) -> Counter[str]:
        """Ask once for each (first, count) of failing allocations; return the results.

        :param wanted: ask for these bytes alone.
        """
        seen: Counter[str] = Counter()
        lines = [f"GET /{target} HTTP/1.1", "Host: x"]
        if wanted is not None:
            lines.append(f"Range: bytes={wanted[0]}-{wanted[1] - 1}")
            truth = truth[slice(*wanted)]
        request = "\r\n".join([*lines, "", ""]).encode()
        for first, count in counts:
            with self.connect(PATIENCE_S) as line:
                line.sendall(b"!%d %d\n" % (first, count) + request)
                seen[self.judge(take(line), truth, f"{target} {first} {count}")] += 1
            self.calm_down()
        return seen

    def judge(self, reply: Reply, truth: bytes, what: str) -> str:
        response = reply.response
        if response is None:
            return "nothing"
        self.assertEqual(b"", reply.rest, what)
        if response.status not in {200, 206}:
            self.assertIn(response.status, {500, 503}, what)  # 503: no thread is available
            return "error"
        self.assertTrue(truth.startswith(response.body), f"{what}: wrong bytes")
        if not response.whole:
            return "cut"
        self.assertEqual(len(truth), len(response.body), f"{what}: a lie")
        return "right"

    def calm_down(self) -> None:
        """Check that it serves again; restart an interpreter that broke down."""
        assert self.process is not None
        for _ in range(10):
            try:
                with self.connect(PATIENCE_S) as line:
                    line.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                    if take(line).is_whole:
                        return
            except ConnectionRefusedError:
                self.assertIsNotNone(self.process.poll(), "listens no more")
                self.start()
                return
        self.fail("serves no more")

    def nar(
        self,
        way: str,
        size: int,
        stops: range,
        counts: tuple[int, ...] = (1, 4),
        wanted: tuple[int, int] | None = None,
    ) -> None:
        """Ask several times for a NAR of one kind."""
        points = [(first, count) for first in stops for count in counts]
        url = starved.key_of(way, size).url
        seen = self.check(url, starved.content(size), *points, wanted=wanted)
        self.assertGreater(seen["error"] + seen["cut"] + seen["nothing"], len(points) // 10, seen)

    def test_stored(self) -> None:
        """From a file, small and large, complete and in part."""
        self.nar("stored", starved.SMALL, range(1, 400, 40))
        self.nar("stored", starved.LARGE, range(1, 800, 80))
        self.nar("stored", starved.LARGE, range(300, 800, 100), wanted=(1000, 2_900_000))

    def test_read_in_threads(self) -> None:
        """From a file that a thread reads, and from one that is decoded."""
        for way in ("threaded", "xz", "zstd"):
            self.nar(way, starved.SMALL, range(200, 700, 100))

    def test_arriving(self) -> None:
        """While it arrives, with known and unknown size, stored and passed through."""
        for way in ("sized", "unsized", "passing"):
            self.nar(way, starved.SMALL, range(250, 850, 60), counts=(1,))
        self.nar("passing", starved.LARGE, range(500, 2500, 200), counts=(1,))

    def test_narinfo(self) -> None:
        """A text that is made, and one from memory."""
        points = [(first, count) for first in range(1, 200, 10) for count in (1, 4)]
        target = f"{starved.NARINFO}.narinfo"
        seen = self.check(target, starved.NARINFO_TEXT, *points, wanted=None)
        self.assertLess(0, seen["nothing"] + seen["error"], seen)
