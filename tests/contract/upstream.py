"""The contract of Upstream, for all implementations."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Corrupt, NcpsError, NotFound, Oversized, Unavailable
from ncps.nix.cacheinfo import CacheInfo
from ncps.nix.realisation import Realisation
from ncps.ports import Upstream, UpstreamBody
from tests.contract.realisations import realisation
from tests.fakes.samples import Sample, sample

T = TypeVar("T")

if TYPE_CHECKING:
    Case = SynchronousTestCase
else:
    Case = object  # a mixin is not itself collected


class Origin(Protocol):
    """The cache behind the Upstream, as the contract arranges it."""

    upstream: Upstream

    def add(self, sample: Sample) -> None:
        """Add a store path."""

    def put(self, path: str, data: bytes) -> None:
        """Add an object."""

    def add_realisation(self, realisation: Realisation) -> None:
        """Add a realisation."""

    def spoil(self, sample: Sample) -> None:
        """Answer with a web page where the narinfo should be."""

    def fail(self) -> None:
        """Answer everything with a server error."""

    def cut(self, at: int) -> None:
        """End the next NAR before this byte."""

    def stall(self, at: int) -> None:
        """Send nothing of the next NAR from this byte on."""

    def ignore_ranges(self) -> None:
        """Send whole files, even if a range is requested."""

    def work(self) -> None:
        """Do the work for pending requests."""


class UpstreamCase(Case):
    """A mixin for a test case that has an `origin`."""

    def origin(self) -> Origin:
        raise NotImplementedError

    def setUp(self) -> None:
        self.sample = sample(size=200_000)
        self.there: Origin = self.origin()
        self.there.add(self.sample)
        self.upstream = self.there.upstream

    def ended(self, coro: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        asking = Deferred.fromCoroutine(coro)
        for _ in range(1000):
            if asking.called:
                break
            self.there.work()
        return asking

    def get(self, coro: Coroutine[Deferred[Any], Any, T]) -> T:
        value: T = self.successResultOf(self.ended(coro))
        return value

    def refused(self, coro: Coroutine[Deferred[Any], Any, Any], kind: type[NcpsError]) -> NcpsError:
        error: NcpsError = self.failureResultOf(self.ended(coro), kind).value
        return error

    async def read(self, body: UpstreamBody) -> bytes:
        try:
            return b"".join([chunk async for chunk in body])
        finally:
            body.close()


class UpstreamContract(UpstreamCase):
    """Tests for every Upstream."""

    def test_upstream_introduces_itself(self) -> None:
        """Name and URL show neither credentials nor a final slash."""
        self.assertNotIn("@", self.upstream.name + self.upstream.base_url)
        self.assertFalse(self.upstream.base_url.endswith("/"))
        self.assertIsInstance(self.upstream.priority, int)

    def test_narinfo_is_parsed(self) -> None:
        """A narinfo comes as it was signed."""
        self.assertEqual(self.sample.narinfo, self.get(self.upstream.narinfo(self.sample.digest)))

    def test_absent_narinfo_is_not_found(self) -> None:
        """A narinfo that the upstream does not have is certainly absent."""
        self.refused(self.upstream.narinfo("0" * 32), NotFound)

    def test_realisations_of_both_families_are_parsed(self) -> None:
        """A realisation arrives as it was signed; one that does not exist is certainly absent."""
        for number in (1, 2):
            made = realisation(number)
            self.refused(self.upstream.realisation(made.key), NotFound)
            self.there.add_realisation(made)
            self.assertEqual(made, self.get(self.upstream.realisation(made.key)))

    def test_web_page_is_no_narinfo(self) -> None:
        """The page of a captive portal is an error of that upstream, not an absence."""
        self.there.spoil(self.sample)
        self.refused(self.upstream.narinfo(self.sample.digest), Corrupt)

    def test_server_error_is_unavailable(self) -> None:
        """A failing upstream has not said that a path does not exist."""
        self.there.fail()
        self.refused(self.upstream.narinfo(self.sample.digest), Unavailable)
        self.refused(self.upstream.open_nar(self.sample.url), Unavailable)
        self.refused(self.upstream.stat_nar(self.sample.url), Unavailable)
        self.refused(self.upstream.cache_info(), Unavailable)
        self.refused(self.upstream.realisation(realisation(1).key), Unavailable)

    def test_nar_comes_whole(self) -> None:
        """A NAR is announced with its size and arrives byte for byte."""
        body = self.get(self.upstream.open_nar(self.sample.url))
        size = len(self.sample.file)
        self.assertEqual((0, size, size), (body.start, body.total, body.size))
        self.assertIsNone(body.segment())
        self.assertEqual(self.sample.file, self.get(self.read(body)))

    def test_nar_comes_from_an_offset(self) -> None:
        """A NAR that was interrupted continues at the same byte."""
        body = self.get(self.upstream.open_nar(self.sample.url, offset=100_000))
        size = len(self.sample.file)
        self.assertEqual((100_000, size, size - 100_000), (body.start, body.total, body.size))
        self.assertEqual(self.sample.file[100_000:], self.get(self.read(body)))

    def test_ignored_range_starts_at_zero(self) -> None:
        """A server without ranges sends the whole file, and the body reports this."""
        self.there.ignore_ranges()
        body = self.get(self.upstream.open_nar(self.sample.url, offset=100_000))
        self.assertEqual((0, len(self.sample.file)), (body.start, body.total))
        self.assertEqual(self.sample.file, self.get(self.read(body)))

    def test_absolute_urls_are_taken(self) -> None:
        """A narinfo may have a complete URL for its NAR."""
        url = f"{self.upstream.base_url}/{self.sample.url}"
        body = self.get(self.upstream.open_nar(url))
        self.assertEqual(self.sample.file, self.get(self.read(body)))

    def test_absent_nar_is_not_found(self) -> None:
        """A NAR that does not exist is certainly absent, for every kind of request."""
        self.refused(self.upstream.open_nar("nar/none.nar.xz"), NotFound)
        self.refused(self.upstream.stat_nar("nar/none.nar.xz"), NotFound)

    def test_cut_body_fails_after_what_came(self) -> None:
        """A body that ends too early raises an error after the bytes that arrived."""
        self.there.cut(70_000)
        body = self.get(self.upstream.open_nar(self.sample.url))
        got: list[bytes] = []

        async def read() -> None:
            async for chunk in body:
                got.append(chunk)  # noqa: PERF401 - what came before the failure counts

        self.refused(read(), Unavailable)
        body.close()
        self.assertEqual(self.sample.file[:70_000], b"".join(got))

    def test_body_may_be_closed_at_any_time(self) -> None:
        """Closing is harmless before the first byte, and twice."""
        body = self.get(self.upstream.open_nar(self.sample.url))
        body.close()
        body.close()

    def test_closing_ends_a_wait_for_bytes(self) -> None:
        """Another caller than the reader may close a NAR that has stopped arriving."""
        self.there.stall(70_000)
        body = self.get(self.upstream.open_nar(self.sample.url))
        reading = self.ended(self.read(body))
        self.assertNoResult(reading)
        body.close()
        self.failureResultOf(reading, Unavailable)

    def test_stat_says_the_size(self) -> None:
        """The size is known without a read of the bytes."""
        self.assertEqual(len(self.sample.file), self.get(self.upstream.stat_nar(self.sample.url)))

    def test_text_comes_whole(self) -> None:
        """An object at any path arrives byte for byte; a missing one is certainly absent."""
        self.there.put("log/a+b=c%3Fd.drv", b"hello\xff\n")
        text = self.upstream.text("log/a+b=c%3Fd.drv", 1000)
        self.assertEqual(b"hello\xff\n", self.get(text))
        self.refused(self.upstream.text("log/other.drv", 1000), NotFound)

    def test_large_text_is_not_read_to_its_end(self) -> None:
        """An object of more bytes than the limit is refused."""
        self.there.put("log/large.drv", b"x" * 1001)
        self.refused(self.upstream.text("log/large.drv", 1000), Oversized)
        self.assertEqual(1001, len(self.get(self.upstream.text("log/large.drv", 1001))))

    def test_server_error_is_no_absence_of_a_text(self) -> None:
        """A failing upstream has not said that an object does not exist."""
        self.there.fail()
        self.refused(self.upstream.text("log/any.drv", 1000), Unavailable)

    def test_cache_info_is_parsed(self) -> None:
        """An upstream reports which store it serves."""
        self.assertIsInstance(self.get(self.upstream.cache_info()), CacheInfo)
