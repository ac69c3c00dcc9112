"""GrowingFile: what a download and its readers need of a file that grows."""

from __future__ import annotations

from typing import Protocol

from ncps.aio.spool_reader import SpoolReader
from ncps.nix.hashes import Hash
from ncps.nix.narurl import NarKey
from ncps.ports import NarStore, Stat


class Digest(Protocol):
    """Something that follows the bytes; `feed` may run in a thread, and never twice at once."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes; raises `Corrupt` to end the file."""


class Estimated(Digest, Protocol):
    """A digest of which it is known how long it takes."""

    @property
    def cost_s(self) -> float:
        """About the seconds that it takes for all bytes; endless if that is unknown."""


class GrowingFile(Protocol):
    """A file with one writer and many readers; in a file (`Spool`) or in memory (`SmallSpool`).

    :ivar total: bytes in all, if known by now.
    """

    total: int | None

    @property
    def length(self) -> int:
        """Bytes that have come and are hashed."""

    @property
    def is_kept(self) -> bool:
        """Whether all bytes so far can be read again, and published."""

    @property
    def keep_error(self) -> str:
        """Why not; empty as long as they can."""

    @property
    def error(self) -> BaseException | None:
        """The error that the writer gets; None while all is well."""

    async def write(self, data: bytes) -> None:
        """Append bytes; waits while too much is queued. Raises what ended the file."""

    async def flush(self) -> None:
        """Wait until everything handed over is hashed."""

    async def reread(self, digest: Digest) -> None:
        """Let a digest see all bytes once more; only if `is_kept`. Raises the digest's errors."""

    def commit(self) -> None:
        """Let readers have the end: everything is there and right."""

    def fail(self, error: BaseException) -> None:
        """End the file: readers and the writer raise this error. Only the first one counts."""

    async def publish(self, store: NarStore, key: NarKey, sha256: Hash) -> Stat:
        """Make the bytes an object; only after `flush`, and only if `is_kept`.

        Raises as `NarStore.publish`.
        """

    def release(self) -> None:
        """Say that the writer needs it no more: it goes with its last reader. Idempotent."""

    def reader(self, start: int = 0, stop: int | None = None) -> SpoolReader:
        """Read from `start` up to `stop` (exclusive, default the end)."""
