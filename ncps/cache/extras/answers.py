"""The verbs for extras, and their answers: all that the web layer knows of them.

The verbs raise the errors of `ncps.errors`, as those of `ncps.cache.answers.Cache`.
"""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from ncps.cache.answers import Outcome
from ncps.ports import Body


@frozen(kw_only=True)
class ServedExtra:
    """An extra for a client; the caller closes its body.

    :param size: bytes of the body.
    :param upstream: name of the upstream that sent it for this request; empty otherwise.
    :param path: base name of the store path that it describes; empty if unknown.
    """

    body: Body
    size: int
    outcome: Outcome
    upstream: str = ""
    path: str = ""


class Extras(Protocol):
    """The verbs for logs, listings and debug information. With `is_local`, they ask no upstream."""

    @property
    def max_size(self) -> int:
        """Bytes of an uploaded extra, at most."""

    async def log(self, name: str, *, is_local: bool = False) -> ServedExtra:
        """Find or fetch the log of a build, by the base name of its derivation.

        Raises Malformed if `name` is no such base name, NotFound, Unavailable or Corrupt if neither
        the store nor an upstream has the log.
        """

    async def add_log(self, name: str, data: bytes, encoding: str = "") -> bool:
        """Keep the log that a client uploads; return whether it is new.

        Raises Malformed if `name` is no base name of a derivation or the data is damaged, TooLarge
        if it is too long, Conflict if a client has uploaded another log before, StorageFull or
        Unavailable if it cannot be kept.

        :param encoding: the compression of the data, as in Content-Encoding.
        """

    async def listing(self, digest: str, *, is_local: bool = False) -> ServedExtra:
        """Return the listing of a store path, by its hash part.

        Raises NotFound, Unavailable or Corrupt if neither the NAR nor an upstream gives one.
        """

    async def debug_link(self, build_id: str, *, is_local: bool = False) -> ServedExtra:
        """Return the link to the NAR with the symbols of a program, which this cache can serve.

        Raises NotFound, Unavailable or Corrupt if no such link is known.
        """

    async def add_debug_link(self, build_id: str, text: bytes) -> bool:
        """Keep the link that a client uploads; return whether it is new.

        Raises Malformed if the text is no link, Conflict if there is another link whose NAR is
        stored, StorageFull or Unavailable if it cannot be kept.
        """

    async def symbols(self, build_id: str) -> ServedExtra:
        """Open the file with the symbols of a program, which is inside a NAR.

        Raises NotFound, Unavailable or Corrupt if no such file can be read.
        """
