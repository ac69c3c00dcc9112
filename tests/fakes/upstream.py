"""ScriptedUpstream: a binary cache that does as it is told, byte by byte."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator

from attrs import frozen
from twisted.internet.defer import Deferred

from ncps.aio.body import PassedBody
from ncps.errors import NcpsError, NotFound, Oversized, Unavailable
from ncps.nix.cacheinfo import CacheInfo
from ncps.nix.narinfo import NarInfo
from ncps.nix.realisation import Realisation, RealisationKey
from ncps.ports import Upstream, UpstreamBody
from tests.fakes.samples import Sample

CHUNK = 64 * 1024


@frozen(kw_only=True)
class Script:
    """How one NAR is sent; offsets are those of the whole file, also where a part was asked for.

    :param error: raised instead of a head.
    :param hold: whether the head waits for `ScriptedUpstream.release`.
    :param cut_at: the body fails with Unavailable before this byte.
    :param end_at: the body ends politely before this byte.
    :param stall_at: the body waits before this byte until `ScriptedUpstream.release`.
    :param trickles_from: each chunk from this byte on waits for `ScriptedUpstream.release`.
    :param lie_at: this byte is another.
    :param extra: follows the end.
    :param total: the size of the file in the head; 0 leaves it out, None tells the truth.
    :param ignores_range: whether the body begins at 0, also where a later part was asked for.
    :param failure: the body fails with this instead of ending.
    :param chunk: size of the pieces.
    """

    error: NcpsError | None = None
    hold: bool = False
    cut_at: int | None = None
    end_at: int | None = None
    stall_at: int | None = None
    trickles_from: int | None = None
    lie_at: int | None = None
    extra: bytes = b""
    total: int | None = None
    ignores_range: bool = False
    failure: NcpsError | None = None
    chunk: int = CHUNK


HONEST = Script()


class ScriptedUpstream(Upstream):
    """An upstream that a test scripts, in memory.

    :ivar narinfos: by hash part; an error is raised; what is not there is NotFound.
    :ivar realisations: by key, in the same way.
    :ivar nars: files by URL; what is not there is NotFound.
    :ivar texts: other objects by path; an error is raised; what is not there is NotFound.
    :ivar scripts: for the next NARs asked for, in order; then `otherwise`.
    :ivar is_away: whether everything is Unavailable.
    :ivar is_silent: whether queries wait for `release`.
    :ivar log: the questions, in order: ("narinfo", digest, 0), ("nar", url, offset), ...
    :ivar bodies: how many are open.
    :ivar sent: bytes of NARs.
    """

    def __init__(self, name: str = "cache.example.org", priority: int = 40) -> None:
        self._name = name
        self._priority = priority
        self.narinfos: dict[str, NarInfo | NcpsError] = {}
        self.realisations: dict[RealisationKey, Realisation | NcpsError] = {}
        self.nars: dict[str, bytes] = {}
        self.texts: dict[str, bytes | NcpsError] = {}
        self.info: CacheInfo | NcpsError = CacheInfo(want_mass_query=True, priority=priority)
        self.scripts: deque[Script] = deque()
        self.otherwise = HONEST
        self.is_away = False
        self.is_silent = False
        self.log: list[tuple[str, str, int]] = []
        self.bodies = 0
        self.sent = 0
        self.encodings: list[bool] = []
        self._held: list[Deferred[None]] = []

    @property
    def name(self) -> str:
        return self._name

    @property
    def base_url(self) -> str:
        return f"http://{self._name}"

    @property
    def priority(self) -> int:
        return self._priority

    @priority.setter
    def priority(self, value: int) -> None:
        self._priority = value

    def add(self, *samples: Sample) -> None:
        """Have these store paths."""
        for sample in samples:
            self.narinfos[sample.digest] = sample.narinfo
            self.nars[sample.url] = sample.file

    def asked(self, kind: str) -> list[tuple[str, int]]:
        """Requests of one kind: ("nar", ...) -> [(url, offset)]."""
        return [(what, offset) for one, what, offset in self.log if one == kind]

    @property
    def held(self) -> int:
        """How many wait for `release`."""
        return len([waiter for waiter in self._held if not waiter.called])

    def release(self, error: NcpsError | None = None) -> None:
        """Let everything that waits go on, or fail."""
        held, self._held = self._held, []
        for waiter in held:
            if waiter.called:
                continue
            if error is None:
                waiter.callback(None)
            else:
                waiter.errback(error)

    def fail_last(self, error: NcpsError) -> None:
        """Let what began to wait last fail; the others go on waiting."""
        self._held.pop().errback(error)

    async def hold(self) -> None:
        """Wait for `release`."""
        await self.waiter()

    def waiter(self) -> Deferred[None]:
        """Return a Deferred that `release` fires next."""
        waiter: Deferred[None] = Deferred()
        self._held.append(waiter)
        return waiter

    async def _begin(self, kind: str, what: str, offset: int = 0) -> None:
        self.log.append((kind, what, offset))
        if self.is_silent:
            await self.hold()
        if self.is_away:
            raise Unavailable("connection refused")

    async def narinfo(self, digest: str) -> NarInfo:
        await self._begin("narinfo", digest)
        found = self.narinfos.get(digest, NotFound("status 404"))
        if isinstance(found, NcpsError):
            raise found
        return found

    async def realisation(self, key: RealisationKey) -> Realisation:
        await self._begin("realisation", key.path)
        found = self.realisations.get(key, NotFound("status 404"))
        if isinstance(found, NcpsError):
            raise found
        return found

    async def cache_info(self) -> CacheInfo:
        await self._begin("info", "")
        if isinstance(self.info, NcpsError):
            raise self.info
        return self.info

    async def text(self, path: str, limit: int) -> bytes:
        await self._begin("text", path)
        found = self.texts.get(path, NotFound("status 404"))
        if isinstance(found, NcpsError):
            raise found
        if len(found) > limit:
            raise Oversized(f"{path} is larger than {limit} bytes")
        return found

    async def stat_nar(self, url: str) -> int | None:
        await self._begin("stat", url)
        return len(self._file(url))

    def _file(self, url: str) -> bytes:
        try:
            return self.nars[url.removeprefix(f"{self.base_url}/")]
        except KeyError:
            raise NotFound("status 404") from None

    async def open_nar(
        self, url: str, *, offset: int = 0, allow_encoding: bool = False
    ) -> UpstreamBody:
        self.encodings.append(allow_encoding)
        await self._begin("nar", url, offset)
        script = self.scripts.popleft() if self.scripts else self.otherwise
        if script.hold:
            await self.hold()
        if script.error is not None:
            raise script.error
        return ScriptedBody(self, script, self._file(url), offset)


class ScriptedBody(PassedBody):
    """A NAR on its way, by the script."""

    def __init__(
        self, upstream: ScriptedUpstream, script: Script, file: bytes, offset: int
    ) -> None:
        start = 0 if script.ignores_range else offset
        total = len(file) if script.total is None else script.total or None
        super().__init__(self._pieces(start), self._give_up, start=start, total=total)
        self._upstream = upstream
        self._script = script
        if script.lie_at is not None:
            at = script.lie_at
            file = file[:at] + bytes([file[at] ^ 1]) + file[at + 1 :]
        self._file = (file + script.extra)[: script.end_at]
        self._is_closed = False
        self._waiter: Deferred[None] = Deferred()
        upstream.bodies += 1

    def _stops(self) -> list[int]:
        script = self._script
        marks = {script.cut_at, script.stall_at, len(self._file)}
        return sorted(m for m in marks if m is not None and m <= len(self._file))

    async def _pieces(self, position: int) -> AsyncIterator[bytes]:
        script = self._script
        for stop in self._stops():
            while position < stop:
                if script.trickles_from is not None and position >= script.trickles_from:
                    await self._hold()
                end = min(position + script.chunk, stop)
                self._upstream.sent += end - position
                yield self._file[position:end]
                if self._is_closed:
                    raise Unavailable("body was closed before its end")
                position = end
            if position == script.stall_at:
                await self._hold()
            if position == script.cut_at:
                raise Unavailable("connection reset")
        if script.failure is not None:
            raise script.failure

    async def _hold(self) -> None:
        self._waiter = self._upstream.waiter()
        await self._waiter

    def _give_up(self) -> None:
        self._is_closed = True
        self._upstream.bodies -= 1
        if not self._waiter.called:
            self._waiter.errback(Unavailable("body was closed before its end"))
            self._waiter.addErrback(lambda _: None)
