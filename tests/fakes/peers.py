"""ScriptedPeers: another process of the cache, whose downloads do as they are told."""

from __future__ import annotations

from ncps.errors import NcpsError, NotFound
from ncps.nix.narurl import NarKey
from ncps.ports import Peers, UpstreamBody
from tests.fakes.upstream import ScriptedUpstream


class ScriptedPeers(Peers):
    """Peers that a test scripts, in memory.

    :ivar line: the upstream that answers: its NARs are arriving, its scripts say how.
    :ivar file: names every file there.
    :ivar failure: raised by `find_nar` while it is set.
    :ivar is_silent: whether `find_nar` waits for `line.release`.
    :ivar asked: addresses, in order.
    """

    def __init__(self) -> None:
        self.line = ScriptedUpstream("peer")
        self.file = ""
        self.failure: NcpsError | None = None
        self.is_silent = False
        self.asked: list[str] = []

    async def find_nar(self, address: str, key: NarKey) -> str:
        self.asked.append(address)
        if self.is_silent:
            await self.line.hold()
        if self.failure is not None:
            raise self.failure
        if key.url not in self.line.nars:
            raise NotFound("not arriving there")
        return self.file

    async def open_nar(self, address: str, key: NarKey, *, offset: int = 0) -> UpstreamBody:
        return await self.line.open_nar(key.url, offset=offset)
