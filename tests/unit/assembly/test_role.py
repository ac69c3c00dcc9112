"""The role of a process, and its addresses in the log."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ncps.assembly.role import address_of


@implementer(IListeningPort)
class Port:
    """A listening port."""

    def __init__(self, where: IAddress) -> None:
        self._where = where

    def startListening(self) -> None: ...

    def stopListening(self) -> None: ...

    def getHost(self) -> IAddress:
        return self._where


class AddressTests(SynchronousTestCase):
    def test_addresses_can_be_pasted(self) -> None:
        """A browser, or the settings, accept them."""
        for where, text in (
            (IPv4Address("TCP", "127.0.0.1", 80), "http://127.0.0.1:80"),
            (IPv6Address("TCP", "::1", 80), "http://[::1]:80"),
            (UNIXAddress("/run/é.sock".encode()), "unix:/run/é.sock"),
            (UNIXAddress(None), "unix:?"),
        ):
            self.assertEqual(text, address_of(Port(where)))
