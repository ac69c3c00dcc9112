from __future__ import annotations

import socket
from unittest import mock

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.trial.unittest import SynchronousTestCase

from ncps.assembly.greeting import greeting
from ncps.assembly.role import Entrance
from ncps.settings.load import load
from tests.unit.settings.around import surroundings

LOCAL = IPv4Address("TCP", "127.0.0.1", 8501)


class GreetingTests(SynchronousTestCase):
    is_encrypted = False

    def text(self, *addresses: IAddress, **flags: str) -> str:
        settings = load(
            {flag.replace("_", "-"): [text] for flag, text in flags.items()},
            surroundings=surroundings(),
        )
        entrances = [
            Entrance(mock.Mock(getHost=mock.Mock(return_value=address)), self.is_encrypted)
            for address in addresses
        ]
        return greeting(settings, "box:key=", entrances)

    def test_facts_for_a_newcomer(self) -> None:
        """The places of data, the upstreams, the largest size, and two lines for Nix."""
        text = self.text(LOCAL)
        for part in (
            "/state/storage\n",
            "db.sqlite\n",
            "https://cache.nixos.org\n",
            "until 1G of the disk are free (cache-storage-min-free)",
            "\n    substituters = http://127.0.0.1:8501\n    trusted-public-keys = box:key=\n",
        ):
            self.assertIn(part, text)

    def test_other_settings(self) -> None:
        """A limit, a bucket and a database server are shown, without a password."""
        text = self.text(
            LOCAL,
            cache_max_size="200G",
            cache_storage_s3_bucket="nars",
            cache_storage_s3_endpoint="http://s3",
            cache_database_url="postgresql://me:hunter2@db/ncps",
            cache_upstream_url="http://me:hunter2@upstream",
        )
        for part in ("at most 200G", "the bucket nars", "db/ncps", "Upstream  http://upstream"):
            self.assertIn(part, text)
        self.assertNotIn("hunter2", text)
        no_limit = self.text(
            LOCAL, cache_storage_s3_bucket="nars", cache_storage_s3_endpoint="http://s3"
        )
        self.assertIn("without a limit", no_limit)

    def test_addresses(self) -> None:
        """The address is usable for clients: with the machine's name for all interfaces."""
        name = socket.gethostname()
        for addresses, expected in (
            ([IPv4Address("TCP", "0.0.0.0", 80)], f"http://{name}:80"),
            ([IPv6Address("TCP", "::", 80)], f"http://{name}:80"),
            ([IPv6Address("TCP", "2001:db8::1", 80)], "http://[2001:db8::1]:80"),
            ([UNIXAddress(b"/run/x"), LOCAL], "http://127.0.0.1:8501"),
            ([UNIXAddress(b"/run/x")], "<the address of your proxy>"),
        ):
            self.assertIn(f"substituters = {expected}\n", self.text(*addresses))

    def test_an_address_with_tls(self) -> None:
        """The address for Nix has https, also with the machine's name."""
        self.is_encrypted = True
        for address, expected in (
            (LOCAL, "https://127.0.0.1:8501"),
            (IPv4Address("TCP", "0.0.0.0", 443), f"https://{socket.gethostname()}:443"),
        ):
            self.assertIn(f"substituters = {expected}\n", self.text(address))
