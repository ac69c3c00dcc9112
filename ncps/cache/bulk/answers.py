"""The verbs for many store paths, and their answers: all that the web layer knows of them."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple, Protocol

MOST_HASHES = 10_000
"""Hash parts in one question, at most."""

MOST_PATHS = 100_000
"""Paths of one closure, at most; further ones are not listed."""


class Where(enum.Enum):
    """Where a store path is; clients see the value."""

    STORED = "stored"  # its NAR is in this cache
    ARRIVING = "arriving"  # its NAR is on its way into this cache
    UPSTREAM = "upstream"  # an upstream has it, and is not known to be away
    ABSENT = "absent"  # each upstream has denied it, now or a moment ago
    UNKNOWN = "unknown"  # the upstreams were not asked, or could not tell


class PathState(NamedTuple):
    """The state of one store path: a plain tuple, because one answer has thousands.

    :param base: its base name, `<hash part>-<name>`; empty if unknown.
    :param upstream: name of the upstream that sent it or has it; empty if unknown.
    :param nar_size: bytes of the NAR; None if the path is unknown.
    :param file_size: bytes of the file behind the NAR's URL; None if unknown.
    """

    digest: str
    where: Where
    base: str = ""
    upstream: str = ""
    nar_size: int | None = None
    file_size: int | None = None


class ClosurePath(NamedTuple):
    """One path of a closure.

    :param base: its base name; only the hash part if it is the root and has no narinfo.
    :param narinfo: the text as served; empty if it cannot be shown.
    :param where: STORED, ARRIVING or UPSTREAM if there is a narinfo; else ABSENT or UNKNOWN.
    """

    digest: str
    base: str
    narinfo: bytes
    where: Where


class Closure(Protocol):
    """A closure that is being read. Its opener closes it once."""

    @property
    def is_cut(self) -> bool:
        """Whether paths were left out because there are more than `MOST_PATHS`."""

    async def more(self) -> Sequence[ClosurePath]:
        """Return the next paths, at most a hundred; an empty sequence at the end.

        Raises Unavailable if the catalog cannot be asked.
        """

    def close(self) -> None:
        """Release the place, so that another client can read a closure."""


class Bulk(Protocol):
    """The verbs for many paths."""

    async def query(self, digests: Sequence[str], *, ask: bool) -> list[PathState]:
        """Return the states of these paths, in the order of the hash parts, each path once.

        Raises Unavailable if the catalog cannot be asked, Busy if too many such questions wait.

        :param digests: valid hash parts, at most `MOST_HASHES`.
        :param ask: whether to ask upstreams for the paths that are not known here.
        """

    async def closure(self, digest: str, *, fetch: bool) -> Closure:
        """Open the closure of a path.

        Raises NotFound or Unavailable if the path itself cannot be shown, Busy if too many
        closures are being read.

        :param fetch: whether to fetch the narinfos that are not known here.
        """
