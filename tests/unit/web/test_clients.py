"""The client that a proxy names, and names that are not trusted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from ncps.cache.answers import Outcome
from ncps.nix.narurl import NarKey
from ncps.settings.schema.server import ServerSettings
from ncps.web.clients import MOST_HOPS, TrustedProxies, plain_address
from tests.fakes.cache import served_narinfo
from tests.fakes.files import MemoryFile
from tests.unit.web.wire import PEER, Server

DIGEST = "0123456789abcdfghijklmnpqrsvwxyz"
PROXIES = TrustedProxies(["10.0.0.0/8", "2001:db8::7", "unix"])
PROXY = "10.0.0.1"


class AddressTests(SynchronousTestCase):
    def test_ipv4_is_written_as_such(self) -> None:
        """Also from a socket for both families; a zone is removed."""
        for peer, text in (
            (IPv4Address("TCP", "192.0.2.7", 1), "192.0.2.7"),
            (IPv6Address("TCP", "::ffff:192.0.2.7", 1), "192.0.2.7"),
            (IPv6Address("TCP", "fe80::1%eth0", 1), "fe80::1"),
            (IPv6Address("TCP", "2001:DB8::0:1", 1), "2001:db8::1"),
            (UNIXAddress(None), "unix"),
            (None, "unix"),
        ):
            self.assertEqual(plain_address(peer), text)


class TrustTests(SynchronousTestCase):
    def client(self, *values: str, peer: str = PROXY, name: bytes = b"x-forwarded-for") -> str:
        headers = Headers()
        for value in values:
            headers.addRawHeader(name, value.encode())
        return PROXIES.client(peer, headers)

    def test_which_headers_are_trusted(self) -> None:
        """Only the addresses, networks and sockets of the settings; none by default."""
        for address in ("10.1.2.3", "2001:db8::7", "unix"):
            self.assertTrue(PROXIES.trusts(address))
            self.assertFalse(TrustedProxies().trusts(address))
        self.assertFalse(PROXIES.trusts("192.0.2.7"))
        self.assertFalse(PROXIES.trusts("2001:db8::8"))
        self.assertFalse(TrustedProxies(["10.0.0.0/8"]).trusts("unix"))

    def test_the_last_address_that_is_no_proxy_is_the_client(self) -> None:
        """Any client may have written those before it."""
        for values, client in (
            (["192.0.2.7"], "192.0.2.7"),
            (["203.0.113.9, 192.0.2.7"], "192.0.2.7"),
            (["203.0.113.9, 192.0.2.7, 10.0.0.2", "10.0.0.3"], "192.0.2.7"),
            (["10.0.0.9, 10.0.0.2"], "10.0.0.9"),
            (["::ffff:192.0.2.7"], "192.0.2.7"),
            (["[2001:db8::1]:4711"], "2001:db8::1"),
            (["192.0.2.7:4711"], "192.0.2.7"),
        ):
            self.assertEqual(self.client(*values), client, values)

    def test_an_invalid_address_ends_it(self) -> None:
        """The last known proxy is then the client."""
        for values, client in (
            ([], PROXY),
            ([""], PROXY),
            (["unknown"], PROXY),
            (["192.0.2.7, \x1b[31m"], PROXY),
            (["192.0.2.7, nonsense, 10.0.0.2"], "10.0.0.2"),
            (["192.0.2.7,"], PROXY),
            (["unix"], PROXY),
        ):
            self.assertEqual(self.client(*values), client, values)

    def test_forwarded_where_there_is_nothing_else(self) -> None:
        """RFC 7239: pairs, quotes, and names that hide an address."""
        for value, client in (
            ('for=203.0.113.9, For="[2001:db8::1]:4711";proto=https', "2001:db8::1"),
            ("for=192.0.2.7;by=10.0.0.1, for=10.0.0.2", "192.0.2.7"),
            ("for=192.0.2.7, for=_hidden", PROXY),
            ("proto=https", PROXY),
        ):
            self.assertEqual(self.client(value, name=b"forwarded"), client, value)
        headers = Headers({b"x-forwarded-for": [b"192.0.2.7"], b"forwarded": [b"for=192.0.2.8"]})
        self.assertEqual(PROXIES.client(PROXY, headers), "192.0.2.7")

    def test_a_long_chain_is_looked_at_from_its_end_only(self) -> None:
        """At most 32 addresses are read."""
        chain = ["192.0.2.7", *["10.0.0.2"] * MOST_HOPS]
        self.assertEqual(self.client(", ".join(chain)), "10.0.0.2")
        self.assertEqual(self.client(", ".join(chain[:-1])), "192.0.2.7")

    @given(st.lists(st.binary(max_size=30), max_size=3), st.booleans())
    def test_any_bytes_end_in_an_address(self, values: list[bytes], is_forwarded: bool) -> None:
        """The log has an address for any header."""
        name = b"forwarded" if is_forwarded else b"x-forwarded-for"
        found = PROXIES.client(PROXY, Headers({name: values}))
        self.assertEqual(plain_address(IPv6Address("TCP", found, 1)), found)


class ServerTests(SynchronousTestCase):
    """The addresses in the log, and their effects."""

    def server(self, *proxies: str, limits: ServerSettings | None = None) -> Server:
        server = Server(limits)
        server.site.proxies = TrustedProxies(proxies)
        server.cache.narinfos[DIGEST] = served_narinfo(
            text=b"x\n", outcome=Outcome.HIT, may_repeat=lambda: True
        )
        return server

    def logged(self, server: Server) -> list[str]:
        return [access.client for access in server.logged]

    def test_a_trusted_proxy_gives_the_client(self) -> None:
        """Also for a ready answer and for a known head."""
        server = self.server(PEER.host)
        client = server.connect()
        for last in (7, 8, 8, 8, 9):
            client.ask(f"/{DIGEST}.narinfo", x_forwarded_for=f"192.0.2.{last}")
            self.assertEqual(client.response().status, 200)
        client.ask("/pubkey")
        self.assertTrue(any(access.is_hot for access in server.logged))
        self.assertEqual(
            self.logged(server), [f"192.0.2.{last}" for last in (7, 8, 8, 8, 9)] + [PEER.host]
        )

    def test_no_other_sender_is_trusted(self) -> None:
        """A client cannot choose its address in the log."""
        for server in (self.server(), self.server("10.0.0.0/8", "unix")):
            server.get(f"/{DIGEST}.narinfo", x_forwarded_for="203.0.113.77")
            server.get("/pubkey", forwarded="for=203.0.113.77")
            self.assertEqual(self.logged(server), [PEER.host] * 2)

    def test_requests_are_limited_for_each_client_of_a_proxy(self) -> None:
        """The connections of a proxy have no limit for each address."""
        server = self.server(PEER.host, limits=ServerSettings(max_connections_per_address=2))
        server.cache.gate = Deferred()
        clients = [server.connect() for _ in range(4)]
        for client in clients[:3]:
            client.ask(f"/{DIGEST[::-1]}.narinfo", x_forwarded_for="192.0.2.7")
        self.assertEqual([client.value()[9:12] for client in clients[:3]], [b"", b"", b"503"])
        self.assertEqual(clients[2].response().headers["retry-after"], "5")
        self.assertEqual(server.reached("server-max-connections-per-address"), 1)
        clients[3].ask("/pubkey", x_forwarded_for="192.0.2.8")
        self.assertEqual(clients[3].response().status, 200)
        clients[0].leave()
        clients[2].ask("/pubkey", x_forwarded_for="192.0.2.7")
        self.assertEqual(clients[2].response().status, 200)
        for client in clients[1:]:
            client.leave()
        self.assertEqual(len(server.site._peers), 0)

    def test_ready_nars_are_limited_as_well(self) -> None:
        """A slow client of a proxy gets no more of them than others."""
        server = self.server(PEER.host, limits=ServerSettings(max_connections_per_address=2))
        key, data = NarKey("0" * 52, "xz"), bytes(1000)
        nar = server.cache.add_nar(key, data, size=len(data))
        nar.reopen = lambda: MemoryFile(data)
        clients = [server.connect() for _ in range(3)]
        for _ in range(2):
            clients[0].ask(f"/{key.url}", x_forwarded_for="192.0.2.7")
            self.assertTrue(clients[0].response().whole)
        self.assertTrue(server.logged[-1].is_hot)
        nar._pieces = [Deferred(), data]
        for client in clients:
            client.takes = 100
            client.ask(f"/{key.url}", x_forwarded_for="192.0.2.7")
        self.assertEqual([b"200", b"200", b"503"], [client.value()[9:12] for client in clients])
        for client in clients:
            client.leave()
        self.assertEqual(len(server.site._peers), 0)
