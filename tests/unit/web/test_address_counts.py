"""Clients that count as one address."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.trial.unittest import SynchronousTestCase

from ncps.web.address_counts import AddressCounts
from ncps.web.clients import plain_address


def v6(host: str) -> IPv6Address:
    return IPv6Address("TCP", host, 1)


class PeersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.peers = AddressCounts()

    def both(self, first: IAddress, second: IAddress) -> int:
        """Return the count for the second client when the first has a connection."""
        self.peers.opened(plain_address(first))
        found = self.peers.count(plain_address(second))
        self.peers.closed(plain_address(first))
        return found

    def test_ports_do_not_matter(self) -> None:
        """All connections of a machine count together."""
        first, second = (IPv4Address("TCP", "192.0.2.1", port) for port in (1, 2))
        self.assertEqual(self.both(first, second), 1)
        self.assertEqual(self.both(first, IPv4Address("TCP", "192.0.2.2", 1)), 0)

    def test_ipv6_counts_by_network(self) -> None:
        """A client with one address has its whole /64; scopes and spellings do not matter."""
        self.assertEqual(self.both(v6("2001:db8::1"), v6("2001:db8:0:0:1::2")), 1)
        self.assertEqual(self.both(v6("2001:db8::1"), v6("2001:db8:0:1::1")), 0)
        self.assertEqual(self.both(v6("fe80::1%eth0"), v6("fe80::2%eth0")), 1)

    def test_ipv4_on_a_socket_of_both_families_counts_by_address(self) -> None:
        """Mapped addresses count separately."""
        self.assertEqual(self.both(v6("::ffff:192.0.2.1"), v6("::ffff:192.0.2.2")), 0)
        self.assertEqual(self.both(v6("::ffff:192.0.2.1"), IPv4Address("TCP", "192.0.2.1", 1)), 1)

    def test_unix_sockets_have_no_address(self) -> None:
        """Clients on a UNIX socket, such as a proxy, are not counted."""
        self.assertEqual(self.both(UNIXAddress(None), UNIXAddress(None)), 0)
        self.assertEqual(self.peers.count(plain_address(None)), 0)

    def test_a_closed_connection_leaves_nothing(self) -> None:
        """Memory does not grow with the number of former addresses."""
        addresses = [f"192.0.2.{n}" for n in range(200)]
        for address in addresses:
            self.peers.opened(address)
        self.assertEqual(len(self.peers), 200)
        for address in addresses:
            self.peers.closed(address)
        self.assertEqual(len(self.peers), 0)
