"""Upstreams and peers: the places to fetch from."""

from __future__ import annotations

from typing import Protocol

from ncps.nix.cacheinfo import CacheInfo
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey
from ncps.nix.realisation import Realisation, RealisationKey
from ncps.ports.bodies import Body


class UpstreamBody(Body, Protocol):
    """A NAR's bytes as an upstream sends them, without any Content-Encoding.

    It raises Unconfirmed at the end if only the content can show whether it is the end. It may be
    closed during the wait for a chunk, which then raises Unavailable.
    """

    @property
    def start(self) -> int:
        """Offset of the first byte; 0 if the upstream ignored the requested range."""

    @property
    def total(self) -> int | None:
        """Size of the whole object, if the upstream gave it."""


class Upstream(Protocol):
    """One binary cache to fetch from."""

    @property
    def name(self) -> str:
        """A short, unique name for logs and metrics: host, port and path; no credentials."""

    @property
    def base_url(self) -> str:
        """Base URL without credentials and without query."""

    @property
    def priority(self) -> int:
        """The upstream with the lowest number is asked first."""

    async def narinfo(self, digest: str) -> NarInfo:
        """Fetch and parse a narinfo.

        Raises NotFound if it is surely absent there, Unavailable or Corrupt if that is unknown.
        """

    async def realisation(self, key: RealisationKey) -> Realisation:
        """Fetch and parse a realisation. Raises the errors of `narinfo`."""

    async def open_nar(
        self, url: str, *, offset: int = 0, allow_encoding: bool = False
    ) -> UpstreamBody:
        """Open a NAR by the URL field of that upstream's narinfo (relative or absolute).

        It returns when the headers have arrived. Raises NotFound if it is surely absent there,
        Unavailable or Corrupt if that is unknown.

        :param offset: the first byte to request; `UpstreamBody.start` is the first one that came.
        :param allow_encoding: whether the upstream may use a Content-Encoding.
        """

    async def stat_nar(self, url: str) -> int | None:
        """Return a NAR's size without its bytes; None: it exists, but its size is unknown.

        Raises the errors of `open_nar`.
        """

    async def text(self, path: str, limit: int) -> bytes:
        """Fetch a whole object other than a narinfo or a NAR, without any Content-Encoding.

        Raises NotFound if it is surely absent there, Unavailable or Corrupt if that is unknown,
        Oversized if it has more than `limit` bytes.

        :param path: below the base URL; quoted as in a URL.
        """

    async def cache_info(self) -> CacheInfo:
        """Fetch nix-cache-info. Raises the errors of `narinfo`."""


class Peers(Protocol):
    """The other processes of this cache, each at the address in its leases.

    A peer can follow only a NAR that arrives anyway: no process fetches for a peer.
    """

    async def find_nar(self, address: str, key: NarKey) -> str:
        """Return the name of the file of a NAR that arrives there; its bytes are the same.

        Raises NotFound if none arrives, Unavailable or Corrupt if that is unknown.
        """

    async def open_nar(self, address: str, key: NarKey, *, offset: int = 0) -> UpstreamBody:
        """Follow a NAR that arrives there, from this byte on. Raises the errors of `find_nar`.

        If the Body ends without an error, the peer has verified all its bytes.
        """
