"""GrowingFile: the interface of a file that grows, for a download and its readers."""

from __future__ import annotations

from typing import Protocol

from ncps.aio.spool_reader import SpoolReader
from ncps.nix.hashes import Hash
from ncps.nix.narurl import NarKey
from ncps.ports import NarStore, Stat


class Digest(Protocol):
    """A check or hash of all bytes; `feed` may run in a thread, but never in two at a time."""

    def feed(self, data: bytes) -> None:
        """Process the next bytes. Raises Corrupt if the file is wrong; that ends the file."""


class Estimated(Digest, Protocol):
    """A digest that can estimate its own cost."""

    @property
    def cost_s(self) -> float:
        """Estimated seconds of a processor for all bytes; infinite if unknown."""


class GrowingFile(Protocol):
    """A file with one writer and many readers; in a file (`Spool`) or in memory (`SmallSpool`).

    :ivar total: bytes in all, if known by now.
    :ivar is_total_sure: whether `total` is known for certain; see `SpoolReader`.
    """

    total: int | None
    is_total_sure: bool = True

    @property
    def length(self) -> int:
        """Bytes that have come and are hashed."""

    @property
    def is_kept(self) -> bool:
        """Whether all bytes so far can be read again, and published."""

    @property
    def keep_error(self) -> str:
        """The reason if they cannot; empty if they can."""

    @property
    def error(self) -> BaseException | None:
        """The error that the writer gets; None while all is well."""

    async def write(self, data: bytes) -> None:
        """Append bytes; wait while too many are queued. Raises the error that ended the file."""

    async def flush(self) -> None:
        """Wait until all written bytes are hashed."""

    async def reread(self, digest: Digest) -> None:
        """Feed all bytes once more to a digest; only if `is_kept`. Raises the digest's errors."""

    def commit(self) -> None:
        """Give readers the last bytes: the file is complete and right."""

    def fail(self, error: BaseException) -> None:
        """End the file: readers and the writer raise this error. Only the first one counts."""

    async def publish(self, store: NarStore, key: NarKey, sha256: Hash) -> Stat:
        """Make the bytes an object; only after `flush`, and only if `is_kept`.

        Raises as `NarStore.publish`.
        """

    def release(self) -> None:
        """Say that the writer is done: the file is removed after its last reader. Idempotent."""

    def reader(self, start: int = 0, stop: int | None = None) -> SpoolReader:
        """Open a reader from `start` up to `stop` (exclusive, default the end)."""
