"""Proof: reads the NAR of a path before its narinfo is served, if only a content address vouches.

The store path follows from a content address such as `text:` or `fixed:sha256:`, so the path and
its references are sure. NarHash and NarSize are not sure: no signature covers them, and the content
address is the hash of something else. So ncps believes such a narinfo only after it has read the
NAR and found NarHash, NarSize and content address right. An ordinary download fetches the NAR, and
stores it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, ParamSpec, TypeVar

from twisted.internet.interfaces import IReactorTime

from ncps.aio.recent import RecentSet
from ncps.aio.threads import Threads
from ncps.aio.waiting import within
from ncps.cache.narinfo.verify import NarInfoVerifier, Vetted
from ncps.errors import Corrupt
from ncps.nix.contentaddress import ContentAddress
from ncps.nix.contentcheck import ContentCheck
from ncps.nix.narcheck import NarDigest
from ncps.ports import Body, NarRecord

DEADLINE_S: Final = 45.0
"""Seconds that a client waits for a proof; reverse proxies usually wait for 60 s. The download goes
on after that, and a client that asks again joins it or finds it done."""

REFUTED_S: Final = 600.0
"""Seconds for which a narinfo found wrong is refused without reading its NAR again."""

REFUTED_ENTRIES: Final = 10_000


P = ParamSpec("P")
R = TypeVar("R")


class Refuted(Corrupt):
    """The whole NAR is here, and contradicts its narinfo or its content address."""


class Proofs:
    """Proves narinfos by the bytes of their NARs.

    :param workers: threads that hash the bytes.
    :param fetch: opens the whole compressed file of a NAR; fetches it if needed. Raises NotFound if
        no upstream has it, Unavailable if it cannot be fetched now, Corrupt if it is wrong.
    """

    def __init__(
        self,
        *,
        clock: IReactorTime,
        workers: Threads,
        vetting: NarInfoVerifier,
        fetch: Callable[[NarRecord], Awaitable[Body]],
    ) -> None:
        self._clock = clock
        self._workers = workers
        self._vetting = vetting
        self._fetch = fetch
        self._refuted = RecentSet(clock, ttl_s=REFUTED_S, max_entries=REFUTED_ENTRIES)

    async def prove(self, vetted: Vetted) -> Vetted:
        """Return a narinfo that may be served, after reading its NAR if that is necessary.

        Raises Corrupt if the bytes contradict the narinfo or its content address, Unavailable if
        the NAR cannot be read within `DEADLINE_S`, NotFound if no upstream has it.
        """
        if vetted.unproven is None:
            return vetted
        narinfo = vetted.entry.narinfo
        claim = (narinfo, vetted.nar.upstream, vetted.nar.origin_url)
        if claim in self._refuted:
            raise Corrupt("its NAR was found wrong a while ago")
        late = f"reading the NAR took more than {DEADLINE_S:g} s"
        try:
            await within(self._clock, DEADLINE_S, self._read(vetted, vetted.unproven), late)
        except Refuted:
            self._refuted.add(claim)
            raise
        return await self._vetting.proven(vetted)

    async def _read(self, vetted: Vetted, address: ContentAddress) -> None:
        narinfo, nar = vetted.entry.narinfo, vetted.nar
        check = ContentCheck(address, narinfo.store_path, narinfo.references)
        digest = NarDigest(nar.compression, max_size=nar.nar_size, follow=check.feed)
        body = await self._fetch(nar)
        try:
            async for chunk in body:
                await self._judge(digest.feed, chunk)
        finally:
            body.close()
        nar_hash, nar_size = await self._judge(digest.finish)
        if (nar_hash, nar_size) != (nar.nar_hash, nar.nar_size):
            raise Refuted(
                f"the NAR has hash {nar_hash} and {nar_size} bytes, its narinfo says"
                f" {nar.nar_hash} and {nar.nar_size}"
            )
        await self._judge(check.finish)

    async def _judge(self, step: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await self._workers.run(step, *args, **kwargs)
        except Corrupt as error:
            raise Refuted(str(error)) from error
