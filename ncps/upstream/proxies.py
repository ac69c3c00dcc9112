"""Proxies: chooses the proxy for a request to an upstream, if any.

Requests to this machine never go through a proxy, because the proxy would connect to its own
machine. Requests to a host in `no_proxy` do not go through one, either. `tunnel` and `requester`
talk to the proxies.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from attrs import field, frozen

_MAPPED = IPv6Network("::ffff:0:0/96")


@frozen(kw_only=True)
class Proxy:
    """An HTTP proxy.

    :ivar is_secured: whether connections to it use TLS.
    :ivar authorization: value of Proxy-Authorization; empty for none.
    """

    host: str
    port: int
    is_secured: bool = False
    authorization: bytes = field(default=b"", repr=False)

    @property
    def name(self) -> str:
        """Host and port, for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address_of(host: str) -> IPv4Address | IPv6Address | None:
    """Return the IP address that a host in a URL is, in any spelling; None if it is a name.

    Systems accept `127.1`, `0x7f000001` and `2130706433` as addresses, too.
    """
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        if not host or host[0] not in "0123456789":
            return None
        try:
            return IPv4Address(socket.inet_aton(host))
        except (OSError, UnicodeError):
            return None
    is_mapped = isinstance(address, IPv6Address) and address in _MAPPED
    return IPv4Address(int(address) & 0xFFFFFFFF) if is_mapped else address


def is_this_machine(host: str) -> bool:
    """Return whether the host in a URL is this machine."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = address_of(name)
    return address is not None and (address.is_loopback or address.is_unspecified)


class Bypass:
    """The hosts that are reached without a proxy, as `no_proxy` lists them.

    :param entries: host names, addresses, or networks such as `10.0.0.0/8` for hosts that are
        addresses. A host name includes its subdomains, with or without a dot or `*.` in front. A
        name or address may have a `:port`. `*` means all hosts.
    """

    def __init__(self, entries: Iterable[str] = ()) -> None:
        self._names: list[tuple[str, int | None]] = []
        self._networks = []
        self.is_all = False
        for entry in (text.strip().lower() for text in entries):
            if entry == "*":
                self.is_all = True
                continue
            try:
                self._networks.append(ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                if name := _with_port(entry):
                    self._names.append(name)

    def covers(self, host: str, port: int) -> bool:
        """Return whether a host, as a URL has it, is reached without a proxy."""
        if self.is_all:
            return True
        address = address_of(host)
        if address is not None and any(address in network for network in self._networks):
            return True
        host = host.lower().rstrip(".")
        return any(
            (host == name or (address is None and host.endswith(f".{name}")))
            and only in (None, port)
            for name, only in self._names
        )


def _with_port(entry: str) -> tuple[str, int | None] | None:
    """Return host and port of an entry; None if the entry has another form."""
    host, colon, port = entry.rpartition(":")
    if not colon:
        host, port = entry, ""
    elif not port.isdigit():
        return None
    name = host.strip("[]").removeprefix("*").strip(".")
    return (name, int(port) if port else None) if name else None


@frozen(kw_only=True)
class Proxies:
    """The proxies of an upstream.

    :param http: for http URLs; None for no proxy.
    :param https: for https URLs; None for no proxy.
    :param bypass: hosts that are reached without a proxy.
    """

    http: Proxy | None = None
    https: Proxy | None = None
    bypass: Bypass = field(factory=Bypass)

    def choose(self, scheme: str, host: str, port: int) -> Proxy | None:
        """Return the proxy for a URL; None if there is none.

        :param host: the host in the URL, without brackets.
        """
        proxy = self.https if scheme == "https" else self.http
        if proxy is None or is_this_machine(host) or self.bypass.covers(host, port):
            return None
        return proxy


NO_PROXIES = Proxies()
