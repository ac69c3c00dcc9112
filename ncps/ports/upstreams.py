"""Upstreams and peers: whom to fetch from."""

from __future__ import annotations

from typing import Protocol

from ncps.nix.cacheinfo import CacheInfo
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey
from ncps.ports.bodies import Body


class UpstreamBody(Body, Protocol):
    """A NAR's bytes as an upstream sends them, already freed of any Content-Encoding.

    Raises Unconfirmed at the end where only the content can tell whether it is the end. May be
    closed while a chunk is awaited, which then raises Unavailable.
    """

    @property
    def start(self) -> int:
        """Offset of the first byte; 0 where the upstream ignored the range asked for."""

    @property
    def total(self) -> int | None:
        """Size of the whole object, if the upstream said so."""


class Upstream(Protocol):
    """One binary cache to fetch from."""

    @property
    def name(self) -> str:
        """Short and unique, for logs and metrics: host, port and path; no credentials."""

    @property
    def base_url(self) -> str:
        """Base URL without credentials and without query."""

    @property
    def priority(self) -> int:
        """Lower is asked first."""

    async def narinfo(self, digest: str) -> NarInfo:
        """Fetch and parse. NotFound: surely absent there. Unavailable, Corrupt: cannot tell."""

    async def open_nar(
        self, url: str, *, offset: int = 0, allow_encoding: bool = False
    ) -> UpstreamBody:
        """Open a NAR by the URL field of that upstream's narinfo (relative or absolute).

        Returns once the headers have arrived. NotFound, Unavailable, Corrupt.

        :param offset: first byte wanted; see `UpstreamBody.start` for what came.
        :param allow_encoding: whether a Content-Encoding on the wire is welcome.
        """

    async def stat_nar(self, url: str) -> int | None:
        """Ask for a NAR's size without its bytes; None: it is there, of unknown size.

        NotFound, Unavailable, Corrupt.
        """

    async def cache_info(self) -> CacheInfo:
        """Fetch nix-cache-info. NotFound, Unavailable, Corrupt."""


class Peers(Protocol):
    """The other processes of this cache, each at the address it holds its leases under.

    Nothing is fetched for a peer: it follows what is arriving anyway.
    """

    async def find_nar(self, address: str, key: NarKey) -> str:
        """Say which file of a NAR is arriving there; files of one name have the same bytes.

        NotFound: none is. Unavailable, Corrupt: cannot tell.
        """

    async def open_nar(self, address: str, key: NarKey, *, offset: int = 0) -> UpstreamBody:
        """Follow a NAR that is arriving there, from this byte on. Errors as for `find_nar`.

        A Body that ends without raising was found right there, to its last byte.
        """
