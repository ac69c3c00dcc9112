"""Ports whose calls are spans."""

from __future__ import annotations

from collections.abc import AsyncIterator

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.body import PassedBody
from ncps.errors import NotFound, Unavailable
from ncps.nix.narurl import NarKey
from ncps.observe.tracing.calls import CalledLeases, CalledUpstream, called
from ncps.observe.tracing.spans import Step, current
from ncps.ports import Upstream, UpstreamBody
from tests.fakes.catalog import MemoryCatalog
from tests.fakes.leases import MemoryLeases
from tests.fakes.spans import MemorySpan
from tests.fakes.upstream import ScriptedUpstream

KEY = NarKey.parse("0" * 52 + ".nar.xz")


class CalledTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = MemorySpan("root")

    def test_a_call_is_a_span_that_names_its_subject(self) -> None:
        """A NAR by its file, a narinfo by its hash, but no row of the catalog."""
        catalog = called(MemoryCatalog(), "catalog", {"db.system.name": "sqlite"})
        with Step(self.root):
            for call in (catalog.nar(KEY), catalog.narinfo("x" * 32), catalog.totals()):
                self.successResultOf(Deferred.fromCoroutine(call))
        first, second, third = self.root.children
        self.assertEqual(["catalog.nar", "catalog.narinfo"], [first.name, second.name])
        self.assertEqual(KEY.file_name, first.facts["ncps.hash"])
        self.assertEqual("x" * 32, second.facts["ncps.hash"])
        self.assertEqual({"db.system.name": "sqlite"}, third.facts)

    def test_a_lease_that_is_held_is_a_span_too(self) -> None:
        """The span is the wait, not the time for which the lease is held."""
        leases = CalledLeases(MemoryLeases())

        async def work() -> None:
            async with leases.hold("lru"):
                (taken,) = self.root.children
                self.assertTrue(taken.has_ended)
                self.assertIs(self.root, current())

        with Step(self.root):
            self.successResultOf(Deferred.fromCoroutine(work()))
        self.assertEqual("lease.take", self.root.children[0].name)


class _OneBody(ScriptedUpstream):
    """Sends three bytes, and then an error if there is one."""

    def __init__(self, error: Exception | None = None, refusal: Exception | None = None) -> None:
        super().__init__("up")
        self._error = error
        self._refusal = refusal

    async def open_nar(
        self, url: str, *, offset: int = 0, allow_encoding: bool = False
    ) -> UpstreamBody:
        if self._refusal is not None:
            raise self._refusal
        return PassedBody(self._chunks(), lambda: None, start=offset, total=3)

    async def _chunks(self) -> AsyncIterator[bytes]:
        yield b"abc"
        if self._error is not None:
            raise self._error


class CalledUpstreamTests(SynchronousTestCase):
    def read(self, upstream: Upstream, offset: int = 0) -> MemorySpan:
        root = MemorySpan("root")

        async def work() -> None:
            body = await CalledUpstream(upstream).open_nar("nar/x", offset=offset)
            try:
                async for _ in body:
                    self.assertFalse(root.children[0].has_ended)
            finally:
                body.close()

        with Step(root):
            done = Deferred.fromCoroutine(work())
        done.addErrback(lambda _: None)
        self.successResultOf(done)
        return root.children[0]

    def test_the_span_of_a_nar_ends_with_its_body(self) -> None:
        """It has the number of bytes, and says that it was a resume."""
        step = self.read(_OneBody(), offset=7)
        facts = {"ncps.upstream": "up", "ncps.offset": 7, "ncps.is_resume": True, "ncps.bytes": 3}
        self.assertEqual((facts, [], True), (step.facts, step.errors, step.has_ended))

    def test_a_body_that_breaks_off_is_seen(self) -> None:
        """The bytes before the error are counted."""
        error = Unavailable("cut")
        step = self.read(_OneBody(error))
        self.assertEqual(
            ([error], 3, True), (step.errors, step.facts["ncps.bytes"], step.has_ended)
        )

    def test_an_answer_without_a_body_is_seen(self) -> None:
        """The span ends with the error."""
        error = NotFound("no")
        step = self.read(_OneBody(refusal=error))
        self.assertEqual(([error], True), (step.errors, step.has_ended))
