"""The address of a client: that of its connection, or the one that a trusted proxy names.

A proxy appends the address of its own client to the field. So ncps uses the last address that
belongs to no trusted proxy: any client may have written the addresses before it. `Forwarded` (RFC
7239) counts only without `X-Forwarded-For`: a proxy that writes one of the two passes the other on
unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from twisted.internet.interfaces import IAddress
from twisted.web.http_headers import Headers

UNIX = "unix"
"""In place of the address of a client on a UNIX socket, which has none."""
MOST_HOPS = 32
"""Addresses of one request that are read, from the last one on."""

_WITH_PORT = re.compile(r"\[([^\]]*)\](?::\d{1,5})?|(\d+\.\d+\.\d+\.\d+):\d{1,5}", re.ASCII)
_FOR = re.compile(r'for=(?:"([^"]*)"|([^;,\s"]*))', re.IGNORECASE)


def plain_address(peer: IAddress | None) -> str:
    """Write the address of a connection in its usual form; `UNIX` if it has none."""
    host = getattr(peer, "host", None)
    return UNIX if not host else _plain(host) or str(host)


def _plain(host: str) -> str:
    """Write an address: a mapped IPv4 as IPv4, IPv6 without a zone; empty for other texts."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


class TrustedProxies:
    """The proxies that ncps trusts to name their clients.

    :param networks: addresses and networks, and `UNIX` for connections over a UNIX socket.
    """

    def __init__(self, networks: Iterable[str] = ()) -> None:
        given = set(networks)
        self._trusts_unix = UNIX in given
        self._networks: list[IPv4Network | IPv6Network] = [
            ip_network(text) for text in sorted(given - {UNIX})
        ]

    def trusts(self, address: str) -> bool:
        """Whether an address, as `plain_address` writes it, is a trusted proxy."""
        if address == UNIX:
            return self._trusts_unix
        if not self._networks:
            return False
        found = ip_address(address)
        return any(found in network for network in self._networks)

    def client(self, address: str, headers: Headers) -> str:
        """Return the client that the trusted proxy at `address` names, else the proxy."""
        client = address
        for hop in _hops(headers):
            if not hop:  # not an address, so those before it are not trusted either
                break
            client = hop
            if not self.trusts(hop):
                break
        return client


def _hops(headers: Headers) -> Iterator[str]:
    """Yield addresses, the last one first; an empty text for an entry that is no address."""
    values = headers.getRawHeaders(b"x-forwarded-for")
    pattern = None
    if values is None:
        values, pattern = headers.getRawHeaders(b"forwarded", []), _FOR
    text = b",".join(values).decode("latin-1")
    for part in reversed(text.rsplit(",", MOST_HOPS)[-MOST_HOPS:]):
        if pattern is None:
            yield _address(part.strip())
        elif part.strip():
            match = pattern.search(part)
            yield _address((match[1] or match[2] or "") if match else "")


def _address(text: str) -> str:
    match = _WITH_PORT.fullmatch(text)
    return _plain((match[1] or match[2]) if match else text)
