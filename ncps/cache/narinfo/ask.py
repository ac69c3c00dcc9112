"""Ask: a narinfo, of upstreams; what they say is verified before anything else is done with it."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from ncps.aio.clocks import utc_now
from ncps.ask.choose import Candidate
from ncps.ask.policy import AllAway, verdict
from ncps.cache.answers import Absent, Outcome
from ncps.cache.narinfo.doubts import Doubts
from ncps.cache.narinfo.paths import Paths
from ncps.cache.narinfo.state import CacheState
from ncps.cache.narinfo.verify import NarInfoVerifier, Vetted
from ncps.cache.world import World
from ncps.errors import Corrupt, NcpsError, NotFound, Unavailable
from ncps.nix.narinfo import NarInfo
from ncps.ports import NarInfoEntry, NarRecord, Upstream


class Questions:
    """Asks the upstreams for narinfos.

    :param is_absent_when_away: whether a narinfo that no upstream could be asked for is absent;
        else it is Unavailable.
    :ivar doubts: upstreams whose narinfo of a path has led to no good NAR.
    :ivar paths: which store paths the NARs that were shown belong to.
    """

    def __init__(
        self,
        world: World,
        state: CacheState,
        vetting: NarInfoVerifier,
        *,
        is_absent_when_away: bool,
    ) -> None:
        self.doubts = Doubts(world.clock)
        self.paths = Paths()
        self._clock = world.clock
        self._catalog = world.catalog
        self._upstreams = world.upstreams
        self._memory = state.memory
        self._negatives = state.negatives
        self._vetting = vetting
        self._is_absent_when_away = is_absent_when_away

    async def first(self, digest: str, failures: dict[str, NcpsError]) -> Vetted:
        """Ask for a narinfo; those that are in doubt about the path only if no other has it.

        :param failures: of upstreams whose narinfo was found wrong, by base URL; not asked again.
        """
        what, ask = f"{digest}.narinfo", partial(self._ask, digest=digest)
        doubted = self.doubts.about(digest)
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
        """Ask those whose narinfos of a path are not in doubt.

        Raises NotFound, Unavailable or Corrupt if none of them has a good one.
        """
        what, ask = f"{digest}.narinfo", partial(self._ask, digest=digest)
        doubted = self.doubts.about(digest)
        return (await self._upstreams.first(what, ask, without=doubted)).value

    def distrust(self, entry: NarInfoEntry, error: NcpsError) -> None:
        """Doubt the upstream of a narinfo that was found wrong, and report it."""
        self.doubts.add(entry.digest, entry.upstream)
        self._upstreams.blame(entry.upstream, f"{entry.digest}.narinfo", error)

    async def _ask(self, upstream: Upstream, digest: str) -> Vetted:
        narinfo = await upstream.narinfo(digest)
        now = utc_now(self._clock)
        vetted = await self._vetting.judged(narinfo, digest, upstream.base_url, now)
        await self._check_known(narinfo, now)
        return vetted

    async def _check_known(self, narinfo: NarInfo, now: datetime) -> None:
        """Refuse a file that was found to have another NAR inside. Corrupt."""
        if narinfo.file_hash is None:
            return
        try:
            is_wrong = await self._catalog.is_wrong(narinfo.nar_hash, narinfo.file_hash, now)
        except Unavailable:
            return  # the bytes will tell
        if is_wrong:
            raise Corrupt(
                f"its narinfo names the file {narinfo.file_hash}, which was found to have another"
                " NAR inside"
            )

    async def same_nar(self, candidate: Candidate, nar: NarRecord) -> NarRecord | None:
        """What an upstream says of the same NAR in the same compression; None: it has none.

        The file may be another. Unavailable, Corrupt: as the upstream answers.
        """
        entries = await self._catalog.narinfos_of(nar.key)
        digests = {entry.digest for entry in entries} or self._memory.digests_of(nar.key)
        digests = digests or self.paths.of(nar.key)
        if not digests:  # a newer narinfo names another URL
            digests = {entry.digest for entry in await self._catalog.narinfos_alike(nar.key)}
        if not digests:
            raise Unavailable("no path is known to ask for")
        for digest in digests:
            try:
                vetted = await candidate.ask(partial(self._ask, digest=digest), self._clock)
            except NotFound:
                continue
            other = vetted.nar
            if other.nar_hash == nar.nar_hash and other.compression == nar.compression:
                return other
        return None
