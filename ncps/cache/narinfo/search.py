"""Search: asks the upstreams for a narinfo once, for all requests that wait for it.

Each answer is verified before it is used. Each narinfo has one search, also in a ring of caches.

A cache that asks us may be a cache that we ask, directly or through others. If both waited for each
other, each would wait until a deadline. The trail of a question (see `ncps.peering.trail`) names
the caches through which the question has come:

    the trail has our own name                 ask no upstream
    a search with the same trail runs          join that search
    a search for the same question runs,       ask no upstream: that search takes the answer to the
    with another trail                         first cache
    a search for another question runs         join that search; if it may be waiting for us, join
                                               it for a moment only, and then begin another
    no search runs                             begin one

So a search goes to each cache once. A client's question waits for any search without a limit. The
question of another cache waits so only for a search that began at a cache with a later name in the
alphabet. So searches never wait for each other in a circle.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Any, Final, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from ncps.aio.clocks import utc_now
from ncps.aio.guess import Guess, is_unwanted, note_needless
from ncps.aio.guess import current as current_guess
from ncps.aio.recent import RecentMap
from ncps.aio.single_flight import SingleFlight
from ncps.aio.tasks import Tasks
from ncps.aio.waiting import within
from ncps.ask.health import Candidate
from ncps.ask.policy import AllAway, verdict
from ncps.cache.answers import Absent, Outcome
from ncps.cache.narinfo.naming import named
from ncps.cache.narinfo.record import Records
from ncps.cache.narinfo.state import CacheState, KnownNarInfo
from ncps.cache.narinfo.verify import NarInfoVerifier, Vetted
from ncps.cache.world import World
from ncps.errors import Corrupt, NcpsError, NotFound, Unavailable
from ncps.nix.narinfo import NarInfo
from ncps.observe.tracing.spans import NO_SPAN, Span, current, span
from ncps.peering import trail
from ncps.peering.trail import Trail
from ncps.ports import Blocked, Leases, NarInfoEntry, NarRecord, Upstream

T = TypeVar("T")
Names = tuple[str, ...]

MOMENT_S = 0.25
"""Seconds for which a request joins a search that may be waiting for us."""

MEANWHILE_S = 0.005
"""Seconds for which a look at the catalog counts as fresh, so that it is not repeated."""

PROOFS_S = 15.0
"""Seconds after the first question for which other upstreams may be asked for bytes to read."""

UNPROVEN_S: Final = 60.0
"""Seconds for which a narinfo found by a guess waits for a client, if its bytes must prove it."""

MAX_UNPROVEN: Final = 1000
"""Number of such narinfos, at most; also the number of references that each may have."""


class Searches(Generic[T]):
    """Joins searches, and begins them.

    :param kind: the kind of thing that the searches look for; `digest` names one such thing.
    """

    def __init__(self, clock: IReactorTime, tasks: Tasks, kind: str = "narinfo") -> None:
        self._clock = clock
        self._kind = kind
        self._flights: SingleFlight[tuple[str, Names], T] = SingleFlight(tasks, kind)
        self._running: dict[str, dict[Names, Trail]] = {}
        self._spans: dict[tuple[str, Names], Span] = {}

    def __contains__(self, digest: str) -> bool:
        return digest in self._running

    async def join(self, digest: str, job: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Wait for the search for a narinfo; begin one unless a search runs that may be joined.

        Raises Absent (RING) if no upstream may be asked, else the errors of the job.
        """
        question = trail.current()
        ours = question.names
        if question.has_come_round:
            raise in_ring(digest)
        running = self._running.get(digest, {})
        if running and ours not in running:
            if any(question.is_other_way_of(other) for other in running.values()):
                raise in_ring(digest)
            other = next(iter(running))
            self._link(digest, other)
            waiting = self._flights.join((digest, other), job)
            if ours and not (other and ours[0] < other[0]):
                waiting = within(self._clock, MOMENT_S, waiting)
            try:
                return await waiting
            except DeferredTimeout:
                pass
            except NotFound as error:
                # The absence is not sure: a search with our trail may get another answer.
                if error.is_certain:
                    raise
        self._link(digest, ours)
        return await self._flights.join((digest, ours), lambda: self._run(digest, ours, job))

    def _link(self, digest: str, names: Names) -> None:
        """Link the span of a question that joins a search to the span of that search."""
        current().link(self._spans.get((digest, names), NO_SPAN))

    async def _run(self, digest: str, ours: Names, job: Callable[[], Coroutine[Any, Any, T]]) -> T:
        running = self._running.setdefault(digest, {})
        with trail.asking(), span(f"{self._kind}.search", {"ncps.hash": digest}) as step:
            running[ours] = trail.current()
            self._spans[digest, ours] = step
            try:
                return await job()
            finally:
                del running[ours], self._spans[digest, ours]
                if not running:
                    del self._running[digest]


def in_ring(what: str) -> Absent:
    """Return the error for a thing that is not stored, if this cache itself began the question."""
    return Absent(f"{what} is not stored, and this cache itself asked for it", outcome=Outcome.RING)


