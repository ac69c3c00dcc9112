"""A core that takes uploads, and clients that send them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from ncps.auth.principal import Principal, Scope
from ncps.cache.write.nars import KnownPaths
from ncps.cache.write.rules import UploadRules
from ncps.cache.write.uploads import CacheUploads
from ncps.cache.write.verbs import UploadOutcome
from ncps.nix.keys import SecretKey
from ncps.nix.nar import FILE_HEAD, file_tail
from ncps.nix.narurl import NarKey
from tests.fakes.metrics import series
from tests.fakes.samples import Sample, packed, signed
from tests.unit.cache.rig import CoreCase

CLIENT = Principal(name="ci", scopes=frozenset({Scope.READ, Scope.WRITE}))
UPLOAD_KEY = SecretKey.generate("builder-1")


def upload(name: str = "hello", compression: str = "xz", size: int = 100_000) -> Sample:
    """Make a path whose NAR is one; its narinfo is signed by nobody, as `nix copy` sends it."""
    contents = f"{name} ".encode() * (size // (len(name) + 1))
    nar = FILE_HEAD + len(contents).to_bytes(8, "little") + contents + file_tail(len(contents))
    one = packed(name, nar, compression)
    return evolve(one, narinfo=evolve(one.narinfo, signatures=()))


def by(one: Sample, key: SecretKey = UPLOAD_KEY) -> Sample:
    """The same with a signature."""
    return evolve(one, narinfo=signed(one.narinfo, key))


class Sending:
    """The body of an upload, which comes as the test wants it."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)
        self._wanted: Deferred[bytes | None] | None = None
        self._is_over = False

    def __aiter__(self) -> Sending:
        return self

    async def __anext__(self) -> bytes:
        if self._pieces:
            return self._pieces.pop(0)
        if self._is_over:
            raise StopAsyncIteration
        self._wanted = Deferred()
        piece = await self._wanted
        if piece is None:
            raise StopAsyncIteration
        return piece

    def send(self, piece: bytes | None) -> None:
        """Send a piece, or the end."""
        wanted, self._wanted = self._wanted, None
        assert wanted is not None, "no byte is wanted"
        self._is_over = piece is None
        wanted.callback(piece)

    def fail(self, error: Exception) -> None:
        """Break off."""
        wanted, self._wanted = self._wanted, None
        assert wanted is not None, "no byte is wanted"
        wanted.errback(error)


async def chunks_of(data: bytes, size: int = 10_000) -> AsyncIterator[bytes]:
    """The whole body at once, in pieces."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


class UploadCase(CoreCase):
    """`make` makes the verbs under other rules."""

    def restart(self) -> None:
        super().restart()
        self.make()

    def make(self, **rules: Any) -> CacheUploads:
        self.rules = UploadRules(reached=lambda name: self.refusals.append(name), **rules)
        self.refusals: list[str] = []
        self.known = KnownPaths(
            state=self.core.state,
            records=self.core.records,
            narinfos=self.narinfos,
            nars=self.nars,
            verifier=self.verifier,
            vetting=self.vetting,
        )
        self.uploads = CacheUploads(self.world, self.known, self.rules)
        return self.uploads

    def put_nar(self, one: Sample, *, announced: bool = True) -> UploadOutcome:
        size = len(one.file) if announced else None
        return self.get(self.uploads.put_nar(one.conventional, chunks_of(one.file), size))

    def put_narinfo(self, one: Sample, client: Principal = CLIENT) -> UploadOutcome:
        return self.get(self.uploads.put_narinfo(one.digest, one.narinfo.render(), client))

    def put(self, *samples: Sample) -> None:
        """Upload paths whole."""
        for one in samples:
            self.put_nar(one)
            self.put_narinfo(one)

    def refuse_nar(
        self, key: NarKey, data: bytes, kind: type[Exception], size: int | None = None
    ) -> str:
        return str(self.refused(self.uploads.put_nar(key, chunks_of(data), size), kind))

    def refuse_narinfo(self, one: Sample, kind: type[Exception], client: Principal = CLIENT) -> str:
        putting = self.uploads.put_narinfo(one.digest, one.narinfo.render(), client)
        return str(self.refused(putting, kind))

    def sending(self, key: NarKey, body: Sending) -> Deferred[UploadOutcome]:
        return self.start(self.uploads.put_nar(key, body, None))

    @property
    def counts(self) -> dict[str, float]:
        """Uploads that have ended, by kind and outcome."""
        return series(self.metrics.uploads)

    def assertNothingOf(self, one: Sample) -> None:
        """No byte, row or sidecar of a path is there."""
        record = self.catalog.records.get(one.conventional)
        self.assertFalse(record is not None and record.is_stored, "row")
        self.assertNotIn(one.conventional, self.store.objects)
        self.assertNotIn(one.digest, self.catalog.entries)
        self.assertNotIn(one.digest, self.sidecars.texts)


Spoil = Callable[[bytes], bytes]


def each_tenth(data: bytes) -> Iterable[int]:
    """Offsets at every tenth of some bytes."""
    return (len(data) * tenth // 10 for tenth in range(10))
