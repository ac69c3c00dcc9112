"""CacheUploads: the verbs of uploads, counted and logged; see `verbs.Uploads`."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Final

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from ncps.auth.principal import Principal
from ncps.cache.answers import NarStat, ServedNar, ServedNarInfo
from ncps.cache.world import World
from ncps.cache.write.inspection import UploadInspection
from ncps.cache.write.narinfos import NarInfoUploads
from ncps.cache.write.nars import KnownPaths, NarUploads
from ncps.cache.write.quota import Quota
from ncps.cache.write.reads import StoredOnly
from ncps.cache.write.rules import UploadRules
from ncps.cache.write.verbs import UploadOutcome, Uploads
from ncps.errors import (
    Conflict,
    Malformed,
    NcpsError,
    NotFound,
    Refused,
    StorageFull,
    TooLarge,
)
from ncps.nix.narurl import NarKey
from ncps.observe.decisions import are_logged
from ncps.observe.tracing.spans import Span, current, span

_QUOTED: Final = re.compile(r"""'.*'|".*\"""", re.DOTALL)
"""The quoted part of an upload in an error; it may be a secret that was sent by mistake."""

_REFUSED: Final = (Conflict, Malformed, Refused, StorageFull, TooLarge)


class CacheUploads(Uploads):
    """Makes the parts of uploads, and counts the result of each.

    :ivar quota: tells whether the store is full of uploads.
    :ivar rules: the rules of uploads.
    """

    _log = Logger()

    def __init__(self, world: World, known: KnownPaths, rules: UploadRules) -> None:
        self.rules = rules
        self.quota = Quota(world.clock, world.inventory, rules)
        self._inspection = inspection = UploadInspection(world, rules)
        self._nars = NarUploads(world, known, self.quota, inspection, rules)
        self._narinfos = NarInfoUploads(world, known, inspection, rules)
        self._stored = StoredOnly(world, known)
        self._ended = world.metrics.uploads
        self._bytes = world.metrics.upload_bytes

    def watch(self, stored: Callable[[], object]) -> None:
        """Call `stored` for each NAR that this process stores from now on."""
        self._nars.stored = stored

    def watch_symbols(self, found: Callable[[NarKey, Sequence[str]], object]) -> None:
        """Call `found` with the build IDs of files with symbols in NARs of new paths."""
        self._inspection.found = found

    async def put_nar(
        self, key: NarKey, chunks: AsyncIterable[bytes], size: int | None
    ) -> UploadOutcome:
        """See `Uploads`."""
        outcome = await self._counted("nar", key.file_name, self._put_nar(key, chunks, size))
        if are_logged():  # the line of its path is at a higher level
            self._log.debug(
                "NAR {key} was uploaded: {outcome}", key=key.file_name, outcome=outcome.value
            )
        return outcome

    async def _put_nar(
        self, key: NarKey, chunks: AsyncIterable[bytes], size: int | None
    ) -> UploadOutcome:
        return await self._nars.put(key, self._weighed(chunks), size)

    async def _weighed(self, chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        came, step = 0, current()
        async for chunk in chunks:
            self._bytes.inc(len(chunk))
            if step.is_recording:
                came += len(chunk)
                step.set("ncps.bytes", came)
            yield chunk

    async def put_narinfo(self, digest: str, text: bytes, principal: Principal) -> UploadOutcome:
        """See `Uploads`."""
        return await self._counted("narinfo", digest, self._narinfos.put(digest, text, principal))

    async def _counted(
        self, kind: str, name: str, upload: Coroutine[Any, Any, UploadOutcome]
    ) -> UploadOutcome:
        with span(f"upload.{kind}", {"ncps.hash": name}) as step:
            ended = await self._ended_as(kind, name, upload, step)
        if isinstance(ended, NcpsError):  # not in the block, since a span would keep its text
            raise ended
        return ended

    async def _ended_as(
        self, kind: str, name: str, upload: Coroutine[Any, Any, UploadOutcome], step: Span
    ) -> UploadOutcome | NcpsError:
        """Wait for an upload; count, log and trace how it ends."""
        try:
            outcome = await upload
        except CancelledError:
            self._ended(kind, "cut").inc()
            raise
        except NcpsError as error:
            is_refused = isinstance(error, _REFUSED)
            label = "refused" if is_refused else "failed"
            self._ended(kind, label).inc()
            tell = self._log.info if is_refused else self._log.warn
            reason = _QUOTED.sub("(the client was told)", str(error))
            tell("{kind} {name} was not accepted: {reason}", kind=kind, name=name, reason=reason)
            step.set_all({"ncps.outcome": label, "error.type": type(error).__name__})
            if not is_refused:
                step.failed(reason)
            return error
        self._ended(kind, outcome.value).inc()
        step.set("ncps.outcome", outcome.value)
        return outcome

    async def narinfo(self, digest: str) -> ServedNarInfo:
        """See `Uploads`."""
        return await self._stored.narinfo(digest)

    async def key_of(self, digest: str, file_name: str) -> NarKey:
        """See `Uploads`."""
        raise NotFound(f"no file has the name {file_name}")

    async def nar(self, key: NarKey, *, is_part: bool = False) -> ServedNar:
        """See `Uploads`."""
        return await self._stored.nar(key)

    async def stat_nar(self, key: NarKey) -> NarStat:
        """See `Uploads`."""
        return await self._stored.stat_nar(key)