@asynccontextmanager
async def turn(leases: Leases, clock: IReactorTime, name: str) -> AsyncIterator[bool]:
    """Hold a lease, so that one of several replicas searches. Raises Unavailable as `Leases`.

    Yields whether the lease was there in the same turn of the reactor, so that nothing can have
    changed. A search that began at another cache waits for the lease only for `MOMENT_S`, and then
    continues without it: the search that holds the lease may be waiting for this one.
    """
    if not trail.current().names:
        taking = Deferred.fromCoroutine(leases.take(name))
        is_instant = taking.called
        lease = await taking
        try:
            yield is_instant
        finally:
            await lease.release()
        return
    try:
        lease = await within(clock, MOMENT_S, leases.take(name))
    except DeferredTimeout:
        yield False
        return
    try:
        yield False
    finally:
        await lease.release()


class PathUnknown(Unavailable):
    """No upstream can be asked for the narinfo of a NAR, because none of its paths is known."""


class Questions:
    """Asks the upstreams for narinfos.

    :param is_absent_when_away: whether a narinfo that no upstream could be asked for is absent;
        else it is Unavailable.
    """

    def __init__(
        self,
        world: World,
        state: CacheState,
        vetting: NarInfoVerifier,
        *,
        is_absent_when_away: bool,
    ) -> None:
        self._clock = world.clock
        self._catalog = world.catalog
        self._upstreams = world.upstreams
        self._memory = state.memory
        self._negatives = state.negatives
        self._doubts = state.doubts
        self._paths = state.paths
        self._vetting = vetting
        self._is_absent_when_away = is_absent_when_away

    async def first(self, digest: str, failures: dict[str, NcpsError]) -> Vetted:
        """Ask for a narinfo; ask upstreams in doubt about the path only if no other has it.

        Raises NotFound, Unavailable or Corrupt if no upstream has a good one.

        :param failures: the errors of upstreams whose narinfo was found wrong, by base URL. These
            upstreams are not asked again.
        """
        what, ask = f"{digest}.narinfo", partial(self._ask, digest=digest)
        doubted = self._doubts.about(digest)
        try:
            if doubted:
                try:
                    found = await self._upstreams.first(what, ask, without={*doubted, *failures})
                except (NotFound, Corrupt):
                    pass
                else:
                    return found.value
            return (await self._upstreams.first(what, ask, without=failures)).value
        except NcpsError as error:
            left_out = ["others"] if isinstance(error, AllAway) else []
            final = verdict({**failures, "others": error}, what, left_out) if failures else error
            if isinstance(final, AllAway) and self._is_absent_when_away:
                raise Absent(str(final), outcome=Outcome.AWAY) from error
            if not isinstance(final, NotFound):
                raise final from error
            if not final.is_certain:
                raise Absent(str(final), outcome=Outcome.UNSURE) from error
            self._negatives.add(digest)
            raise Absent(str(final), outcome=Outcome.MISS) from error

    async def beyond_doubt(self, digest: str) -> Vetted:
        """Ask the upstreams whose narinfos of a path are not in doubt.

        Raises NotFound, Unavailable or Corrupt if none of them has a good one.
        """
        what, ask = f"{digest}.narinfo", partial(self._ask, digest=digest)
        doubted = self._doubts.about(digest)
        return (await self._upstreams.first(what, ask, without=doubted)).value

    def distrust(self, entry: NarInfoEntry, error: NcpsError) -> None:
        """Doubt the upstream of a narinfo that was found wrong, and report it."""
        self._doubts.add(entry.digest, entry.upstream)
        self._upstreams.blame(entry.upstream, f"{entry.digest}.narinfo", error)

    async def _ask(self, upstream: Upstream, digest: str) -> Vetted:
        narinfo = await upstream.narinfo(digest)
        now = utc_now(self._clock)
        vetted = await self._vetting.judged(narinfo, digest, upstream.base_url, now)
        await self._check_known(narinfo, now)
        return vetted

    async def _check_known(self, narinfo: NarInfo, now: datetime) -> None:
        """Raise Corrupt if the narinfo's file was found to have another NAR inside."""
        if narinfo.file_hash is None:
            return
        try:
            is_wrong = await self._catalog.is_wrong(narinfo.nar_hash, narinfo.file_hash, now)
        except Unavailable:
            return  # the bytes are checked later
        if is_wrong:
            raise Corrupt(
                f"its narinfo names the file {narinfo.file_hash}, which was found to have another"
                " NAR inside"
            )

    async def same_nar(self, candidate: Candidate, nar: NarRecord) -> NarRecord | None:
        """Return an upstream's record of the same NAR in the same compression; None if it has none.

        The file may be another. Raises as `Upstream.narinfo`, PathUnknown if no path is known.
        """
        digests = {entry.digest for entry in await self._catalog.narinfos_of(nar.key)}
        digests = digests or self._memory.digests_of(nar.key) or self._paths.of(nar.key)
        if not digests:  # a newer narinfo has another URL
            digests = {entry.digest for entry in await self._catalog.narinfos_alike(nar.key)}
        if not digests:
            raise PathUnknown("no store path of this NAR is known")
        for digest in digests:
            try:
                vetted = await candidate.ask(partial(self._ask, digest=digest), self._clock)
            except NotFound:
                continue
            other = vetted.nar
            if other.nar_hash == nar.nar_hash and other.compression == nar.compression:
                return other
        return None


