"""RemoteCache on connections in memory: the contract, and strange servers."""

from __future__ import annotations

from attrs import evolve

from ncps.errors import Corrupt, NotFound, Unavailable, Unconfirmed, Unusable
from ncps.nix.realisation import MAX_SIZE
from ncps.nix.storepath import StorePath
from ncps.peering import trail
from ncps.peering.trail import Trail
from ncps.upstream.remote import RemoteAddress, RemoteCache
from tests.contract.realisations import realisation
from tests.contract.upstream import UpstreamContract
from tests.fakes.threads import HeldThreads, InlineThreads
from tests.unit.upstream.rig import BASE, LIMITS, RemoteCase


class RemoteCacheTests(RemoteCase, UpstreamContract):
    # Status and head

    def test_403_and_410_are_absent_too(self) -> None:
        """S3 says 403 for an object that does not exist; others say 410 for a deleted one."""
        for status in ("403 Forbidden", "410 Gone"):
            self.http.status = status
            self.refused(self.upstream.narinfo(self.sample.digest), NotFound)

    def test_web_page_or_nothing_instead_of_a_narinfo_is_none(self) -> None:
        """Such an upstream has no narinfo there; garbage may be a truncated narinfo."""
        target = f"{self.sample.digest}.narinfo"
        for text in (b"<html>log in</html>", b"\n  <!DOCTYPE html>", b"", b" \n"):
            self.http.files[target] = text
            self.refused(self.upstream.narinfo(self.sample.digest), Unusable)
        self.http.files[target] = self.sample.narinfo.render()[:100]
        error = self.refused(self.upstream.narinfo(self.sample.digest), Corrupt)
        self.assertNotIsInstance(error, Unusable)

    def test_refusals(self) -> None:
        """An upstream that wants other credentials does not say whether it has a path."""
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
        """A cache that could not ask all its upstreams says so."""
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
        """An upstream learns the caches that the question has come through."""
        self.http.status = "404 Not Found"
        with trail.following(Trail(("ncps-0123",))):
            self.refused(self.upstream.narinfo(self.sample.digest), NotFound)
        self.assertIn(b"via: 1.1 ncps-0123, 1.1 ncps", self.http.requests[-1].lower())

    def test_retry_after_is_handed_on(self) -> None:
        """An upstream's request for a pause is respected."""
        self.http.status = "429 Too Many Requests"
        self.http.headers = {"retry_after": "17"}
        error = self.refused(self.upstream.narinfo(self.sample.digest), Unavailable)
        assert isinstance(error, Unavailable)
        self.assertEqual(17, error.retry_after)

    def test_web_page_instead_of_nar_is_corrupt(self) -> None:
        """A portal's page with status 200 is no NAR, whatever its type; none of it is passed on."""
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

    def test_content_type_of_a_nar_is_ignored(self) -> None:
        """A NAR with the type text/html is a NAR, also in pieces and from its middle."""
        self.http.headers = {"content_type": "text/html"}
        for offset in (0, 100_000):
            body = self.get(self.open(offset))
            self.assertEqual(self.sample.file[offset:], self.get(self.read(body)))
        for short in (b"", b"<", b"(" * 63):
            self.http.files[self.sample.url] = short
            self.assertEqual(short, self.get(self.read(self.get(self.open()))))

    def test_range_that_was_not_asked_for_is_corrupt(self) -> None:
        """Bytes from another offset than asked for are refused."""
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
        """A file that ends before the bytes that are here is another file."""
        self.http.status = "416 Range Not Satisfiable"
        self.refused(self.open(offset=100_000), Corrupt)

    def test_offset_at_the_very_end_is_the_end(self) -> None:
        """A cut at the end of a file of unknown size was none: the server answers 416."""
        self.http.status = "416 Range Not Satisfiable"
        self.http.headers = {"content_range": "bytes */100000"}
        body = self.get(self.open(offset=100_000))
        self.assertEqual((100_000, 100_000), (body.start, body.total))
        self.assertEqual(b"", self.get(self.read(body)))
        body.close()

    def test_partial_answer_with_encoding_is_corrupt(self) -> None:
        """A part of a compressed stream is useless."""
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
            metrics=self.http.metrics,
            limits=LIMITS,
        )
        self.refused(secure.open_nar("http://h/nar/x"), Corrupt)

    def test_query_of_a_nar_url_is_kept(self) -> None:
        """The query belongs to the URL."""
        self.http.files[self.sample.url + "?hash=a%2Fb"] = self.sample.file
        body = self.get(self.upstream.open_nar(self.sample.url + "?hash=a%2Fb"))
        self.assertEqual(self.sample.file, self.get(self.read(body)))

    def test_long_narinfos_are_read_in_a_thread(self) -> None:
        """This leaves the reactor's thread free."""
        threads = HeldThreads()
        self.http.upstream = self.upstream = RemoteCache(
            self.http.client,
            RemoteAddress(name="h", base_url=BASE, priority=1),
            clock=self.http.wire,
            workers=threads,
            metrics=self.http.metrics,
            limits=LIMITS,
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
        """An upstream that serves only GET, or URLs signed for it, says a size nevertheless.

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
        """A server that fails, or does not have the NAR, is not asked a second time."""
        for status, kind in (("404 Not Found", NotFound), ("503 Busy", Unavailable)):
            self.http.head_status = status
            before = len(self.http.requests)
            self.refused(self.upstream.stat_nar(self.sample.url), kind)
            self.assertEqual(before + 1, len(self.http.requests))

    # Ends that only the content confirms

    def test_narinfo_ended_by_close_is_whole_if_it_parses(self) -> None:
        """HTTP/1.0 may carry narinfos; a text that may be truncated is "could not tell"."""
        self.http.closes = True
        self.assertEqual(self.sample.narinfo, self.get(self.upstream.narinfo(self.sample.digest)))
        self.get(self.upstream.cache_info())
        path = f"{self.sample.digest}.narinfo"
        whole = self.http.files[path]
        for end in (0, 20, whole.index(b"NarHash"), len(whole) - 1):
            self.http.files[path] = whole[:end]
            self.refused(self.upstream.narinfo(self.sample.digest), Unavailable)

    def test_realisation_ended_by_close_is_whole_if_it_parses(self) -> None:
        """The same for realisations; a web page or nothing in its place counts as none."""
        made = realisation(1)
        self.http.closes = True
        self.http.add_realisation(made)
        self.assertEqual(made, self.get(self.upstream.realisation(made.key)))
        path, whole = f"{made.key.path}.doi", made.render()
        for end in (0, 20, len(whole) - 1):
            self.http.files[path] = whole[:end]
            self.refused(self.upstream.realisation(made.key), Unavailable)
        self.http.closes = False
        for text in (b"<html>", b""):
            self.http.files[path] = text
            self.refused(self.upstream.realisation(made.key), Unusable)

    def test_realisation_of_another_output_is_none(self) -> None:
        """The id in the text counts, and endless ones are not read to their end."""
        one, other = realisation(2), realisation(4)
        self.http.files[f"{one.key.path}.doi"] = other.render()
        self.refused(self.upstream.realisation(one.key), Corrupt)
        self.http.files[f"{one.key.path}.doi"] = b" " * (MAX_SIZE + 1)
        self.refused(self.upstream.realisation(one.key), Corrupt)

    def test_nar_ended_by_close_is_for_its_reader_to_judge(self) -> None:
        """All bytes are passed on, and then Unconfirmed is raised."""
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
        """A compressed stream marks its end; a truncated one is broken off, and not wrong."""
        self.http.closes = True
        for name in ("zstd", "gzip", "deflate"):
            self.http.headers = {"content_encoding": name}
            self.http.files[self.sample.url] = self.compressed(name)
            body = self.get(self.open(allow_encoding=True))
            self.assertEqual(self.sample.nar, self.get(self.read(body)))
            self.http.files[self.sample.url] = self.compressed(name)[:-5]
            body = self.get(self.open(allow_encoding=True))
            self.refused(self.read(body), Unconfirmed)
