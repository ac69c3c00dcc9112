"""Proxies: which hosts are reached through one, as curl and its users read the variables."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ncps.upstream.proxies import Bypass, Proxies, Proxy, address_of, is_this_machine

ONE, OTHER = Proxy(host="proxy.example", port=3128), Proxy(host="fd00::1", port=80)


class BypassTests(SynchronousTestCase):
    def test_names(self) -> None:
        """A name includes itself and its subdomains, with or without a dot in front."""
        for entry in ("example.org", ".example.org", "*.example.org", " EXAMPLE.org. "):
            bypass = Bypass([entry])
            for host in ("example.org", "cache.example.org", "CACHE.Example.ORG", "example.org."):
                self.assertTrue(bypass.covers(host, 443), (entry, host))
            for host in ("notexample.org", "example.org.evil.example", "org", "10.0.0.1"):
                self.assertFalse(bypass.covers(host, 443), (entry, host))

    def test_addresses_and_networks(self) -> None:
        """They are compared with hosts that are addresses, in any spelling, and with no name."""
        bypass = Bypass(["10.0.0.0/8", "192.168.1.7", "fd00::/8", "[2001:db8::1]", "172.16.9.9/12"])
        for host in (
            *("10.1.2.3", "10.1", "192.168.1.7", "::ffff:10.0.0.1", "fd12::1", "2001:db8::1"),
            *("172.16.0.1", "172.31.255.255"),
        ):
            self.assertTrue(bypass.covers(host, 80), host)
        for host in ("11.0.0.1", "192.168.1.8", "fe00::1", "2001:db8::2", "ten.example"):
            self.assertFalse(bypass.covers(host, 80), host)

    def test_ports(self) -> None:
        """An entry with a port is for that port alone."""
        bypass = Bypass(["cache.example:8080", "10.0.0.7:81", "[fd00::7]:82"])
        for host, port in (("cache.example", 8080), ("10.0.0.7", 81), ("fd00::7", 82)):
            self.assertTrue(bypass.covers(host, port))
            self.assertFalse(bypass.covers(host, 443))

    def test_all_and_nothing(self) -> None:
        """A star means all hosts; an invalid entry means none."""
        self.assertTrue(Bypass(["x", "*"]).covers("cache.example", 1))
        for entry in ("", ".", ":80", "cache.example:x", "10.0.0.0/99", "*."):
            self.assertFalse(Bypass([entry]).covers("cache.example", 80), entry)


class ProxiesTests(SynchronousTestCase):
    def test_by_scheme(self) -> None:
        """Each scheme has its own proxy, or none."""
        proxies = Proxies(http=ONE, https=OTHER)
        self.assertIs(ONE, proxies.choose("http", "cache.example", 80))
        self.assertIs(OTHER, proxies.choose("https", "cache.example", 443))
        self.assertIsNone(Proxies(http=ONE).choose("https", "cache.example", 443))

    def test_this_machine_never(self) -> None:
        """In each of its spellings."""
        proxies = Proxies(http=ONE, https=ONE)
        for host in (
            *("localhost", "LOCALHOST.", "x.localhost", "127.0.0.1", "127.9.9.9", "127.1", "::1"),
            *("0x7f000001", "2130706433", "::ffff:127.0.0.1", "0.0.0.0", "::"),
        ):
            self.assertTrue(is_this_machine(host), host)
            self.assertIsNone(proxies.choose("http", host, 80), host)
        for host in ("localhost.example", "10.0.0.1", "128.0.0.1", "fd00::1", "1.example"):
            self.assertIs(ONE, proxies.choose("http", host, 80), host)

    def test_bypass(self) -> None:
        """Excepted hosts are reached without a proxy."""
        proxies = Proxies(http=ONE, bypass=Bypass(["lan"]))
        self.assertIsNone(proxies.choose("http", "nas.lan", 80))
        self.assertIs(ONE, proxies.choose("http", "cache.example", 80))

    def test_names(self) -> None:
        """A proxy's name is host and port, and its credentials are never shown."""
        self.assertEqual(("proxy.example:3128", "[fd00::1]:80"), (ONE.name, OTHER.name))
        self.assertNotIn("secret", repr(Proxy(host="h", port=1, authorization=b"secret")))

    def test_names_are_no_addresses(self) -> None:
        """Also names that begin with a digit."""
        for host in ("", "cache.example", "1.example", "beef", "999.999.999.999", "1.2.3.4.5"):
            self.assertIsNone(address_of(host), host)
