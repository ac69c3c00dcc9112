"""Heads of answers: bounded in bytes, in lines and headers of any form."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ncps.errors import Unavailable
from ncps.settings.schema.upstream import UpstreamsSettings
from ncps.upstream.agent import Answer
from tests.fakes.metrics import series
from tests.fakes.wire import Line
from tests.unit.upstream.test_agent import ClientCase

HEAD_SIZE = UpstreamsSettings().max_header_size_bytes
PIECE = b"X-More: of the same\r\n" * 50
END = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class HeadTests(ClientCase):
    def flood(self, line: Line, piece: bytes, most: int = 4 * HEAD_SIZE) -> int:
        """Send until the client hangs up; return the number of bytes."""
        sent = 0
        while line.is_up and sent < most:
            line.say(piece)
            sent += len(piece)
        return sent

    def assertTurnedAway(self, asking: Deferred[Answer], line: Line, sent: int) -> None:
        error = self.failureResultOf(asking, Unavailable).value
        self.assertIn(f"longer than {HEAD_SIZE} bytes", str(error))
        self.assertEqual(("malformed", False), (error.kind, line.is_up))
        self.assertLess(sent, HEAD_SIZE + 2 * len(PIECE))
        self.assertEqual({"cache-upstream-max-header-size": 1}, series(self.metrics.limit_reached))
        self.assertEqual(self.wire.pending, 0, "asked once more")

    def test_endless_headers_are_cut(self) -> None:
        """Endless headers are read up to the limit, and the request is not repeated."""
        asking = self.ask()
        line = self.wire.accept()
        line.say(b"HTTP/1.1 200 OK\r\n")
        self.assertTurnedAway(asking, line, self.flood(line, PIECE))

    def test_endless_interim_answers_are_cut(self) -> None:
        """Interim answers count as part of the head."""
        asking = self.ask()
        line = self.wire.accept()
        sent = self.flood(line, b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 20)
        self.assertTurnedAway(asking, line, sent)

    def test_endless_continuation_lines_are_cut(self) -> None:
        """One header of many lines is also limited."""
        asking = self.ask()
        line = self.wire.accept()
        line.say(b"HTTP/1.1 200 OK\r\nX: y\r\n")
        self.assertTurnedAway(asking, line, self.flood(line, b" and more\r\n" * 100))

    def test_a_head_in_one_piece_is_held_to_the_same(self) -> None:
        """The limit does not depend on the pieces in which the bytes arrive."""
        asking = self.ask()
        line = self.wire.accept()
        line.say(b"HTTP/1.1 200 OK\r\n" + PIECE * (HEAD_SIZE // len(PIECE) + 1) + b"\r\n")
        self.failureResultOf(asking, Unavailable)
        self.assertFalse(line.is_up)

    def test_a_redirect_with_endless_headers_is_cut(self) -> None:
        """The same holds for the answer after a redirect."""
        asking = self.ask()
        self.redirect(self.wire.accept(), "http://127.0.0.1:9090/y")
        line = self.wire.accept()
        line.say(b"HTTP/1.1 200 OK\r\n")
        self.assertTurnedAway(asking, line, self.flood(line, PIECE))

    def test_a_large_head_is_taken(self) -> None:
        """A head below the limit is accepted, and the body after it is complete."""
        asking = self.ask()
        most = (HEAD_SIZE - len(END)) // len(PIECE)
        head, _, body = END.partition(b"\r\n\r\n")
        self.wire.accept().say(head + b"\r\n" + PIECE * most + b"\r\n" + body)
        self.assertEqual(b"hello", self.successResultOf(self.read(self.successResultOf(asking))))

    def test_bodies_do_not_count(self) -> None:
        """Each answer on a connection has a head of its own; bodies do not count."""
        for _ in range(3):
            asking = self.ask()
            line = self.wire.lines[0] if self.wire.lines else self.wire.accept()
            line.answer(body=b"x" * 3 * HEAD_SIZE)
            body = self.successResultOf(self.read(self.successResultOf(asking)))
            self.assertEqual(3 * HEAD_SIZE, len(body))
        self.assertEqual(1, self.wire.attempts)

    def test_heads_on_one_connection_do_not_add_up(self) -> None:
        """For each answer the count starts again."""
        for _ in range(5):
            asking = self.ask()
            line = self.wire.lines[0] if self.wire.lines else self.wire.accept()
            line.answer(x="y" * (HEAD_SIZE // 5))
            self.successResultOf(self.read(self.successResultOf(asking)))
        self.assertEqual(1, self.wire.attempts)

    def test_bytes_after_an_answer_are_not_the_next_one(self) -> None:
        """Bytes after a complete answer, in one piece beyond the limit, answer no later request."""
        asking = self.ask(method="HEAD")
        line = self.wire.accept()
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + b"z" * 2 * HEAD_SIZE + END)
        self.assertEqual(5, self.successResultOf(asking).content_length)
        later = self.ask()
        self.assertNoResult(later)
        later.cancel()
        self.failureResultOf(later)
