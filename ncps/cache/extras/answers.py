"""The verbs for extras, and their answers: all that the web floor knows of them.

The verbs raise the errors of `ncps.errors`, as those of `ncps.cache.answers.Cache`.
"""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from ncps.cache.answers import Outcome
from ncps.ports import Body


@frozen(kw_only=True)
class ServedExtra:
    """An extra for a client, who closes its body.

    :param size: bytes of the body.
    :param upstream: name of the upstream it came from just now; empty otherwise.
    :param path: base name of the store path that it is about; empty if none is known.
    """

    body: Body
    size: int
    outcome: Outcome
    upstream: str = ""
    path: str = ""


class Extras(Protocol):
    """Logs, listings and debug information.

    Of each verb that finds something: with `is_local`, no upstream is asked.
    """

    @property
    def max_size(self) -> int:
        """Bytes of an uploaded extra, at most."""

    async def log(self, name: str, *, is_local: bool = False) -> ServedExtra:
        """Find or fetch the log of a build, by the base name of its derivation.

        Raises Malformed if that is none, NotFound, Unavailable or Corrupt if it cannot be had.
        """

    async def add_log(self, name: str, data: bytes, encoding: str = "") -> bool:
        """Keep the log that a client has brought; return whether it is new.

        Raises Malformed for another name or wrong data, TooLarge, Conflict if a client has brought
        another log before, StorageFull or Unavailable if it cannot be kept.

        :param encoding: how it is compressed, as in Content-Encoding.
        """

    async def listing(self, digest: str, *, is_local: bool = False) -> ServedExtra:
        """List the files of a store path, by its hash part.

        Raises NotFound, Unavailable or Corrupt if that cannot be done.
        """

    async def debug_link(self, build_id: str, *, is_local: bool = False) -> ServedExtra:
        """Say which NAR has the symbols of a program. The NAR can be had from this cache.

        Raises NotFound, Unavailable or Corrupt if that is not known.
        """

    async def add_debug_link(self, build_id: str, text: bytes) -> bool:
        """Keep the link that a client has brought; return whether it is new.

        Raises Malformed if it is none, Conflict if there is another one whose NAR is stored,
        StorageFull or Unavailable if it cannot be kept.
        """

    async def symbols(self, build_id: str) -> ServedExtra:
        """Open the file with the symbols of a program, which lies in a NAR.

        Raises NotFound, Unavailable or Corrupt if it cannot be had.
        """
