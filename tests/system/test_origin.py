"""The lying origin has exactly the faults that a test wants."""

from __future__ import annotations

import gzip
import time

import zstandard

from tests.system.faults import (
    Chunked,
    Claim,
    Cut,
    Encoded,
    Long,
    NoLength,
    Short,
    Stall,
    Trickle,
    WrongBytes,
)
from tests.system.origin_case import BODY, OriginCase


class HonestTests(OriginCase):
    """Without faults it is a good file server."""

    def test_object_comes_whole(self) -> None:
        """An object comes with its length, and the connection stays open."""
        line, status, headers = self.get()
        self.assertEqual(200, status)
        self.assertEqual(str(len(BODY)), headers["Content-Length"])
        self.assertEqual("bytes", headers["Accept-Ranges"])
        self.assertEqual(BODY, line.read(len(BODY)))
        line.ask("/a")
        self.assertEqual(200, line.read_head()[0])

    def test_head_has_no_body(self) -> None:
        """HEAD has the same head and no body."""
        self.origin.serve("/a", BODY)
        line = self.line()
        line.ask("/a", "Connection: close", method="HEAD")
        status, headers = line.read_head()
        self.assertEqual((200, str(len(BODY))), (status, headers["Content-Length"]))
        self.assertEqual(b"", line.read_all())

    def test_unknown_target_is_404(self) -> None:
        """A path without an entry is not found."""
        line = self.line()
        line.ask("/b")
        self.assertEqual(404, line.read_head()[0])

    def test_ranges_are_cut(self) -> None:
        """Open, closed and suffix ranges come as 206; a range after the end is 416."""
        for asked, wanted in (
            ("bytes=10-", BODY[10:]),
            ("bytes=10-19", BODY[10:20]),
            ("bytes=-7", BODY[-7:]),
        ):
            line, status, headers = self.get(headers=(f"Range: {asked}",))
            self.assertEqual(206, status)
            self.assertEqual(wanted, line.read(int(headers["Content-Length"])))
            self.assertTrue(headers["Content-Range"].endswith(f"/{len(BODY)}"))
        _, status, headers = self.get(headers=(f"Range: bytes={len(BODY)}-",))
        self.assertEqual((416, f"bytes */{len(BODY)}"), (status, headers["Content-Range"]))

    def test_query_picks_its_own_object(self) -> None:
        """A target with a query is looked up with the query first, then without."""
        self.origin.serve("/a?x=1", b"one")
        self.origin.serve("/a", b"any")
        line = self.line()
        for target, wanted in (("/a?x=1", b"one"), ("/a?x=2", b"any"), ("/a", b"any")):
            line.ask(target)
            line.read_head()
            self.assertEqual(wanted, line.read(3))

    def test_log_tells_what_was_asked_and_sent(self) -> None:
        """The log has method, headers, range, number, bytes and outcome of every request."""
        line, _, headers = self.get(headers=("Range: bytes=5-", "X-Y: z"))
        line.read(int(headers["Content-Length"]))
        self.origin.wait_for(lambda: self.origin.log[0].outcome == "done")
        (visit,) = self.origin.visits("/a")
        self.assertEqual(("GET", "bytes=5-", 1), (visit.method, visit.request.range, 1))
        self.assertEqual("z", visit.request.headers["x-y"])
        self.assertEqual((206, len(BODY) - 5), (visit.status, visit.sent))
        self.assertEqual({"/a": 1}, dict(self.origin.get_counts()))

    def test_origin_comes_back_on_its_port(self) -> None:
        """A stopped origin refuses connections; a restart does not change its port."""
        self.origin.serve("/a", BODY)
        port = self.origin.port
        self.origin.stop()
        self.assertRaises(ConnectionRefusedError, self.line)
        self.origin.start()
        self.assertEqual(port, self.origin.port)
        self.line().ask("/a")
        self.origin.wait_for(lambda: self.origin.gets("/a") == 1)

    def test_client_that_leaves_is_noted(self) -> None:
        """The log says if a client leaves in the middle, even during a stall."""
        line, _, _ = self.get(Stall(1000))
        self.assertEqual(BODY[:1000], line.read(1000))
        self.origin.wait_for_stall("/a")
        line.close()
        self.origin.wait_for(lambda: self.origin.log[0].outcome == "left")