class NarInfoSearch:
    """Finds narinfos at the upstreams, proves them if necessary, and records them.

    :param prove: see `Proofs.prove`.
    """

    def __init__(
        self,
        world: World,
        state: CacheState,
        questions: Questions,
        records: Records,
        prove: Callable[[Vetted], Awaitable[Vetted]],
    ) -> None:
        self._clock = world.clock
        self._catalog = world.catalog
        self._leases = world.leases
        self._paths = state.paths
        self._questions = questions
        self._records = records
        self._prove = prove
        self._searches: Searches[KnownNarInfo] = Searches(world.clock, world.tasks)
        self._guesses: dict[str, Guess] = {}
        self._unproven: RecentMap[str, Vetted] = RecentMap(
            world.clock, ttl_s=UNPROVEN_S, max_entries=MAX_UNPROVEN
        )

    async def find(self, digest: str) -> tuple[KnownNarInfo, Outcome]:
        """Search for a narinfo, or join the search for it.

        Raises the errors of `Searches.join` and of `Questions.first`.
        """
        outcome = Outcome.COALESCED if digest in self._searches else Outcome.MISS
        fetch = partial(self._fetch_noted, digest, self._clock.seconds())
        guess = None if is_unwanted() else self._guesses.get(digest)
        if guess is not None:
            guess.is_wanted = True
            try:
                return await self._searches.join(digest, fetch), outcome
            except NcpsError as error:
                if isinstance(error, NotFound) and error.is_certain:
                    raise
                # The joined search was a guess. The client gets the result of its own search.
        return await self._searches.join(digest, fetch), outcome

    async def _fetch_noted(self, digest: str, looked: float) -> KnownNarInfo:
        """Fetch a narinfo; note its guess for the clients that join."""
        guess = current_guess()
        if guess is None:
            return await self._fetch(digest, looked)
        self._guesses[digest] = guess
        try:
            return await self._fetch(digest, looked)
        finally:
            del self._guesses[digest]

    async def _fetch(self, digest: str, looked: float) -> KnownNarInfo:
        """Fetch a narinfo that was not known at the time `looked`.

        If its bytes must be read, they are fetched without the narinfo's lease: if their download
        fails, the download itself takes that lease to ask for the narinfo anew.
        """
        proven: Vetted | None = None
        failures: dict[str, NcpsError] = {}
        began = self._clock.seconds()
        while True:
            async with turn(self._leases, self._clock, f"download:narinfo:{digest}") as is_instant:
                is_sure = is_instant and self._clock.seconds() - looked < MEANWHILE_S
                item = None if is_sure else await self._records.find(digest)
                if item is not None:  # another process was faster
                    note_needless()
                    return item
                vetted = proven or self._taken(digest)
                vetted = vetted or await self._questions.first(digest, failures)
                if vetted.unproven is None:
                    return await self._records.record(vetted)
            if is_unwanted():  # the bounds for guesses do not cover this reading
                if len(vetted.entry.narinfo.references) <= MAX_UNPROVEN:
                    self._unproven.put(digest, vetted)
                raise NotFound("its bytes are read for a client alone", is_certain=False)
            vetted, _ = await named(self._catalog, vetted)
            if not self._paths.of(vetted.nar.key):
                self._paths.note(vetted.nar.key, digest)
            try:
                proven = await self._prove(vetted)
            except (NotFound, Unavailable, Corrupt) as error:
                self._questions.distrust(vetted.entry, error)
                failures[vetted.entry.upstream] = error
                if self._clock.seconds() - began > PROOFS_S:
                    raise

    def _taken(self, digest: str) -> Vetted | None:
        """Remove and return the narinfo that a guess has left for its client, if there is one."""
        vetted = self._unproven.get(digest)
        self._unproven.forget(digest)
        return vetted

    async def relearn(self, digests: Iterable[str]) -> None:
        """Fetch forgotten narinfos from upstreams that are not in doubt, and record them."""
        for digest in digests:
            await self._relearn(digest)

    async def _relearn(self, digest: str) -> None:
        """Do as `relearn` for one path, if such an upstream has it."""
        async with self._leases.hold(f"download:narinfo:{digest}"):
            if await self._records.find(digest) is not None:
                return
            try:
                vetted = await self._questions.beyond_doubt(digest)
            except (NotFound, Unavailable, Corrupt):
                return  # the next client gets the error
            if vetted.unproven is None:  # otherwise the next client's request reads the bytes
                with suppress(Blocked):
                    await self._records.record(vetted)
