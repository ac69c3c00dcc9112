"""The counts of connections and requests from each address."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address

from ncps.web.clients import UNIX


class AddressCounts:
    """Counts of connections and requests by the address that they come from; see `clients`."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._counts)

    def count(self, client: str) -> int:
        """Return the count for the address of a client; 0 for a client without an address."""
        return self._counts.get(_whence(client), 0)

    def opened(self, client: str) -> None:
        """Add one to the count of a client's address."""
        whence = _whence(client)
        if whence:
            self._counts[whence] += 1

    def closed(self, client: str) -> None:
        """Take one from the count of a client's address."""
        whence = _whence(client)
        if whence:
            self._counts[whence] -= 1
            if not self._counts[whence]:
                del self._counts[whence]


def _whence(client: str) -> str:
    """Return the address to count by: for IPv6 the /64, which belongs to one site (RFC 6177).

    Empty for clients on a UNIX socket: the file system decides which clients may connect there.
    """
    if ":" not in client:
        return "" if client == UNIX else client
    return ip_address(client).packed[:8].hex()
