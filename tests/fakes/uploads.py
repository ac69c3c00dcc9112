"""Uploads that are kept in dictionaries."""

from __future__ import annotations

from collections.abc import AsyncIterable

from ncps.auth.principal import Principal
from ncps.cache.answers import NarStat, Outcome, ServedNar, ServedNarInfo
from ncps.cache.write.verbs import UploadOutcome, Uploads
from ncps.errors import NotFound
from ncps.nix.narurl import NarKey
from tests.fakes.cache import StubNar


class StubUploads(Uploads):
    """Keeps what it gets.

    :ivar nars: files of NARs, and the size that was announced of each.
    :ivar narinfos: texts of narinfos.
    :ivar shown: narinfos that are said to be stored.
    :ivar clients: the clients that have uploaded narinfos.
    :ivar outcome: of each upload, or its error.
    """

    def __init__(self) -> None:
        self.nars: dict[NarKey, tuple[bytes, int | None]] = {}
        self.narinfos: dict[str, bytes] = {}
        self.shown: dict[str, ServedNarInfo] = {}
        self.clients: list[Principal] = []
        self.outcome: UploadOutcome | Exception = UploadOutcome.STORED

    def _ended(self) -> UploadOutcome:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    async def put_nar(
        self, key: NarKey, chunks: AsyncIterable[bytes], size: int | None
    ) -> UploadOutcome:
        data = b""
        async for chunk in chunks:
            data += chunk
        self.nars[key] = data, size
        return self._ended()

    async def put_narinfo(self, digest: str, text: bytes, principal: Principal) -> UploadOutcome:
        self.narinfos[digest] = text
        self.clients.append(principal)
        return self._ended()

    async def narinfo(self, digest: str) -> ServedNarInfo:
        try:
            return self.shown[digest]
        except KeyError:
            raise NotFound(f"{digest} is not stored here") from None

    async def key_of(self, digest: str, file_name: str) -> NarKey:
        raise NotFound(f"no file has the name {file_name}")

    async def nar(self, key: NarKey, *, is_part: bool = False) -> ServedNar:
        data, _ = await self._find(key)
        return StubNar(key, [data], size=len(data))

    async def stat_nar(self, key: NarKey) -> NarStat:
        data, _ = await self._find(key)
        return NarStat(len(data), Outcome.HIT)

    async def _find(self, key: NarKey) -> tuple[bytes, int | None]:
        try:
            return self.nars[key]
        except KeyError:
            raise NotFound(f"{key.file_name} is not stored here") from None
