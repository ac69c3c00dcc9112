"""Trailing digests: a spool waits for them only while they are fast enough."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from twisted.internet.defer import Deferred

from ncps.aio.spool import Spool
from ncps.errors import Corrupt
from ncps.nix.hashes import sha256_of
from ncps.nix.narcheck import NarDigest
from ncps.nix.trailing import MOST_BEHIND, TrailingDigest
from tests.fakes.threads import HeldThreads, InlineThreads
from tests.unit.aio.spool_case import MIB, SpoolCase, noise

P = ParamSpec("P")
R = TypeVar("R")


class BusyThreads(InlineThreads):
    """Threads that make every call immediately, except those of one digest."""

    def __init__(self, digest: object) -> None:
        self._digest = digest

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self._digest in args:
            await Deferred()
        return await super().run(function, *args, **kwargs)


class TrailTests(SpoolCase):
    def setUp(self) -> None:
        super().setUp()
        self.inside = NarDigest("none")
        self.trailing = TrailingDigest(self.inside, None)

    def trailed(self) -> Spool:
        return Spool(
            file=lambda: self.file,
            workers=self.threads,
            digests=(self.digest, self.trailing),
            total=None,
        )

    def flushing(self, spool: Spool) -> Deferred[None]:
        return Deferred.fromCoroutine(spool.flush())

    def test_it_sees_every_byte_in_order(self) -> None:
        """A digest that is fast enough has the hash of all bytes at the end."""
        data = noise(3 * MIB)
        spool = self.trailed()
        for start in range(0, len(data), 300_000):
            self.successResultOf(self.write(data[start : start + 300_000], spool))
        self.successResultOf(self.flushing(spool))
        self.assertEqual((sha256_of(data), len(data)), self.inside.finish())
        spool.release()

    def test_the_end_waits_for_one_that_keeps_pace(self) -> None:
        """Readers get bytes before the digest; `flush` waits until the digest has all."""
        self.threads = held = HeldThreads()
        spool = self.trailed()
        self.successResultOf(self.write(noise(MIB), spool))
        flushing = self.flushing(spool)
        held.release(1)
        self.assertEqual(MIB, spool.length)
        self.assertNoResult(flushing)
        held.release()
        self.successResultOf(flushing)
        self.assertFalse(self.trailing.is_given_up)
        self.assertEqual(MIB, self.inside.finish()[1])
        spool.release()
        held.release()

    def test_nothing_waits_for_one_that_is_too_slow(self) -> None:
        """A slow digest is given up, and its waiting bytes are dropped."""
        self.threads = BusyThreads(self.trailing)
        spool = self.trailed()
        data = noise(MOST_BEHIND + MIB)
        for start in range(0, len(data), MIB):
            self.assertFalse(self.trailing.is_given_up)
            self.successResultOf(self.write(data[start : start + MIB], spool))
        self.assertTrue(self.trailing.is_given_up)
        self.successResultOf(self.flushing(spool))
        self.assertEqual(hashlib.sha256(data).digest(), self.digest.hash.digest())
        spool.commit()
        spool.release()
        self.assertEqual(1, self.file.closed)

    def test_its_error_ends_the_file(self) -> None:
        """An error of the digest ends the spool."""
        self.threads = InlineThreads()
        self.inside = NarDigest("none", max_size=1000)
        self.trailing = TrailingDigest(self.inside, None)
        spool = self.trailed()
        writing = self.write(noise(2000), spool)
        self.failureResultOf(self.flushing(spool), Corrupt)
        self.assertTrue(writing.called)
        writing.addErrback(lambda failure: failure.trap(Corrupt) and None)
        spool.release()

    def test_a_spool_that_has_ended_feeds_no_more(self) -> None:
        """After an error the digest gets no further bytes."""
        self.threads = held = HeldThreads()
        spool = self.trailed()
        self.successResultOf(self.write(noise(1000), spool))
        self.successResultOf(self.write(noise(1000), spool))
        spool.fail(Corrupt("wrong"))
        spool.release()
        held.release()
        self.assertLessEqual(self.inside.finish()[1], 1000)
        self.assertEqual(1, self.file.closed)
