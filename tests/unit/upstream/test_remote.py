"""RemoteCache on connections in memory: the contract, and what strange servers do."""

from __future__ import annotations

import re
import zlib
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ncps.codec import encoder
from ncps.errors import Busy, Corrupt, NotFound, Unavailable, Unconfirmed, Unusable
from ncps.nix.narinfo import MAX_SIZE
from ncps.nix.storepath import StorePath
from ncps.peering import trail
from ncps.peering.trail import Trail
from ncps.ports import Upstream
from ncps.settings.schema.upstream import UpstreamsSettings
from ncps.upstream.agent import Client, Timeouts
from ncps.upstream.remote import QUERY_S, AnswerLimits, Observers, RemoteAddress, RemoteCache
from tests.contract.upstream import Origin, UpstreamContract
from tests.fakes.samples import Sample
from tests.fakes.threads import HeldThreads, InlineThreads
from tests.fakes.wire import Line, Wire

BASE = "http://127.0.0.1:8080/sub"
FEW = UpstreamsSettings(max_connections=2, max_queries=2)
_RANGE = re.compile(rb"range: bytes=([0-9]+)-(0?)\r\n", re.IGNORECASE)


class HttpOrigin(Origin):
    """A small HTTP server on `Wire`, and the client to it."""

    def __init__(self, bounds: UpstreamsSettings = FEW, narinfo_size: int = MAX_SIZE) -> None:
        self.wire = Wire()
        self.reached: list[str] = []
        self.client = Client(
            self.wire,
            base_url=BASE,
            timeouts=Timeouts(connect_s=3, first_byte_s=3, idle_s=20),
            bounds=bounds,
            reached=self.reached.append,
        )
        self.fetched: list[int] = []
        self.upstream: Upstream = RemoteCache(
            self.client,
            RemoteAddress(name="127.0.0.1:8080/sub", base_url=BASE + "/", priority=40),
            clock=self.wire,
            workers=InlineThreads(),
            observers=Observers(fetched=self.fetched.append),
            limits=AnswerLimits(narinfo_size=narinfo_size),
        )
        self.files: dict[str, bytes] = {"nix-cache-info": b"StoreDir: /nix/store\nPriority: 30\n"}
        self.requests: list[bytes] = []
        self.status = ""
        self.headers: dict[str, str] = {}
        self.cut_at: int | None = None
        self.stall_at: int | None = None
        self.has_ranges = True
        self.head_status = ""
        self.closes = False

    def add(self, sample: Sample) -> None:
        self.files[f"{sample.digest}.narinfo"] = sample.narinfo.render()
        self.files[sample.url] = sample.file

    def spoil(self, sample: Sample) -> None:
        self.files[f"{sample.digest}.narinfo"] = b"<html>log in</html>"

    def fail(self) -> None:
        self.status = "503 Service Unavailable"

    def cut(self, at: int) -> None:
        self.cut_at = at

    def stall(self, at: int) -> None:
        self.stall_at = at

    def ignore_ranges(self) -> None:
        self.has_ranges = False

    def work(self) -> None:
        if self.wire.pending:
            self.wire.accept()
        for line in self.wire.lines:
            request = line.sent
            if request:
                self.requests.append(request)
                self._respond(line, request)
        self.wire.advance(0)

    def _respond(self, line: Line, request: bytes) -> None:
        method, path, _ = request.decode().split(" ", 2)
        file = self.files.get(path.removeprefix("/sub/"))
        wanted = _RANGE.search(request)
        if self.status:
            line.answer(self.status, b"sorry", **self.headers)
        elif method == "HEAD" and self.head_status:
            line.answer(self.head_status, b"", content_length="0")
        elif self.closes and file is not None:
            ended_by_close(line, file, **self.headers)
        elif file is None:
            line.answer("404 Not Found", b"" if method == "HEAD" else b"no")
        elif method == "HEAD":
            line.answer("200 OK", b"", content_length=str(len(file)), **self.headers)
        elif wanted and self.has_ranges:
            start = int(wanted[1])
            stop = 1 if wanted[2] else len(file)
            extent = f"bytes {start}-{stop - 1}/{len(file)}"
            headers = {"content_range": extent, **self.headers}
            line.answer("206 Partial Content", file[start:stop], **headers)
        elif self.stall_at is not None:
            line.answer("200 OK", file[: self.stall_at], content_length=str(len(file)))
        elif self.cut_at is not None:
            headers = {"content_length": str(len(file)), **self.headers}
            line.answer("200 OK", file[: self.cut_at], **headers)
            line.cut()
        else:
            line.answer(body=file, **self.headers)


