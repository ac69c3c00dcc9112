"""Upstreams and peers: the places to fetch from."""

from __future__ import annotations

from typing import Protocol

from ncps.nix.cacheinfo import CacheInfo
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey
from ncps.nix.realisation import Realisation, RealisationKey
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
        """Fetch and parse a narinfo.

        Raises NotFound if it is surely absent there, Unavailable or Corrupt if that cannot be told.
        """

    async def realisation(self, key: RealisationKey) -> Realisation:
        """Fetch and parse a realisation. Raises the errors of `narinfo`."""

    async def open_nar(
        self, url: str, *, offset: int = 0, allow_encoding: bool = False
    ) -> UpstreamBody:
        """Open a NAR by the URL field of that upstream's narinfo (relative or absolute).

        Returns once the headers have arrived. Raises NotFound if it is surely absent there,
        Unavailable or Corrupt if that cannot be told.

        :param offset: first byte wanted; `UpstreamBody.start` says which one came.
        :param allow_encoding: whether a Content-Encoding on the wire is welcome.
        """

    async def stat_nar(self, url: str) -> int | None:
        """Ask for a NAR's size without its bytes; None: it is there, of unknown size.

        Raises the errors of `open_nar`.
        """

    async def text(self, path: str, limit: int) -> bytes:
        """Fetch a whole object that is not a narinfo or a NAR, freed of any Content-Encoding.

        Raises NotFound if it is surely absent there, Unavailable or Corrupt if that cannot be told,
        Oversized if it has more than `limit` bytes.

        :param path: below the base URL; quoted as in a URL.
        """

    async def cache_info(self) -> CacheInfo:
        """Fetch nix-cache-info. Raises the errors of `narinfo`."""


class Peers(Protocol):
    """The other processes of this cache, each at the address in its leases.

    Nothing is fetched for a peer: it follows what is arriving anyway.
    """

    async def find_nar(self, address: str, key: NarKey) -> str:
        """Say which file of a NAR is arriving there; files of one name have the same bytes.

        Raises NotFound if none is, Unavailable or Corrupt if that cannot be told.
        """

    async def open_nar(self, address: str, key: NarKey, *, offset: int = 0) -> UpstreamBody:
        """Follow a NAR that is arriving there, from this byte on. Raises the errors of `find_nar`.

        A Body that ends without raising was found right there, to its last byte.
        """
