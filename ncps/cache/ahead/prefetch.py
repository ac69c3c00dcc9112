"""Prefetch: fetches ahead what a client that walks a closure will ask for next (D6).

When a client asks for a narinfo that is new here, this module fetches the narinfos of its
references, then the narinfos of their references, and so on. If the policy says so, it fetches
their small NARs as well. All of these requests are guesses (see `ncps.aio.guess`): they have places
of their own at the upstreams, each kind has a bound, and a failure costs no client anything. A
client that asks for a thing while it is being fetched joins that fetch.

Requests of other caches begin nothing: in a mesh of caches, each would guess for the guesses of
the others.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Final

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ncps.aio.guess import guessing
from ncps.cache.ahead.allowance import Allowance
from ncps.cache.ahead.counts import PrefetchCounts
from ncps.cache.ahead.room import NarRoom
from ncps.cache.ahead.rules import OFF, AheadRules
from ncps.cache.ahead.walk import MAX_FAILURES, Walk, Walks, references_in
from ncps.cache.answers import Outcome, ServedNarInfo
from ncps.cache.nar.relay import AlreadyStored
from ncps.cache.nar.serve import Nars
from ncps.cache.narinfo.serve import NarInfos
from ncps.cache.world import World
from ncps.errors import NcpsError, NotFound
from ncps.nix.narurl import NarKey
from ncps.observe.tracing.spans import Step
from ncps.peering import trail
from ncps.ports import NarRecord

JOBS_PER_TURN: Final = 8
"""Jobs that one turn of the reactor begins, at most. A job for a thing that is here already ends in
the same turn."""


class Prefetch:
    """Fetches narinfos and NARs ahead. Its jobs belong to the tasks of the World."""

    _log = Logger()

    def __init__(self, world: World, narinfos: NarInfos, nars: Nars, rules: AheadRules) -> None:
        self._world = world
        self._narinfos = narinfos
        self._nars = nars
        self._rules = rules
        self._walks = Walks(world.clock, rules.max_queue)
        self._questions = Allowance(world.clock, rules.questions)
        self._bytes = Allowance(world.clock, rules.size)
        self._fetching_narinfos = self._fetching_nars = 0
        self._is_filling = False
        self._soon: IDelayedCall | None = None
        self._is_on = rules.policy != OFF
        self._counts = PrefetchCounts(world.metrics)
        self._drop = self._counts.dropped
        self._room = NarRoom(world, rules.most_stored, partial(self._drop, "room", 1))
        world.metrics.prefetch_pending.set_function(lambda: self.pending)

    @property
    def pending(self) -> int:
        """Number of narinfos and NARs that wait to be fetched, or are being fetched."""
        fetching = self._fetching_narinfos + self._fetching_nars
        return self._walks.narinfos + self._walks.nars + fetching

    # Questions of clients

    def narinfo_asked(self, digest: str, served: ServedNarInfo) -> None:
        """Note that a client got a narinfo; queue its references if the narinfo is new here."""
        if not self._is_on or trail.current().names:
            return
        walk = self._asked(digest)
        if walk is None:
            if served.outcome is Outcome.HIT:
                return
            walk = self._walks.begin(digest)
            if walk is None:
                self._drop("queue", 1)
                return
        elif served.outcome is Outcome.HIT:
            return  # its references were queued when it was fetched
        walk.failures = 0
        self._queue(walk, served.text, served.nar)
        self._fill_soon()  # the client's answer goes first

    def asked_again(self, names: Collection[str] | Collection[NarKey]) -> None:
        """Note that clients got narinfos, or asked for NARs."""
        if not self._is_on:
            return
        for name in names:
            self._asked(name)

    def _asked(self, name: str | NarKey) -> Walk | None:
        self._counts.asked(name)
        return self._walks.asked(name)

    def stop(self) -> None:
        """Begin nothing more, because the process ends. Running jobs end with its tasks."""
        self._is_on = False
        soon, self._soon = self._soon, None
        if soon is not None:
            soon.cancel()
        self._drop("stopped", self._walks.end_all())

    # Waiting items

    def _queue(self, walk: Walk, text: bytes, nar: NarRecord | None) -> None:
        """Queue the references of a narinfo, and its NAR."""
        self._drop("queue", self._walks.add_narinfos(walk, references_in(text)))
        if nar is None or nar.is_stored or not self._rules.wants_nar(_size(nar)):
            return
        if not self._walks.add_nar(walk, nar):
            self._drop("queue", 1)

    def _fill_soon(self) -> None:
        if self._soon is None:
            self._soon = self._world.clock.callLater(0, self._fill_now)

    def _fill_now(self) -> None:
        self._soon = None
        self._fill()

    def _fill(self) -> None:
        """Begin as many jobs as may run at the same time."""
        # A job calls this at its end, which may come in the turn that begins the job.
        if self._is_filling or not self._is_on:
            return
        self._is_filling = True
        try:
            self._drop("idle", self._walks.end_idle())
            if not self._world.upstreams.is_reachable():
                self._drop("away", self._walks.end_all())
            if all(self._begin_next() for _ in range(JOBS_PER_TURN)):
                self._fill_soon()
        finally:
            self._is_filling = False

    def _begin_next(self) -> bool:
        """Begin one waiting job, narinfos first; return False if none waits or none may begin."""
        at_once = self._rules.at_once
        if self._fetching_narinfos < at_once and self._begin_narinfo():
            return True
        return self._fetching_nars < at_once and self._begin_nar()

    def _begin_narinfo(self) -> bool:
        """Begin to fetch a narinfo; return False if none waits."""
        waiting = self._walks.next_narinfo()
        if waiting is None:
            return False
        if self._questions.take(1):
            self._fetching_narinfos += 1
            self._world.tasks.start(f"narinfo {waiting[1]} ahead", self._narinfo(*waiting))
        else:
            self._drop("allowance", 1)
        return True

    def _begin_nar(self) -> bool:
        """Begin to fetch a NAR; return False if none waits, or too many bytes are in flight."""
        if self._room.is_taken:
            return False
        waiting = self._walks.next_nar()
        if waiting is None:
            return False
        size = _size(waiting[1]) or 0
        if not self._room.is_beside_clients(size):
            return True
        if not self._bytes.take(size):
            self._drop("allowance", 1)
        else:
            self._fetching_nars += 1
            self._room.in_flight += size
            name = waiting[1].key.file_name
            self._world.tasks.start(f"NAR {name} ahead", self._nar(*waiting, size))
        return True

    # Jobs

    async def _narinfo(self, walk: Walk, digest: str) -> None:
        """Fetch a narinfo; queue its references and its NAR unless that NAR is stored."""
        try:
            with _step(self._world, digest), trail.following(trail.NO_TRAIL), guessing() as guess:
                found = await self._narinfos.fetch_ahead(digest)
            if found is None or found[0].nar.is_stored:
                return  # a client that fetched this NAR has asked for its references, too
            item, outcome = found
            if outcome is Outcome.MISS and not (guess.is_wanted or guess.is_needless):
                self._counts.fetched(digest)
            if walk.failures < MAX_FAILURES:
                self._queue(walk, item.text, item.nar)
        except NcpsError as error:
            self._failed(walk, f"{digest}.narinfo", error)
        except CancelledError:
            self.stop()
            raise
        finally:
            self._fetching_narinfos -= 1
            self._fill()

    async def _nar(self, walk: Walk, nar: NarRecord, size: int) -> None:
        """Fetch a NAR; wait until it is stored or its download has failed.

        It keeps its place until then: more guesses at the same time slow the client's requests.
        """
        try:
            if not await self._room.is_in_store():
                return
            name = nar.key.file_name
            most = max(size, self._rules.small_size)  # to end a small file would cost more
            with _step(self._world, name), trail.following(trail.NO_TRAIL), guessing(most) as guess:
                may_begin = partial(self._room.is_beside_clients, size)
                download = await self._nars.fetch_ahead(nar, may_begin)
                if download is None:
                    return
                await download.ended.wait()
            if download.has_failed:
                self._failed(walk, name, download.arrived.error)
            elif not guess.is_wanted and not download.is_relayed:
                self._counts.fetched(nar.key, download.size or 0)
        except NcpsError as error:
            self._failed(walk, nar.key.file_name, error)
        except CancelledError:
            self.stop()
            raise
        finally:
            self._room.in_flight -= size
            self._fetching_nars -= 1
            self._fill()

    def _failed(self, walk: Walk, what: str, error: BaseException | None) -> None:
        """Note a failure; end a walk that has failed `MAX_FAILURES` times."""
        self._log.debug("{what} is not fetched ahead: {reason}", what=what, reason=str(error))
        if isinstance(error, NotFound | AlreadyStored):
            return
        walk.failures += 1
        if walk.failures >= MAX_FAILURES:
            self._drop("failures", self._walks.end(walk))


def _size(nar: NarRecord) -> int | None:
    """Return the size in bytes of a NAR's file, else of the NAR; None if neither is known."""
    return nar.file_size if nar.file_size is not None else nar.nar_size


def _step(world: World, what: str) -> Step:
    """Begin a separate trace, because the request that led here ends before this work does."""
    return Step(world.tracer.begin("prefetch", attributes={"ncps.hash": what}))
