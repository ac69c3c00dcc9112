"""The verbs for many store paths, and their answers: all that the web floor knows of them."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple, Protocol

MOST_HASHES = 10_000
"""Hash parts in one question."""

MOST_PATHS = 100_000
"""Paths of one closure; those beyond are not listed."""


class Where(enum.Enum):
    """Where a store path is; the value is shown to clients."""

    STORED = "stored"  # its NAR is in this cache
    ARRIVING = "arriving"  # its NAR is on its way into this cache
    UPSTREAM = "upstream"  # an upstream has it, which is not known to be away
    ABSENT = "absent"  # every upstream has denied it, a moment ago at the most
    UNKNOWN = "unknown"  # the upstreams were not asked, or could not tell


class PathState(NamedTuple):
    """The state of one store path. It is a plain value, since one answer has thousands.

    :param base: its base name, `<hash part>-<name>`; empty if it is not known.
    :param upstream: name of the upstream that it came from or is at; empty if that is not known.
    :param nar_size: bytes of the NAR; None if the path is not known.
    :param file_size: bytes behind the URL of the NAR; None if they are not known.
    """

    digest: str
    where: Where
    base: str = ""
    upstream: str = ""
    nar_size: int | None = None
    file_size: int | None = None


class ClosurePath(NamedTuple):
    """One path of a closure.

    :param base: its base name; only the hash part for the root of a closure without narinfo.
    :param narinfo: as it is served; empty if it cannot be shown.
    :param where: says why there is no narinfo: ABSENT or UNKNOWN. STORED, ARRIVING or UPSTREAM
        where there is one.
    """

    digest: str
    base: str
    narinfo: bytes
    where: Where


class Closure(Protocol):
    """A closure as it is read. Its opener closes it once."""

    @property
    def is_cut(self) -> bool:
        """Whether paths were left out because there are more than `MOST_PATHS`."""

    async def more(self) -> Sequence[ClosurePath]:
        """Return the next paths, at most a hundred; none at the end.

        Raises Unavailable if the catalog cannot be asked.
        """

    def close(self) -> None:
        """Let another client have the place."""


class Bulk(Protocol):
    """The verbs for many paths."""

    async def query(self, digests: Sequence[str], *, ask: bool) -> list[PathState]:
        """Say where each of these paths is, in their order, and once for each.

        :param digests: valid hash parts, at most `MOST_HASHES`.
        :param ask: whether upstreams are asked for those that are not known here.

        Raises Unavailable if the catalog cannot be asked, Busy if too many such questions wait.
        """

    async def closure(self, digest: str, *, fetch: bool) -> Closure:
        """Open the closure of a path.

        :param fetch: whether narinfos that are not known here are fetched.

        Raises NotFound or Unavailable if the path itself cannot be shown, Busy if too many
        closures are being read.
        """
