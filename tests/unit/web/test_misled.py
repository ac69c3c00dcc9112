"""Clients that have wrong bytes: which are remembered, and their answers."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.cache.answers import WrongBytesSent
from ncps.errors import Corrupt, Unavailable
from ncps.nix.narurl import NarKey
from ncps.web.misled import SLACK, TTL_S, Misled
from tests.fakes.cache import Piece
from tests.unit.web.wire import Response, Server

KEY = NarKey("0" * 52, "xz")
PATH = f"/{KEY.url}"
FAR = 10 * SLACK


class MisledTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.misled = Misled(self.clock, max_entries=3)

    def test_offsets_at_which_a_client_may_resume(self) -> None:
        """From its acknowledged bytes, minus some slack, to the sent ones."""
        self.misled.add("a", "nar", FAR, 1000)
        low = FAR - 1000 - SLACK
        for first, is_misled in ((low - 1, False), (low, True), (FAR, True), (FAR + 1, False)):
            self.assertEqual(is_misled, self.misled.has("a", "nar", first), first)

    def test_no_other_client_and_no_other_file(self) -> None:
        """Clients with right bytes are not affected."""
        self.misled.add("a", "nar", FAR, 0)
        self.assertFalse(self.misled.has("b", "nar", FAR))
        self.assertFalse(self.misled.has("a", "another", FAR))

    def test_several_behind_one_address(self) -> None:
        """Two clients with different cuts are remembered until the later one is forgotten."""
        self.misled.add("a", "nar", FAR, 0)
        self.clock.advance(TTL_S / 2)
        self.misled.add("a", "nar", 2 * FAR, 0)
        for first in (FAR, 2 * FAR):
            self.assertTrue(self.misled.has("a", "nar", first))
        self.clock.advance(TTL_S)
        self.misled.add("a", "nar", FAR, 0)
        self.assertFalse(self.misled.has("a", "nar", 2 * FAR))

    def test_forgotten(self) -> None:
        """Every cut after a while, and the oldest ones if there are too many."""
        self.misled.add("a", "nar", FAR, 0)
        self.clock.advance(TTL_S)
        self.assertFalse(self.misled.has("a", "nar", FAR))
        for client in "abcd":
            self.misled.add(client, "nar", FAR, 0)
        self.assertEqual(3, len(self.misled))
        self.assertFalse(self.misled.has("a", "nar", FAR))
        self.assertTrue(self.misled.has("d", "nar", FAR))


class AnswerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()

    def cut(self, *pieces: Piece, first: int = 0) -> None:
        """Make an answer break off, and then the right bytes available."""
        self.server.cache.add_nar(KEY, *pieces, size=9)
        client = self.server.connect()
        client.ask(PATH, range=f"bytes={first}-") if first else client.ask(PATH)
        self.assertTrue(client.lost)
        self.server.cache.add_nar(KEY, b"abcdefghi", size=9)

    def assert_whole(self, response: Response) -> None:
        self.assertEqual((200, True), (response.status, response.whole))
        self.assertEqual(b"abcdefghi", response.body)
        self.assertEqual("none", response.headers["accept-ranges"])
        self.assertNotIn("content-range", response.headers)

    def assert_resumed(self, first: int = 3) -> None:
        response = self.server.get(PATH, range=f"bytes={first}-")
        self.assertEqual((206, True), (response.status, response.whole))
        self.assertEqual(b"abcdefghi"[first:], response.body)
        self.assertEqual("bytes", response.headers["accept-ranges"])

    def test_no_right_rest_to_wrong_bytes(self) -> None:
        """A client with wrong bytes gets the whole file each time it resumes."""
        self.cut(b"abX", WrongBytesSent("wrong hash"))
        for _ in range(2):
            self.assert_whole(self.server.get(PATH, range="bytes=3-"))
            self.assert_whole(self.server.get(PATH, range="bytes=2-"))
        piece = self.server.get(PATH, range="bytes=2-4")  # no client resumes like this
        self.assertEqual((206, b"cde"), (piece.status, piece.body))

    def test_any_file_of_the_nar_will_do(self) -> None:
        """A client that gets the whole NAR again may get any file of it."""
        self.cut(b"abX", WrongBytesSent("wrong hash"))
        self.server.get(PATH, range="bytes=3-")
        self.server.get(PATH, range="bytes=2-4")
        self.assertEqual([False, False, True], self.server.cache.parts)

    def test_wrong_bytes_behind_right_ones(self) -> None:
        """Positions are those of the file, even if the answer was a part."""
        self.cut(b"......gX", WrongBytesSent("wrong hash"), first=6)
        self.assert_whole(self.server.get(PATH, range="bytes=8-"))
        self.assert_resumed(first=0)

    def test_request_for_the_whole_takes_nothing_back(self) -> None:
        """It may come from another client at the same address."""
        self.cut(b"abX", WrongBytesSent("wrong hash"))
        response = self.server.get(PATH)
        self.assertEqual("bytes", response.headers["accept-ranges"])
        self.assert_whole(self.server.get(PATH, range="bytes=3-"))

    def test_every_other_cut_is_resumed(self) -> None:
        """Bytes before the failure of an upstream, or of a stored file, are right."""
        for error in (Unavailable("broken"), Corrupt("the stored file was changed")):
            self.cut(b"abc", error)
            self.assert_resumed()

    def test_no_byte_was_sent(self) -> None:
        """An answer with an error status sends no wrong bytes."""
        self.server.cache.add_nar(KEY, WrongBytesSent("wrong hash"), size=9)
        self.assertEqual(502, self.server.get(PATH).status)
        self.server.cache.add_nar(KEY, b"abcdefghi", size=9)
        self.assert_resumed()
