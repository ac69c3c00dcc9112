"""Where an upstream may lead, with a resolver of the test and connections in memory."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IHostnameResolver
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ncps.errors import Corrupt, NcpsError, Unavailable
from ncps.settings.schema.upstream import UpstreamsSettings
from ncps.upstream.agent import Answer, Client
from ncps.upstream.destination import Destination, Timeouts
from ncps.upstream.reach import SETTING, is_internal
from tests.fakes.wire import Line, Wire

PUBLIC, OTHER, PUBLIC_V6 = "93.184.215.14", "151.101.2.217", "2606:4700::1111"
METADATA = "169.254.169.254"


class AddressTests(SynchronousTestCase):
    def test_internal(self) -> None:
        """Addresses outside the public internet, in each spelling and embedding."""
        for address in (
            *("127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255"),
            *("192.168.1.1", METADATA, "100.64.0.1", "100.127.255.255", "0.0.0.0", "0.1.2.3"),
            *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "198.18.0.1"),
            *("192.0.2.1", "192.88.99.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1"),
            *("fd00:ec2::254", "fec0::1", "ff02::1", "ff0e::1", "2001:db8::1", "100::1"),
            *("::ffff:127.0.0.1", "::ffff:10.0.0.1", f"::ffff:{METADATA}", "::127.0.0.1"),
            *("64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2002:a00:1::1", "2001::1"),
            *("", "localhost", "cache.example", "127.1", "2130706433"),
        ):
            self.assertTrue(is_internal(address), address)

    def test_public(self) -> None:
        """Public addresses, also translated ones."""
        for address in (
            *(PUBLIC, OTHER, "1.1.1.1", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1"),
            *(PUBLIC_V6, "2a00:1450::1", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1"),
        ):
            self.assertFalse(is_internal(address), address)


@implementer(IHostnameResolver)
class Names:
    """A resolver of names whose addresses a test changes; an unknown name has none.

    :ivar is_mute: whether look-ups never end.
    """

    def __init__(self, **addresses: Sequence[str]) -> None:
        self.addresses = {name.replace("_", "."): found for name, found in addresses.items()}
        self.asked: list[str] = []
        self.is_mute = False

    def resolveHostName(
        self,
        resolutionReceiver: Any,  # noqa: N803 - Twisted's names
        hostName: str,  # noqa: N803
        portNumber: int = 0,  # noqa: N803
        addressTypes: Any = None,  # noqa: N803
        transportSemantics: str = "TCP",  # noqa: N803
    ) -> Any:
        self.asked.append(hostName)
        resolutionReceiver.resolutionBegan(None)
        if self.is_mute:
            return
        for address in self.addresses.get(hostName, _in_figures(hostName)):
            kind = IPv6Address if ":" in address else IPv4Address
            resolutionReceiver.addressResolved(kind("TCP", address, portNumber))
        resolutionReceiver.resolutionComplete()


def _in_figures(host: str) -> list[str]:
    try:
        return [str(ip_address(host))]
    except ValueError:
        return []


class ReachCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.wire = Wire()
        self.names = Names(cache_example=[PUBLIC], files_example=[OTHER], cache_lan=["10.0.0.7"])
        self.wire.installNameResolver(self.names)
        self.client = self.client_of("http://cache.example")

    def client_of(self, base_url: str, *, may_lead_inside: bool = False, **options: Any) -> Client:
        timeouts = Timeouts(connect_s=3, first_byte_s=4, nar_s=50, idle_s=20)
        destination = Destination(base_url=base_url, timeouts=timeouts, **options)
        bounds = UpstreamsSettings(allow_internal_addresses=may_lead_inside)
        return Client(self.wire, destination, bounds=bounds)

    def ask(self, url: str) -> Deferred[Answer]:
        return Deferred.fromCoroutine(self.client.request("GET", url))

    def answered(self, url: str, location: str = "") -> Line:
        """Ask on a new connection; answer, with a redirect if a target is given."""
        asking = self.ask(url)
        line = self.wire.accept()
        if location:
            line.answer("302 Found", location=location)
            asking.addErrback(lambda _: None)
        else:
            line.answer()
            self.successResultOf(asking).body.close()
        return line

    def redirected(self, location: str) -> Deferred[Answer]:
        """Ask the upstream, which redirects."""
        asking = self.ask("http://cache.example/x")
        used = self.wire.lines[-1] if self.wire.lines and self.wire.lines[-1].is_up else None
        (used or self.wire.accept()).answer("302 Found", location=location)
        return asking

    def refused(self, asking: Deferred[Answer], kind: type[NcpsError], *words: str) -> None:
        self.pass_by()
        error = self.failureResultOf(asking, kind).value
        for word in (*words, SETTING):
            self.assertIn(word, str(error))

    def pass_by(self) -> None:
        """Let all addresses of a name be tried."""
        self.wire.pump([0.3] * 4)

    @property
    def hosts(self) -> list[str]:
        """Return the addresses to which connections were begun."""
        return [client[0] for client in self.wire.tcpClients]


class PublicUpstreamTests(ReachCase):
    def test_urls_that_lead_inside(self) -> None:
        """No connection begins, for any spelling of the address."""
        self.names.addresses["inside.example"] = ["192.168.1.1"]
        self.names.addresses["mapped.example"] = [f"::ffff:{METADATA}"]
        self.names.addresses["six.example"] = ["fd00::1"]
        self.names.addresses["127.1"] = ["127.0.0.1"]
        self.names.addresses["localhost"] = ["::1", "127.0.0.1"]
        for url, address in (
            (f"http://{METADATA}/latest/meta-data", METADATA),
            ("http://inside.example/nar/x", "192.168.1.1"),
            ("http://mapped.example/", f"::ffff:{METADATA}"),
            ("http://127.1:8501/", "127.0.0.1"),
            ("http://localhost/", "127.0.0.1"),
            ("http://six.example:6379/", "fd00::1"),
            ("https://10.0.0.1/", "10.0.0.1"),
            ("http://cache.example@127.0.0.1/", ""),
        ):
            asking = self.ask(url)
            if address:
                self.refused(asking, Corrupt, f"leads to {address}, an internal address")
            else:
                self.failureResultOf(asking, Corrupt)
        self.assertEqual([], self.hosts)

    def test_redirects_that_lead_inside(self) -> None:
        """Each redirect is checked, also after others."""
        asking = self.redirected(f"http://{METADATA}/")
        self.refused(asking, Unavailable, "a redirect to", f"leads to {METADATA}")
        asking = self.redirected("http://files.example/x")
        self.assertNoResult(asking)
        self.wire.accept().answer("302 Found", location="http://127.0.0.1:8501/")
        self.refused(asking, Unavailable, "leads to 127.0.0.1")
        self.assertEqual([PUBLIC, OTHER], self.hosts)

    def test_other_public_addresses(self) -> None:
        """All public addresses are allowed."""
        self.answered("http://cache.example/x")
        self.answered("http://files.example/x")
        self.names.addresses["six.example"] = [PUBLIC_V6]
        self.answered("http://six.example:8080/x")
        self.assertEqual([PUBLIC, OTHER, PUBLIC_V6], self.hosts)

    def test_addresses_of_version_6_in_figures(self) -> None:
        """They work like any other, with and without a port, for the upstream and for others."""
        self.client = self.client_of(f"http://[{PUBLIC_V6}]:8080")
        line = self.answered(f"http://[{PUBLIC_V6}]:8080/x?y=z%2F")
        self.assertIn(f"Host: [{PUBLIC_V6}]:8080\r\n".encode(), head := line.sent)
        self.assertTrue(head.startswith(b"GET /x?y=z%2F HTTP/1.1\r\n"))
        self.answered(f"http://[{PUBLIC_V6}]/x")
        self.assertEqual([PUBLIC_V6] * 2, self.hosts)

    def test_one_of_several_addresses(self) -> None:
        """Only the allowed addresses of a name are used."""
        self.names.addresses["files.example"] = ["10.0.0.1", PUBLIC_V6, "fd00::1"]
        asking = self.ask("http://files.example/x")
        self.pass_by()
        self.wire.accept().answer()
        self.successResultOf(asking).body.close()
        self.assertEqual([PUBLIC_V6], self.hosts)

    def test_name_that_changes(self) -> None:
        """A name that was public at first is checked again when it is used."""
        self.answered("http://files.example/x").cut()
        self.names.addresses["files.example"] = [METADATA]
        self.refused(self.ask("http://files.example/x"), Corrupt, METADATA)

    def test_upstream_whose_own_name_changes(self) -> None:
        """Its own origin is still asked; but nothing else becomes allowed by that."""
        self.answered("http://cache.example/x").cut()
        self.names.addresses["cache.example"] = ["127.0.0.1"]
        self.answered("http://cache.example/x")
        self.assertEqual("127.0.0.1", self.hosts[-1])
        self.refused(self.ask(f"http://{METADATA}/"), Corrupt, METADATA)
        self.refused(self.ask("http://cache.example:22/"), Corrupt, "127.0.0.1")
        self.refused(self.ask("https://cache.example/"), Corrupt, "127.0.0.1")

    def test_connections_of_better_times(self) -> None:
        """A connection that was made when it was allowed is not used after that."""
        self.names.addresses["cache.example"] = ["10.0.0.7"]
        own = self.answered("http://cache.example/x")
        inside = self.answered("http://10.0.0.8/x")
        own.cut()
        self.names.addresses["cache.example"] = [PUBLIC]
        self.answered("http://cache.example/x")
        self.assertTrue(inside.is_up)
        self.refused(self.ask("http://10.0.0.8/x"), Corrupt, "10.0.0.8")
        self.assertEqual(b"", inside.sent.partition(b"\r\n\r\n")[2])

    def test_setting(self) -> None:
        """If the operator says so, it may lead anywhere."""
        self.client = self.client_of("http://cache.example", may_lead_inside=True)
        self.answered("http://cache.example/x")
        self.answered(f"http://{METADATA}/x")
        self.assertEqual([PUBLIC, METADATA], self.hosts)

    def test_name_without_addresses(self) -> None:
        """A missing address says nothing about internal or public."""
        asking = self.ask("http://nowhere.example/")
        self.assertNotIn(SETTING, str(self.failureResultOf(asking, Unavailable).value))


class InternalUpstreamTests(ReachCase):
    def test_urls_and_redirects(self) -> None:
        """It may lead to other internal addresses, and to public ones."""
        for base in ("http://cache.lan", "http://10.0.0.7:8080", "http://six.lan"):
            self.setUp()
            self.names.addresses["six.lan"] = ["fd00::7"]
            self.client = self.client_of(base)
            asking = self.ask(f"{base}/x")
            self.wire.accept().answer("302 Found", location="http://127.0.0.1:8501/")
            self.wire.accept().answer()
            self.successResultOf(asking).body.close()
            self.answered("http://192.168.1.1/x")
            self.answered("http://files.example/x")
            self.assertEqual(["127.0.0.1", "192.168.1.1", OTHER], self.hosts[1:])

    def test_before_it_was_asked(self) -> None:
        """Before its first connection, its name shows where it is; that answer is not kept."""
        self.client = self.client_of("http://cache.lan")
        self.answered("http://192.168.1.1/x").cut()
        self.assertIn("cache.lan", self.names.asked)
        self.names.addresses["cache.lan"] = [PUBLIC, "10.0.0.7"]
        self.refused(self.ask("http://192.168.1.1/x"), Corrupt, "192.168.1.1")
        del self.names.addresses["cache.lan"]
        self.refused(self.ask("http://192.168.1.1/x"), Corrupt, "192.168.1.1")

    def test_resolver_that_does_not_answer(self) -> None:
        """Its silence takes no longer than a connection may."""
        self.client = self.client_of("http://cache.lan")
        self.names.is_mute = True
        asking = self.ask("http://192.168.1.1/x")
        self.wire.advance(2.9)
        self.assertNoResult(asking)
        self.wire.advance(0.1)
        self.assertTrue(self.failureResultOf(asking, Unavailable).value.timed_out)
        self.assertEqual([], self.hosts)

    def test_own_origin_may_be_anywhere(self) -> None:
        """The operator's URL may lead to any address, in each spelling."""
        for base in ("http://127.0.0.1:1", "http://localhost", "http://CACHE.lan:80"):
            self.setUp()
            self.names.addresses["localhost"] = ["127.0.0.1"]
            self.client = self.client_of(base)
            self.answered(f"{base}/x")
            self.assertEqual(1, len(self.hosts))

    def test_error_is_still_an_error(self) -> None:
        """A connection that fails does so as always."""
        self.client = self.client_of("http://cache.lan")
        asking = self.ask("http://cache.lan/x")
        self.wire.refuse(DNSLookupError("no"))
        self.failureResultOf(asking, Unavailable)
