"""Transcoding: the file of a NAR becomes one in zstd, in the background of the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from attrs import frozen

from ncps.nix.hashes import Hash
from ncps.ports.bodies import Body


class Unfinished(Protocol):
    """A private file on local disk; the code that has it discards and closes it."""

    @property
    def path(self) -> Path: ...

    def discard(self) -> None:
        """Unlink it, unless it was published meanwhile."""

    def close(self) -> None:
        """Close it; idempotent."""


@frozen(kw_only=True)
class Order:
    """How a file is read, and how another one is made from it.

    :param compression: of the file that is read.
    :param nar_size: bytes of the NAR inside; more is an error.
    :param level: of the zstd compression.
    :param threads: that compress beside the one that reads; 0: none.
    :param cpu_share: processors that this may use, on the average of the time that it takes; 0: as
        many as it can.
    :param is_urgent: whether a client waits for it: then it does not have the lowest priority.
    """

    compression: str
    nar_size: int
    level: int
    threads: int = 0
    cpu_share: float = 0.0
    is_urgent: bool = False


@frozen(kw_only=True)
class Transcoded:
    """A file that was made, and what was computed on the way.

    :param file: holds the new file, synced to the disk.
    :param read_hash: hash of the bytes that were read.
    :param nar_hash: of the NAR that was read, and that the new file was found to hold when it was
        read again.
    :param file_hash: of the new file.
    :param cpu_s: seconds of a processor that this took.
    """

    file: Unfinished
    read_hash: Hash
    nar_hash: Hash
    nar_size: int
    file_hash: Hash
    file_size: int
    cpu_s: float


class Transcoder(Protocol):
    """Makes one file at a time for each call; may be cancelled."""

    async def transcode(self, source: Body, order: Order) -> Transcoded:
        """Read a NAR and write it in zstd; the caller closes the source, and the file.

        Raises Corrupt if the source does not hold a NAR in this compression or the new file does
        not hold that NAR, StorageFull if there is no room, Unavailable if it fails or takes too
        long; what the source raises is passed on.
        """