class BodyFaultTests(OriginCase):
    """Faults of bodies."""

    def test_cut_ends_after_so_many_bytes(self) -> None:
        """A cut sends exactly the bytes before it, then the end."""
        line, _, headers = self.get(Cut(1234))
        self.assertEqual(str(len(BODY)), headers["Content-Length"])
        self.assertEqual(BODY[:1234], line.read_all())
        self.assertEqual(("cut", 1234), (self.origin.log[0].outcome, self.origin.log[0].sent))

    def test_reset_is_a_reset(self) -> None:
        """A reset sends the bytes before it, then an error."""
        line, _, _ = self.get(Cut(1234, reset=True))
        self.assertEqual(BODY[:1234], line.read(1234))
        self.assertRaises(ConnectionResetError, line.read, 1)

    def test_cut_counts_from_the_start_of_a_range(self) -> None:
        """A cut in the answer to a range counts the bytes of that answer."""
        line, _, _ = self.get(Cut(10), headers=("Range: bytes=100-",))
        self.assertEqual(BODY[100:110], line.read_all())

    def test_cut_chunks_have_no_end(self) -> None:
        """A cut in a chunked body leaves out the last chunk."""
        line, _, _ = self.get(Chunked(), Cut(4))
        self.assertEqual(b"4\r\n\x00\x01\x02\x03\r\n", line.read_all())

    def test_stall_waits_for_release(self) -> None:
        """A stall sends the bytes before it immediately and the others after the release."""
        line, _, _ = self.get(Stall(500))
        self.assertEqual(BODY[:500], line.read(500))
        line.socket.settimeout(0.1)
        self.assertRaises(TimeoutError, line.read, 1)
        line.socket.settimeout(10)
        self.origin.release()
        self.assertEqual(BODY[500:], line.read(len(BODY) - 500))

    def test_stall_ends_with_its_time(self) -> None:
        """A stall with a time continues by itself."""
        line, _, _ = self.get(Stall(500, seconds=0.1))
        began = time.monotonic()
        self.assertEqual(BODY, line.read(len(BODY)))
        self.assertGreater(time.monotonic() - began, 0.05)

    def test_trickle_takes_its_time(self) -> None:
        """A trickle has its rate."""
        began = time.monotonic()
        line, _, _ = self.get(Trickle(10_000), content=BODY[:3000])
        self.assertEqual(BODY[:3000], line.read(3000))
        self.assertGreater(time.monotonic() - began, 0.2)

    def test_wrong_bytes_are_wrong_in_every_range(self) -> None:
        """The object has the damage: the size is right, and ranges have the same wrong bytes."""
        line, _, _ = self.get(WrongBytes(10, b"xyz"))
        whole = line.read(len(BODY))
        self.assertEqual(BODY[:10] + b"xyz" + BODY[13:], whole)
        line, _, headers = self.get(WrongBytes(10, b"xyz"), headers=("Range: bytes=11-",))
        self.assertEqual(whole[11:], line.read(int(headers["Content-Length"])))

    def test_short_and_long_agree_with_their_length(self) -> None:
        """A short or long object has the length of its head."""
        for fault, wanted in ((Short(100), BODY[:100]), (Long(b"!"), BODY + b"!")):
            line, _, headers = self.get(fault, headers=("Connection: close",))
            self.assertEqual(str(len(wanted)), headers["Content-Length"])
            self.assertEqual(wanted, line.read_all())

    def test_claim_is_another_length(self) -> None:
        """The head has a wrong Content-Length, the body is right, and then the connection ends."""
        for claim in (len(BODY) + 5, len(BODY) - 5):
            line, _, headers = self.get(Claim(claim))
            self.assertEqual(str(claim), headers["Content-Length"])
            self.assertEqual(BODY, line.read_all())

    def test_chunked_body_is_whole(self) -> None:
        """Chunks have the whole object."""
        line, _, headers = self.get(Chunked(), content=b"hello")
        self.assertEqual("chunked", headers["Transfer-Encoding"])
        self.assertNotIn("Content-Length", headers)
        self.assertEqual(b"5\r\nhello\r\n0\r\n\r\n", line.read(15))

    def test_body_without_length_ends_with_the_connection(self) -> None:
        """Without a length the end of the connection is the end of the body."""
        line, _, headers = self.get(NoLength())
        self.assertNotIn("Content-Length", headers)
        self.assertEqual(BODY, line.read_all())

    def test_encodings_are_on_the_wire(self) -> None:
        """A Content-Encoding wraps the object, and ranges are ignored."""
        line, status, headers = self.get(Encoded("gzip"), headers=("Range: bytes=5-",))
        self.assertEqual((200, "gzip"), (status, headers["Content-Encoding"]))
        self.assertEqual(BODY, gzip.decompress(line.read(int(headers["Content-Length"]))))
        line, _, headers = self.get(Encoded("zstd"))
        body = line.read(int(headers["Content-Length"]))
        self.assertEqual(BODY, zstandard.ZstdDecompressor().decompress(body))

    def test_encoding_may_follow_the_request(self) -> None:
        """With `asked_only` only a client that accepts the coding gets it."""
        _, _, headers = self.get(Encoded("zstd", asked_only=True))
        self.assertNotIn("Content-Encoding", headers)
        _, _, headers = self.get(
            Encoded("zstd", asked_only=True), headers=("Accept-Encoding: br, zstd",)
        )
        self.assertEqual("zstd", headers["Content-Encoding"])
