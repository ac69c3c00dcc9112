"""What one client, and all of them together, may take of the server."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address

from attrs import frozen

from ncps.web.clients import UNIX


@frozen(kw_only=True)
class Limits:
    """Times in seconds, sizes in bytes.

    :param idle: silence between requests; Nix keeps connections for 90 s.
    :param head: from the first byte of a request to the end of its head.
    :param stall: a response of which the client takes no byte.
    :param linger: a refused body is still read for this long, so that the client sees why.
    :param rate: bytes a second that a client must take of a response, on average over `window`
        seconds in which it was waited for; 0 for any.
    :param connections: open at once, of all clients.
    :param connections_per_address: open at once, of one address; 0 for any number. Likewise
        requests that trusted proxies bring from one address.
    :param requests: being answered at once, of all clients; probes are always answered.
    :param head_size: of a request, its first line included.
    :param headers: fields in the head of a request.
    """

    idle: float = 120.0
    head: float = 10.0
    stall: float = 300.0
    linger: float = 2.0
    rate: float = 1024.0
    window: float = 300.0
    connections: int = 4096
    connections_per_address: int = 1000
    requests: int = 5000
    head_size: int = 16 * 1024
    headers: int = 500


class Peers:
    """Counts connections and requests by the address they come from; see `clients`."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._counts)

    def count(self, client: str) -> int:
        """How many there are from where this one comes; 0 for clients without an address."""
        return self._counts.get(_whence(client), 0)

    def opened(self, client: str) -> None:
        """Count one in."""
        whence = _whence(client)
        if whence:
            self._counts[whence] += 1

    def closed(self, client: str) -> None:
        """Count one out."""
        whence = _whence(client)
        if whence:
            self._counts[whence] -= 1
            if not self._counts[whence]:
                del self._counts[whence]


def _whence(client: str) -> str:
    """The address that counts: of IPv6 the /64, all of which belongs to one site (RFC 6177).

    Empty for clients on a UNIX socket: who may connect there is the file system's business.
    """
    if ":" not in client:
        return "" if client == UNIX else client
    return ip_address(client).packed[:8].hex()
