"""A web server that runs out of memory on command; run as a process by `test_starved`.

    python -m tests.machines.starved DIRECTORY

Its first line of output is its port. The bytes of a client may begin with a line `!FIRST COUNT`.
After the arrival of the following bytes FIRST - 1 allocations succeed and the next COUNT fail, in
any thread, until the connection ends.
"""

from __future__ import annotations

import _testcapi  # type: ignore[import-not-found]
import hashlib
import lzma
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zstandard
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from ncps.aio.epoll import install
from ncps.aio.spool import Spool
from ncps.aio.threads import Workers
from ncps.aio.unchanged_file import UnchangedFile
from ncps.cache.answers import Outcome
from ncps.cache.nar.stored import DecodedBody
from ncps.errors import Corrupt
from ncps.nix.narurl import NarKey
from ncps.observe.metrics import Metrics
from ncps.ports import Body
from ncps.settings.schema.server import ServerSettings
from ncps.storage.calls import Calls
from ncps.storage.directory_body import LocalBody
from ncps.web.fast.channel import NcpsChannel
from ncps.web.fast.hot import HotNarInfos
from tests.fakes.cache import StubCache, StubNar, served_narinfo
from tests.fakes.spoolfile import CountedFile

SMALL, LARGE = 100_000, 3_000_000
NARINFO = "0" * 32
NARINFO_TEXT = b"StorePath: /nix/store/x\n" * 20
CHUNK = 65_536  # of the request


def content(size: int) -> bytes:
    """Return the incompressible bytes of the NAR of this size."""
    return random.Random(size).randbytes(size)


class Server:
    """The functions that make bodies."""

    def __init__(self, directory: Path, reactor: Any) -> None:
        self.directory = directory
        self.reactor = reactor
        self.workers = Workers(reactor, "starved", 2)
        self.workers.start()
        self.jobs: set[Deferred[None]] = set()
        for data in map(content, (SMALL, LARGE)):
            self._path(data, "").write_bytes(data)
            self._path(data, "xz").write_bytes(lzma.compress(data, preset=0))
            self._path(data, "zstd").write_bytes(zstandard.ZstdCompressor().compress(data))

    def _path(self, data: bytes, encoding: str) -> Path:
        return self.directory / f"{len(data)}.{encoding}"

    def _local(self, path: Path, start: int, stop: int, *, is_prompt: bool) -> LocalBody:
        calls = Calls(self.workers, clock=self.reactor, is_local=is_prompt)
        fd = os.open(path, os.O_RDONLY)
        try:
            file = UnchangedFile(fd)
            return LocalBody(file=file, name="a NAR", start=start, stop=stop, calls=calls)
        except BaseException:
            os.close(fd)
            raise

    def stored(self, data: bytes, start: int, stop: int | None) -> Body:
        end = len(data) if stop is None else stop
        return self._local(self._path(data, ""), start, end, is_prompt=True)

    def threaded(self, data: bytes, start: int, stop: int | None) -> Body:
        end = len(data) if stop is None else stop
        return self._local(self._path(data, ""), start, end, is_prompt=False)

    def xz(self, data: bytes, start: int, stop: int | None) -> Body:
        return self._decoded(data, "xz", start, len(data) if stop is None else stop)

    def zstd(self, data: bytes, start: int, stop: int | None) -> Body:
        return self._decoded(data, "zstd", start, stop)

    def _decoded(self, data: bytes, encoding: str, start: int, stop: int | None) -> Body:
        path = self._path(data, encoding)
        inner = self._local(path, 0, path.stat().st_size, is_prompt=False)
        return DecodedBody(inner, self.workers, encoding, start, stop)

    def sized(self, data: bytes, start: int, stop: int | None) -> Body:
        return self._arriving(data, start, stop, total=len(data), file=CountedFile)

    def unsized(self, data: bytes, start: int, stop: int | None) -> Body:
        return self._arriving(data, start, stop, total=None, file=CountedFile)

    def passing(self, data: bytes, start: int, stop: int | None) -> Body:
        return self._arriving(data, start, stop, total=None, file=None)

    def _arriving(
        self, data: bytes, start: int, stop: int | None, *, total: int | None, file: Any
    ) -> Body:
        digest = Sha256()
        spool = Spool(
            file=file, workers=self.workers, digests=(digest,), total=total, keep_error="none"
        )
        reader = spool.reader(start, stop)
        job = Deferred.fromCoroutine(self._feed(spool, digest, data))
        self.jobs.add(job)
        job.addBoth(lambda _: self.jobs.discard(job))
        return reader

    async def _feed(self, spool: Spool, digest: Sha256, data: bytes) -> None:
        """Write bytes into a spool as a download does."""
        try:
            for at in range(0, len(data), CHUNK):
                await spool.write(data[at : at + CHUNK])
            await spool.flush()
            if digest.hash.digest() != hashlib.sha256(data).digest():
                raise Corrupt("wrong hash")
            if spool.total is not None and spool.length != spool.total:
                raise Corrupt("wrong length")
            spool.commit()
        except BaseException as error:
            spool.fail(error)
            raise
        finally:
            spool.release()