def ended_by_close(line: Line, body: bytes, **headers: str) -> None:
    """Answer as HTTP/1.0 did: the end of the connection is the end of the body."""
    lines = ["HTTP/1.0 200 OK", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    line.say("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
    line.end()


class RemoteCacheTests(UpstreamContract, SynchronousTestCase):
    def origin(self) -> Origin:
        self.http = HttpOrigin()
        return self.http

    def open(self, offset: int = 0, **options: Any) -> Any:
        return self.upstream.open_nar(self.sample.url, offset=offset, **options)

    # Status and head

    def test_403_and_410_are_absent_too(self) -> None:
        """S3 says 403 for what is not there, others say 410 for what was."""
        for status in ("403 Forbidden", "410 Gone"):
            self.http.status = status
            self.refused(self.upstream.narinfo(self.sample.digest), NotFound)

    def test_web_page_or_nothing_instead_of_a_narinfo_is_none(self) -> None:
        """An upstream that says so has no narinfo there; garbage may be a narinfo that was cut."""
        target = f"{self.sample.digest}.narinfo"
        for text in (b"<html>log in</html>", b"\n  <!DOCTYPE html>", b"", b" \n"):
            self.http.files[target] = text
            self.refused(self.upstream.narinfo(self.sample.digest), Unusable)
        self.http.files[target] = self.sample.narinfo.render()[:100]
        error = self.refused(self.upstream.narinfo(self.sample.digest), Corrupt)
        self.assertNotIsInstance(error, Unusable)

    def test_refusals(self) -> None:
        """An upstream that wants other credentials says nothing of what it has."""
        for status, kind in (
            ("401 Unauthorized", Unavailable),
            ("407 Proxy Authentication Required", Unavailable),
            ("403 Forbidden", NotFound),
        ):
            self.http.status = status
            self.assertTrue(self.refused(self.upstream.cache_info(), kind).is_refusal)
        self.http.status = "404 Not Found"
        self.assertFalse(self.refused(self.upstream.cache_info(), NotFound).is_refusal)

    def test_absence_that_is_none_to_be_remembered(self) -> None:
        """A cache behind us that could not ask everybody says so."""
        self.http.status = "404 Not Found"
        for mark, is_certain in (
            ("ring", False),
            ("away", False),
            ("unsure", False),
            ("miss", True),
        ):
            self.http.headers = {"x_cache": mark}
            error = self.refused(self.upstream.narinfo(self.sample.digest), NotFound)
            assert isinstance(error, NotFound)
            self.assertEqual(is_certain, error.is_certain)

    def test_trail_is_sent_along(self) -> None:
        """Who is asked learns through which caches the question has come."""
        self.http.status = "404 Not Found"
        with trail.following(Trail(("ncps-0123",))):
            self.refused(self.upstream.narinfo(self.sample.digest), NotFound)
        self.assertIn(b"via: 1.1 ncps-0123, 1.1 ncps", self.http.requests[-1].lower())

    def test_retry_after_is_handed_on(self) -> None:
        """An upstream that asks for a pause is heard."""
        self.http.status = "429 Too Many Requests"
        self.http.headers = {"retry_after": "17"}
        error = self.refused(self.upstream.narinfo(self.sample.digest), Unavailable)
        assert isinstance(error, Unavailable)
        self.assertEqual(17, error.retry_after)

    def test_web_page_instead_of_nar_is_corrupt(self) -> None:
        """A portal's page with status 200 is no NAR, whatever it calls itself; none of it comes."""
        for kind in ("text/HTML; charset=utf-8", "application/x-nix-nar"):
            self.http.headers = {"content_type": kind}
            for page in (
                b"\n<!DOCTYPE html><p>log in",
                b"<HTML>" + b"x" * 100_000,
                b"<?xml ?><a/>",
            ):
                self.http.files[self.sample.url] = page
                body = self.get(self.open())
                self.refused(self.read(body), Corrupt)

    def test_type_of_a_nar_tells_nothing(self) -> None:
        """A NAR that is called text/html is a NAR, also in pieces and from its middle."""
        self.http.headers = {"content_type": "text/html"}
        for offset in (0, 100_000):
            body = self.get(self.open(offset))
            self.assertEqual(self.sample.file[offset:], self.get(self.read(body)))
        for short in (b"", b"<", b"(" * 63):
            self.http.files[self.sample.url] = short
            self.assertEqual(short, self.get(self.read(self.get(self.open()))))

    def test_range_nobody_asked_for_is_corrupt(self) -> None:
        """Bytes from another place than asked for are not taken."""
        for extent in ("bytes 5-9/10", "bytes 100000-1/x", "items 100000-3/4", ""):
            self.http.headers = {"content_range": extent}
            self.refused(self.open(offset=100_000), Corrupt)
        self.http.status = "206 Partial Content"
        self.http.headers = {"content_range": "bytes 0-4/5"}
        self.refused(self.open(), Corrupt)

    def test_range_of_unknown_total(self) -> None:
        """A server may not know the whole size."""
        self.http.headers = {"content_range": f"bytes 100000-{len(self.sample.file) - 1}/*"}
        body = self.get(self.open(offset=100_000))
        self.assertEqual((100_000, None, None), (body.start, body.total, body.size))
        body.close()

    def test_offset_beyond_the_end_is_corrupt(self) -> None:
        """A file that ends before the bytes there are is another file."""
        self.http.status = "416 Range Not Satisfiable"
        self.refused(self.open(offset=100_000), Corrupt)

    def test_offset_at_the_very_end_is_the_end(self) -> None:
        """A cut at the end of a file of unknown size was no cut: a server says so by 416."""
        self.http.status = "416 Range Not Satisfiable"
        self.http.headers = {"content_range": "bytes */100000"}
        body = self.get(self.open(offset=100_000))
        self.assertEqual((100_000, 100_000), (body.start, body.total))
        self.assertEqual(b"", self.get(self.read(body)))
        body.close()

    def test_partial_answer_with_encoding_is_corrupt(self) -> None:
        """A piece of a compressed stream is of no use."""
        self.http.headers = {"content_encoding": "gzip"}
        self.refused(self.open(offset=100_000), Corrupt)

    def test_nar_urls_that_lead_elsewhere(self) -> None:
        """URLs that are not HTTP are the narinfo's fault."""
        for url in ("ftp://h/x", "file:///etc/passwd", "http://["):
            self.refused(self.upstream.open_nar(url), Corrupt)
            self.refused(self.upstream.stat_nar(url), Corrupt)
        self.assertEqual([], self.http.requests)
        secure = RemoteCache(
            self.http.client,
            RemoteAddress(name="s", base_url="https://h", priority=1),
            clock=self.http.wire,
            workers=InlineThreads(),
        )
        self.refused(secure.open_nar("http://h/nar/x"), Corrupt)

    def test_query_of_a_nar_url_is_kept(self) -> None:
        """What stands behind the question mark belongs to the URL."""
        self.http.files[self.sample.url + "?hash=a%2Fb"] = self.sample.file
        body = self.get(self.upstream.open_nar(self.sample.url + "?hash=a%2Fb"))
        self.assertEqual(self.sample.file, self.get(self.read(body)))

    def test_long_narinfos_are_read_in_a_thread(self) -> None:
        """The reactor's thread has other things to do meanwhile."""
        threads = HeldThreads()
        self.http.upstream = self.upstream = RemoteCache(
            self.http.client,
            RemoteAddress(name="h", base_url=BASE, priority=1),
            clock=self.http.wire,
            workers=threads,
        )
        paths = [StorePath(f"{n:032d}", "reference") for n in range(2000)]
        narinfo = evolve(self.sample.narinfo, references=paths)
        self.http.files[f"{self.sample.digest}.narinfo"] = narinfo.render()
        asking = self.ended(self.upstream.narinfo(self.sample.digest))
        self.assertNoResult(asking)
        threads.release()
        self.assertEqual(narinfo, self.successResultOf(asking))
        self.http.files[f"{self.sample.digest}.narinfo"] = b"x" * 100_000
        asking = self.ended(self.upstream.narinfo(self.sample.digest))
        threads.release()
        self.failureResultOf(asking, Corrupt)

    # HEAD

    def test_refused_head_is_asked_by_get(self) -> None:
        """An upstream that serves GET alone, or addresses signed for it, tells a size all the same.

        One byte is asked for, and what is not there is absent.
        """
        for status in ("403 Forbidden", "405 Not Allowed", "501 Not Implemented", "400 Bad"):
            self.http.head_status = status
            for has_ranges in (True, False):
                self.http.has_ranges = has_ranges
                size = self.get(self.upstream.stat_nar(self.sample.url))
                self.assertEqual(len(self.sample.file), size, status)
                self.assertIn(b"Range: bytes=0-0\r\n", self.http.requests[-1])
            self.refused(self.upstream.stat_nar("nar/none.nar.xz"), NotFound)

    def test_other_answers_to_head_are_believed(self) -> None:
        """A server that fails, or has not the NAR, is not asked a second time."""
        for status, kind in (("404 Not Found", NotFound), ("503 Busy", Unavailable)):
            self.http.head_status = status
            before = len(self.http.requests)
            self.refused(self.upstream.stat_nar(self.sample.url), kind)
            self.assertEqual(before + 1, len(self.http.requests))

    # Ends that only the content confirms

    def test_narinfo_ended_by_close_is_whole_if_it_parses(self) -> None:
        """A server of HTTP/1.0 has narinfos; what may be a piece of one is "could not tell"."""
        self.http.closes = True
        self.assertEqual(self.sample.narinfo, self.get(self.upstream.narinfo(self.sample.digest)))
        self.get(self.upstream.cache_info())
        path = f"{self.sample.digest}.narinfo"
        whole = self.http.files[path]
        for end in (0, 20, whole.index(b"NarHash"), len(whole) - 1):
            self.http.files[path] = whole[:end]
            self.refused(self.upstream.narinfo(self.sample.digest), Unavailable)

    def test_nar_ended_by_close_is_for_its_reader_to_judge(self) -> None:
        """All bytes come, and then the doubt."""
        self.http.closes = True
        body = self.get(self.open())
        got: list[bytes] = []

        async def read() -> None:
            async for chunk in body:
                got.append(chunk)  # noqa: PERF401 - what came before the doubt counts

        self.refused(read(), Unconfirmed)
        body.close()
        self.assertEqual((None, self.sample.file), (body.total, b"".join(got)))

    def test_encoding_that_ends_confirms_the_end(self) -> None:
        """A compressed stream knows its end; one that is cut is broken off, and not wrong."""
        self.http.closes = True
        for name in ("zstd", "gzip", "deflate"):
            self.http.headers = {"content_encoding": name}
            self.http.files[self.sample.url] = self.compressed(name)
            body = self.get(self.open(allow_encoding=True))
            self.assertEqual(self.sample.nar, self.get(self.read(body)))
            self.http.files[self.sample.url] = self.compressed(name)[:-5]
            body = self.get(self.open(allow_encoding=True))
            self.refused(self.read(body), Unconfirmed)

    # Encodings on the wire

    def compressed(self, name: str = "zstd") -> bytes:
        if name == "deflate":
            return zlib.compress(self.sample.nar)
        maker = encoder(name)
        return maker.feed(self.sample.nar) + maker.finish()

    def test_wire_encoding_is_undone(self) -> None:
        """A NAR that is compressed only on the wire arrives as it is, of unknown total."""
        for name in ("zstd", "gzip", "br", "xz", "bzip2", "deflate"):
            data = self.compressed(name)
            self.http.files[self.sample.url] = data
            self.http.headers = {"content_encoding": name}
            self.http.fetched.clear()
            body = self.get(self.open(allow_encoding=True))
            self.assertIsNone(body.total)
            self.assertEqual(self.sample.nar, self.get(self.read(body)))
            self.assertEqual(len(data), sum(self.http.fetched))

    def test_narinfos_are_freed_of_deflate(self) -> None:
        """Both things that servers call deflate are undone, and an end too early is noticed."""
        self.http.headers = {"content_encoding": "deflate"}
        path, text = f"{self.sample.digest}.narinfo", self.sample.narinfo.render()
        bare = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        for data in (zlib.compress(text), bare.compress(text) + bare.flush()):
            self.http.files[path] = data
            self.assertEqual(
                self.sample.narinfo, self.get(self.upstream.narinfo(self.sample.digest))
            )
            for wrong in (data[:-5], data + b"more", data[:1], b""):
                self.http.files[path] = wrong
                self.refused(self.upstream.narinfo(self.sample.digest), Corrupt)

    def test_encoding_is_asked_for_only_where_welcome(self) -> None:
        """Only uncompressed NARs, from their start, may be compressed on the wire."""
        for offset, allowed, expected in (
            (0, True, b"zstd"),
            (0, False, b"identity"),
            (5, True, b"identity"),
        ):
            self.get(self.open(offset=offset, allow_encoding=allowed)).close()
            self.assertIn(b"Accept-Encoding: " + expected, self.http.requests[-1])

    def test_broken_encoding_is_corrupt(self) -> None:
        """A stream that breaks off inside its compression is noticed, and so is an unknown one."""
        self.http.headers = {"content_encoding": "zstd"}
        self.http.files[self.sample.url] = self.compressed()[:-9]
        body = self.get(self.open(allow_encoding=True))
        self.refused(self.read(body), Corrupt)
        self.http.headers = {"content_encoding": "sdch"}
        self.refused(self.read(self.get(self.open())), Corrupt)

    def test_encoded_narinfo_is_read(self) -> None:
        """A narinfo may come compressed, too."""
        name = f"{self.sample.digest}.narinfo"
        maker = encoder("gzip")
        self.http.files[name] = maker.feed(self.http.files[name]) + maker.finish()
        self.http.headers = {"content_encoding": "x-gzip"}
        self.assertEqual(self.sample.narinfo, self.get(self.upstream.narinfo(self.sample.digest)))

    def test_size_of_an_encoded_nar_is_unknown(self) -> None:
        """The size on the wire is not the size of the NAR."""
        self.http.headers = {"content_encoding": "zstd"}
        self.assertIsNone(self.get(self.upstream.stat_nar(self.sample.url)))

    # Limits

    def test_endless_narinfo_is_cut(self) -> None:
        """A narinfo of ten megabytes is not read to its end, also when it unfolds to that."""
        name = f"{self.sample.digest}.narinfo"
        self.http.files[name] = b"x" * 10_000_000
        self.refused(self.upstream.narinfo(self.sample.digest), Corrupt)
        maker = encoder("zstd")
        self.http.files[name] = maker.feed(b"x" * 100_000_000) + maker.finish()
        self.http.headers = {"content_encoding": "zstd"}
        self.refused(self.upstream.narinfo(self.sample.digest), Corrupt)

    def bounded(self, narinfo_size: int = MAX_SIZE, **bounds: Any) -> None:
        """Go on with an origin whose client has these bounds."""
        self.http = self.there = HttpOrigin(UpstreamsSettings(**bounds), narinfo_size)
        self.http.add(self.sample)
        self.upstream = self.http.upstream

    def test_size_of_a_narinfo_is_a_setting(self) -> None:
        """An operator may believe smaller narinfos only."""
        size = len(self.sample.narinfo.render())
        self.bounded(narinfo_size=size)
        self.assertEqual(self.sample.narinfo, self.get(self.upstream.narinfo(self.sample.digest)))
        self.bounded(narinfo_size=size - 1)
        self.refused(self.upstream.narinfo(self.sample.digest), Corrupt)
        self.assertEqual(["cache-narinfo-max-size"], self.http.reached)

    def test_bomb_on_the_wire_is_broken_off(self) -> None:
        """An encoding that nobody asked for may not make much of little."""
        maker = encoder("zstd")
        bomb = b"".join(maker.feed(bytes(1024 * 1024)) for _ in range(70)) + maker.finish()
        self.http.files[self.sample.url] = bomb
        self.http.headers = {"content_encoding": "zstd"}
        self.refused(self.read(self.get(self.open())), Corrupt)
        self.assertEqual(["cache-max-decompression-ratio"], self.http.reached)
        asked_for = self.get(self.read(self.get(self.open(allow_encoding=True))))
        self.assertEqual(70 * 1024 * 1024, len(asked_for))  # the core knows its size

    def test_full_queue_is_told_at_once(self) -> None:
        """More than so many do not wait, for NARs and for small things each."""
        self.bounded(max_connections=1, max_queries=1, max_queue=1)
        held = self.get(self.open())
        for make, name in ((self.open, "NAR"), (self.upstream.cache_info, "query")):
            waiting = [Deferred.fromCoroutine(make()) for _ in range(3)]
            refused = [d for d in waiting if isinstance(getattr(d, "result", None), Failure)]
            self.assertEqual(1 if name == "query" else 2, len(refused), name)
            for asking in refused:
                self.assertIn(name, str(self.failureResultOf(asking, Busy).value))
            for asking in set(waiting) - set(refused):
                asking.cancel()
                self.failureResultOf(asking, CancelledError)
        self.assertEqual(["cache-upstream-max-queue"] * 3, self.http.reached)
        held.close()

    def test_waiting_for_a_slot_is_bounded(self) -> None:
        """Who has waited too long for a slot is told that we are busy, not that it is away."""
        self.bounded(max_connections=1, queue_timeout_s=10)
        held = self.get(self.open())
        waiting = Deferred.fromCoroutine(self.open())
        self.http.wire.advance(9)
        self.assertNoResult(waiting)
        self.http.wire.advance(1)
        self.failureResultOf(waiting, Busy)
        self.assertEqual(["cache-upstream-queue-timeout"], self.http.reached)
        held.close()
        self.get(self.open()).close()

    def test_nars_do_not_hold_up_narinfos(self) -> None:
        """With every place for NARs taken, a narinfo is fetched all the same."""
        self.bounded(max_connections=1, max_queries=1)
        held = self.get(self.open())
        self.get(self.upstream.narinfo(self.sample.digest))
        self.get(self.upstream.stat_nar(self.sample.url))
        held.close()

    def test_nonsense_cache_info_is_corrupt(self) -> None:
        """An upstream's introduction has to make sense."""
        self.http.files["nix-cache-info"] = b"<html>"
        self.refused(self.upstream.cache_info(), Corrupt)

    def test_trickling_narinfo_is_given_up(self) -> None:
        """A byte now and then does not hold a query for ever."""
        asking = Deferred.fromCoroutine(self.upstream.narinfo(self.sample.digest))
        line = self.http.wire.accept()
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        for _ in range(int(QUERY_S) - 1):
            self.http.wire.advance(1)
            line.say(b"x")
        self.assertNoResult(asking)
        self.http.wire.advance(1)
        self.assertTrue(self.failureResultOf(asking, Unavailable).value.timed_out)
        self.assertFalse(line.is_up)

    def test_queries_are_bounded(self) -> None:
        """A thousand questions at once are asked a few at a time."""
        asking = [Deferred.fromCoroutine(self.upstream.cache_info()) for _ in range(50)]
        self.assertEqual(2, self.http.wire.attempts)
        for query in asking[2:10]:  # who leaves while waiting leaves its place, too
            query.cancel()
            self.failureResultOf(query, CancelledError)
        for _ in range(100):
            self.http.work()
        for query in asking[:2] + asking[10:]:
            self.successResultOf(query)
        self.assertEqual(2, self.http.wire.attempts)

    def test_transfers_are_bounded_and_give_their_place_back(self) -> None:
        """A place among the transfers is given back with the body, whatever became of it."""
        for _ in range(3):
            self.get(self.open()).close()
            self.refused(self.upstream.open_nar("nar/none"), NotFound)
            self.refused(self.upstream.open_nar("http://["), Corrupt)
            cancelled = Deferred.fromCoroutine(self.open())
            cancelled.cancel()
            self.failureResultOf(cancelled, CancelledError)
        first, second = self.get(self.open()), self.get(self.open())
        third = Deferred.fromCoroutine(self.open())
        waiting = Deferred.fromCoroutine(self.open())
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        for _ in range(5):
            self.http.work()
        self.assertNoResult(third)
        first.close()
        first.close()
        for _ in range(5):
            self.http.work()
        self.successResultOf(third).close()
        second.close()
        self.assertEqual(2, self.http.client.transfers.free)

    def test_body_closed_in_the_middle_ends_its_connection(self) -> None:
        """A NAR that nobody wants any more is not fetched to its end."""
        opening = Deferred.fromCoroutine(self.open())
        line = self.http.wire.accept()
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nabc")
        self.successResultOf(opening).close()
        self.assertFalse(line.is_up)
