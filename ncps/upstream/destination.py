"""Destination: one upstream, with the deadlines, credentials and proxies for its requests."""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import urlsplit

from attrs import frozen

from ncps.aio.resolver import Resolver
from ncps.upstream.proxies import NO_PROXIES, Proxies


@frozen(kw_only=True)
class Timeouts:
    """Deadlines of requests to one upstream, in seconds.

    :param connect_s: until the connection is made, with TLS.
    :param first_byte_s: from then until the head of the answer has arrived.
    :param nar_s: the same for a NAR, which some upstreams must fetch or build first.
    :param idle_s: between two pieces of a body.
    """

    connect_s: float
    first_byte_s: float
    nar_s: float
    idle_s: float


@frozen(kw_only=True)
class BasicCredentials:
    """User and password for an upstream, sent to its own origin only."""

    user: str
    password: str = ""

    def header(self) -> bytes:
        """Return the value of the Authorization header (RFC 7617)."""
        return b"Basic " + b64encode(f"{self.user}:{self.password}".encode())

    def __repr__(self) -> str:
        return "BasicCredentials(...)"


@frozen(kw_only=True)
class Destination:
    """One upstream.

    :param resolver: looks host names up; None for the reactor's resolver.
    :param proxies: choose the proxy for a URL.
    :param gets_traces: whether the upstream gets the headers by which it can continue our
        traces.
    """

    base_url: str
    timeouts: Timeouts
    credentials: BasicCredentials | None = None
    resolver: Resolver | None = None
    proxies: Proxies = NO_PROXIES
    gets_traces: bool = False

    @property
    def origin(self) -> tuple[str, str, int | None]:
        """Scheme, host and port of the upstream."""
        return origin_of(self.base_url)

    @property
    def is_proxied(self) -> bool:
        """Whether requests to the upstream's own origin go through a proxy."""
        scheme, host, port = self.origin
        return self.proxies.choose(scheme, host, port or 0) is not None


def origin_of(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port of a URL. Raises ValueError if it is no URL."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname or "", port