class Sha256:
    """A `Digest`."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()

    def feed(self, data: bytes) -> None:
        self.hash.update(data)


class MadeNar(StubNar):
    """A NAR whose key says how its body is made."""

    def __init__(
        self, key: NarKey, data: bytes, size: int | None, make: Callable[..., Body]
    ) -> None:
        super().__init__(key, [], size=size)
        self._data = data
        self._make = make

    async def known_size(self) -> int:
        return len(self._data)

    final_size = known_size

    async def body(self, start: int = 0, stop: int | None = None) -> Body:  # type: ignore[override]
        return self._make(self._data, start, stop)


WAYS = ("stored", "threaded", "xz", "zstd", "sized", "unsized", "passing")
UNSIZED = frozenset({"zstd", "unsized", "passing"})


def key_of(way: str, size: int) -> NarKey:
    """Return the key of the NAR of this size whose body is made in this way."""
    return NarKey(f"{WAYS.index(way)}{size:051d}", "xz")


class _Starving(NcpsChannel):
    """Removes the command from the received bytes, and executes it."""

    _is_starving = False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._is_starving:
            _testcapi.remove_mem_hooks()
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:
        if data[:1] != b"!":
            super().dataReceived(data)
            return
        self._is_starving = True
        line, _, rest = data.partition(b"\n")
        first, count = map(int, line[1:].split())
        _testcapi.set_nomemory(first, first + count)
        super().dataReceived(rest)


def main() -> None:
    """Serve until killed."""
    install()
    from twisted.internet import reactor as _reactor

    from ncps.web.fast.transport import adopt
    from ncps.web.site import NcpsSite
    from tests.unit.web.wire import routes_for

    reactor: Any = _reactor
    server = Server(Path(sys.argv[1]), reactor)
    cache = StubCache()
    for way in WAYS:
        for size in (SMALL, LARGE):
            told = None if way in UNSIZED else size
            key = key_of(way, size)
            cache.nars[key] = MadeNar(key, content(size), told, getattr(server, way))
    cache.narinfos[NARINFO] = served_narinfo(
        text=NARINFO_TEXT, outcome=Outcome.HIT, may_repeat=lambda: True
    )
    metrics = Metrics()
    hot = HotNarInfos(100_000)
    site = NcpsSite(
        routes_for(cache, metrics, hot),
        clock=reactor,
        metrics=metrics,
        limits=ServerSettings(write_stall_timeout_s=5.0),
        hot=hot,
        access_log=lambda _: None,
    )
    site.protocol = _Starving
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    adopt(port)
    print(port.getHost().port, flush=True)
    reactor.run()


if __name__ == "__main__":
    main()
