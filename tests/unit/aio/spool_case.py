"""A spool with a counted file, and clients that read it, for its tests."""

from __future__ import annotations

import errno
import hashlib
from random import Random

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.spool import Spool
from ncps.aio.threads import Threads
from ncps.errors import Corrupt
from tests.fakes.client import Client
from tests.fakes.spoolfile import CountedFile
from tests.fakes.threads import InlineThreads

MIB = 1024 * 1024


def not_in_memory(*_: object) -> int:
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


def noise(size: int, seed: int = 1) -> bytes:
    return Random(seed).randbytes(size)


class Sha256:
    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.bad_after: int | None = None
        self.seen = 0

    def feed(self, data: bytes) -> None:
        self.seen += len(data)
        if self.bad_after is not None and self.seen > self.bad_after:
            raise Corrupt("not what it should be")
        self.hash.update(data)


class SpoolCase(SynchronousTestCase):
    threads: Threads

    def setUp(self) -> None:
        self.threads = InlineThreads()
        self.digest = Sha256()
        self.file = CountedFile()
        self.addCleanup(self.file.path.unlink, missing_ok=True)
        self.spool = self.new()

    def new(self, *, total: int | None = None, kept: bool = True) -> Spool:
        return Spool(
            file=(lambda: self.file) if kept else None,
            workers=self.threads,
            digests=(self.digest,),
            total=total,
            keep_error="" if kept else "disk full",
        )

    def write(self, data: bytes, spool: Spool | None = None) -> Deferred[None]:
        return Deferred.fromCoroutine((spool or self.spool).write(data))

    def put(self, data: bytes) -> None:
        self.successResultOf(self.write(data))

    def finish(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.spool.flush()))
        self.spool.commit()
        self.spool.release()

    def client(self, start: int = 0, stop: int | None = None, *, hold: bool = False) -> Client:
        return Client(self.spool.reader(start, stop), hold=hold)
