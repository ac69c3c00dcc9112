"""Transcoding: makes a file in zstd from another file of a NAR."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from attrs import frozen

from ncps.nix.hashes import Hash
from ncps.ports.bodies import Body


class Unfinished(Protocol):
    """A private file on local disk; its receiver discards and closes it."""

    @property
    def path(self) -> Path: ...

    def discard(self) -> None:
        """Unlink the file, unless it has been published."""

    def close(self) -> None:
        """Close the file; idempotent."""


@frozen(kw_only=True)
class Order:
    """The parameters of one transcoding.

    :param compression: of the file that is read.
    :param nar_size: bytes of the NAR inside; more is an error.
    :param level: of the zstd compression.
    :param threads: number of threads that compress, beside the one that reads; 0: none.
    :param cpu_share: average number of processors that the work may use; 0: no limit.
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
    """The new file, and the facts about it.

    :param file: the new file, synced to the disk.
    :param nar_hash: of the NAR that was read; a second reading has found it in the new file.
    :param file_hash: of the new file.
    :param cpu_s: seconds of a processor that the work took.
    """

    file: Unfinished
    nar_hash: Hash
    nar_size: int
    file_hash: Hash
    file_size: int
    cpu_s: float


class Transcoder(Protocol):
    """A maker of files in zstd, one for each call; calls may be cancelled."""

    async def transcode(self, source: Body, order: Order) -> Transcoded:
        """Read a NAR and write it in zstd; the caller closes the source, and the file.

        Raises Corrupt if the source is no NAR in this compression, or if the new file does not
        contain that NAR; StorageFull if there is no room, Unavailable if it fails or takes too
        long; and the errors of the source.
        """
