"""Bodies from S3: resumed after a failure, read ahead within limits, closed for ever."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from ncps.errors import Corrupt, Unavailable
from ncps.storage import keys
from ncps.storage.s3.body import LARGE_READ_SIZE, Ahead, S3Body
from ncps.storage.s3.source import READ_SIZE, S3Source
from tests.contract.running import start
from tests.contract.samples import key_of
from tests.fakes.s3 import Stream, error
from tests.fakes.threads import HeldThreads
from tests.unit.storage.s3.rig import BucketCase

KEY = key_of(1)
WHERE = f"p/{keys.nar_key(KEY)}"
DATA = bytes(range(251)) * 20_000  # twenty pieces, nearly
CUT = 700_000


class BodyCase(BucketCase):
    def setUp(self) -> None:
        super().setUp()
        self.client.put(WHERE, DATA)

    def cut(self, *offsets: int, failure: Exception | None = None) -> None:
        """Make the next answers end after these numbers of bytes."""
        whole = self.client.on_get_object
        for offset in offsets:

            def answer(offset: int = offset, **given: Any) -> Any:
                found = whole(**given)
                data = found["Body"].read()
                found["Body"] = Stream(data[:offset], failure)
                self.client.streams[-1] = found["Body"]
                return found

            self.client.script["get_object"].append(answer)

    async def read(self, begin: int = 0, end: int | None = None) -> bytes:
        body = await self.nars().open(KEY, begin, end)
        try:
            return b"".join([piece async for piece in body])
        finally:
            body.close()

    def assert_all_closed(self) -> None:
        self.assertTrue(self.client.streams)
        self.assertTrue(all(stream.closed for stream in self.client.streams))


class ResumeTests(BodyCase):
    def test_a_body_that_breaks_off_goes_on(self) -> None:
        """A body continues with the rest of the object if bytes came between two failures."""
        for failure in (None, OSError("reset")):
            self.client.calls.clear()
            self.cut(CUT, CUT, failure=failure)
            self.assertEqual(self.successResultOf(start(self.read(5, len(DATA) - 5))), DATA[5:-5])
            self.assertEqual(self.client.calls, ["get_object"] * 3)
            self.assert_all_closed()

    def test_two_failures_in_one_place_are_one_too_many(self) -> None:
        """After two failures at one position the body raises an error."""
        self.cut(CUT, 0)
        self.failureResultOf(start(self.read()), Unavailable)
        self.assert_all_closed()

    def test_a_server_that_stays_away_is_an_error(self) -> None:
        """If the server stays away, the reader gets an error, and the connection is closed."""
        self.cut(CUT)
        self.client.script["get_object"].append(error("SlowDown", 503))
        # The first answer is scripted to be cut, the second to fail.
        self.failureResultOf(start(self.read()), Unavailable)

    def test_another_object_is_never_spliced_in(self) -> None:
        """If the object is replaced, removed or shortened, the body is Corrupt."""
        for spoil in (
            lambda: self.client.put(WHERE, DATA + b"more"),
            lambda: self.client.put(WHERE, DATA[::-1]),
            lambda: self.client.put(WHERE, b"short"),
            lambda: self.client.objects.clear(),
        ):
            self.client.put(WHERE, DATA)
            self.cut(CUT)
            body = self.successResultOf(start(self.nars().open(KEY)))
            spoil()

            async def read(body: S3Body = body) -> None:
                async for _ in body:
                    pass

            self.failureResultOf(start(read()), Corrupt)
            body.close()
            self.assert_all_closed()

    def test_without_tags_the_size_decides(self) -> None:
        """Without an ETag the size decides."""
        whole = self.client.on_get_object

        def untagged(**given: Any) -> Any:
            found = whole(**given)
            del found["ETag"]
            return found

        self.cut(CUT)
        cut = self.client.script["get_object"].pop()
        assert callable(cut)

        def cut_untagged(**given: Any) -> Any:
            found = cut(**given)
            del found["ETag"]
            return found

        self.client.script["get_object"].extend([cut_untagged, untagged])
        body = self.successResultOf(start(self.nars().open(KEY)))
        self.client.put(WHERE, DATA + b"more")

        async def read() -> None:
            async for _ in body:
                pass

        self.failureResultOf(start(read()), Corrupt)

    def test_a_first_read_that_fails_twice_is_raised_by_open(self) -> None:
        """`open` raises the error, before the head of an answer, so the client gets a status."""
        self.cut(0, 0, failure=OSError("reset"))
        self.failureResultOf(start(self.nars().open(KEY)), Unavailable)
        self.assert_all_closed()


class PaceTests(BodyCase):
    """Bodies read one piece ahead, a limited number of them; waiting readers get larger pieces."""

    def setUp(self) -> None:
        super().setUp()
        self.held = HeldThreads()

    def body(self, ahead: Ahead) -> S3Body:
        opened = self.bucket.open(keys.nar_key(KEY))
        source = S3Source(
            opened,
            name="x",
            start=0,
            stop=len(DATA),
            reopen=lambda at: self.bucket.open(keys.nar_key(KEY), at),
        )
        return S3Body(source, first=source.read_blocking(), workers=self.held, ahead=ahead)

    def sizes(self) -> list[int | None]:
        return self.client.streams[-1].sizes

    def next(self, pieces: Any) -> Deferred[bytes]:
        return start(anext(pieces))

    def test_a_slow_reader_is_one_small_piece_behind(self) -> None:
        """For a slow reader, one piece is fetched ahead, and no more."""
        body = self.body(Ahead(1))
        pieces = aiter(body)
        for count in range(1, 5):
            self.assertEqual(len(self.successResultOf(self.next(pieces))), READ_SIZE)
            self.held.release()
            self.assertEqual(self.sizes(), [READ_SIZE] * (count + 1))
        body.close()

    def test_a_quick_reader_gets_larger_pieces(self) -> None:
        """A reader that waits for S3 gets larger pieces, until it is slower than S3."""
        body = self.body(Ahead(1))
        pieces = aiter(body)
        self.successResultOf(self.next(pieces))
        for expected in (READ_SIZE, LARGE_READ_SIZE, LARGE_READ_SIZE):
            waiting = self.next(pieces)
            self.assertNoResult(waiting)
            self.held.release(1)
            self.assertEqual(len(self.successResultOf(waiting)), expected)
        self.held.release()
        self.successResultOf(self.next(pieces))
        self.assertEqual(self.sizes()[-1], LARGE_READ_SIZE)
        self.held.release()
        self.assertEqual(self.sizes()[-1], READ_SIZE)
        body.close()

    def test_only_so_many_read_ahead(self) -> None:
        """Beyond the limit, bodies read on demand; the end of a body makes room."""
        ahead = Ahead(1)
        first, second = self.body(ahead), self.body(ahead)
        ones, twos = aiter(first), aiter(second)
        self.successResultOf(self.next(ones))
        self.successResultOf(self.next(twos))
        self.assertEqual(len(self.held), 1)
        waiting = self.next(twos)
        self.assertEqual(len(self.held), 2)
        self.held.release()
        self.successResultOf(waiting)
        self.assertEqual(len(self.held), 0)
        first.close()
        first.close()
        waiting = self.next(twos)
        self.held.release(1)
        self.successResultOf(waiting)
        self.assertEqual(len(self.held), 1)
        second.close()

    def test_closing_under_a_read_closes_after_it(self) -> None:
        """A reading thread closes the body; its result or error is dropped."""
        for failure in (None, OSError("reset")):
            body = self.body(Ahead(1))
            pieces = aiter(body)
            self.successResultOf(self.next(pieces))
            stream = self.client.streams[-1]
            read = stream.read

            def read_and_be_closed(
                size: int | None = None,
                *,
                body: S3Body = body,
                read: Any = read,
                failure: Exception | None = failure,
                stream: Stream = stream,
            ) -> bytes:
                body.close()
                self.assertEqual(stream.closed, 0)
                if failure is not None:
                    raise failure
                data: bytes = read(size)
                return data

            stream.read = read_and_be_closed  # type: ignore[method-assign]
            self.held.release()
            self.assertGreater(stream.closed, 0)

    def test_a_cancelled_read_ends_the_body(self) -> None:
        """A reader that cancels and closes has closed the connection."""
        body = self.body(Ahead(0))
        pieces = aiter(body)
        self.successResultOf(self.next(pieces))
        waiting = self.next(pieces)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        body.close()
        self.held.release()
        self.assertEqual(self.client.streams[-1].closed, 1)

    def test_a_closed_body_gives_no_more(self) -> None:
        """A closed body yields no more bytes, also during its iteration."""
        body = self.body(Ahead(1))
        pieces = aiter(body)
        self.successResultOf(self.next(pieces))
        body.close()
        self.held.release()
        self.failureResultOf(self.next(pieces), StopAsyncIteration)
        self.assertIs(body.segment(), None)
