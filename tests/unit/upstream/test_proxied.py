"""Client behind a proxy: absolute URLs, tunnels, credentials, and faults of the proxy."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError as Refusal
from twisted.internet.error import TimeoutError as ConnectTimeout

from ncps.aio.resolver import Resolver
from ncps.errors import Busy, Corrupt, Unavailable
from ncps.upstream.agent import Answer, Client
from ncps.upstream.destination import BasicCredentials, Destination, Timeouts
from ncps.upstream.proxies import Bypass, Proxies, Proxy
from ncps.upstream.tunnel import MAX_HEAD
from tests.fakes.threads import HeldThreads
from tests.fakes.wire import Line
from tests.unit.upstream.test_reach import METADATA, PUBLIC, ReachCase

PROXY = "10.0.0.99"
LOGIN = BasicCredentials(user="me", password="hunter2").header()


class ProxiedCase(ReachCase):
    """The proxy is at an internal address, as usual."""

    proxies = Proxies()

    def setUp(self) -> None:
        super().setUp()
        self.names.addresses["proxy.lan"] = [PROXY]
        del self.names.addresses["cache.example"]  # only the proxy can look it up
        self.proxy = Proxy(host="proxy.lan", port=3128, authorization=LOGIN)
        self.proxies = Proxies(http=self.proxy, https=self.proxy, bypass=Bypass(["direct.example"]))
        self.client = self.client_of("http://cache.example")

    def client_of(self, base_url: str, **options: Any) -> Client:
        return super().client_of(base_url, proxies=self.proxies, **options)


class HttpTests(ProxiedCase):
    def test_whole_url_is_asked_for(self) -> None:
        """The proxy gets it with its own credentials, and those of the upstream."""
        login = BasicCredentials(user="u", password="p")
        self.client = self.client_of("http://cache.example", credentials=login)
        asking = self.ask("http://cache.example/x?y=z#f")
        line = self.wire.accept()
        self.assertEqual([(PROXY, 3128)], [client[:2] for client in self.wire.tcpClients])
        head = line.sent
        self.assertTrue(head.startswith(b"GET http://cache.example/x?y=z HTTP/1.1\r\n"), head)
        for field in (
            b"Host: cache.example\r\n",
            b"Proxy-Authorization: " + LOGIN,
            b"Authorization: " + login.header(),
        ):
            self.assertIn(field, head)
        line.answer(body=b"hello")
        self.assertEqual(5, self.successResultOf(asking).content_length)

    def test_connection_is_used_again(self) -> None:
        """Also for other hosts."""
        self.answered("http://cache.example/x")
        asking = self.ask("http://files.example/x")
        line = self.wire.lines[0]
        self.assertIn(b"GET http://files.example/x HTTP/1.1", line.sent)
        line.answer()
        self.successResultOf(asking)
        self.assertEqual(1, self.wire.attempts)

    def test_excepted_hosts_are_asked_directly(self) -> None:
        """Without the proxy's credentials."""
        self.names.addresses["direct.example"] = [PUBLIC]
        asking = self.ask("http://direct.example/x")
        self.assertEqual([PUBLIC], self.hosts)
        head = self.wire.accept().sent
        self.assertTrue(head.startswith(b"GET /x HTTP/1.1\r\n"))
        self.assertNotIn(b"Proxy-Authorization", head)
        self.assertNoResult(asking)

    def test_proxy_that_cannot_be_reached(self) -> None:
        """The error names the proxy, not the upstream, and shows no credentials."""
        for error, timed_out in ((Refusal(), False), (ConnectTimeout(), True)):
            asking = self.ask("http://cache.example/x")
            self.wire.refuse(error)
            found = self.failureResultOf(asking, Unavailable).value
            self.assertIn("the proxy proxy.lan:3128 cannot be reached", str(found))
            self.assertEqual(timed_out, found.timed_out)
            self.assertNotIn("hunter2", str(found))


class TunnelTests(ProxiedCase):
    def tunnelled(self) -> tuple[Deferred[Answer], Line]:
        """Ask for an https URL; return with the connection to the proxy."""
        asking = self.ask("https://cache.example/x")
        self.assertEqual((PROXY, 3128), self.wire.tcpClients[-1][:2])
        return asking, self.wire.accept()

    def failed(self, asking: Deferred[Answer]) -> Unavailable:
        error: Unavailable = self.failureResultOf(asking, Unavailable).value
        self.assertIn("the proxy proxy.lan:3128", str(error))
        return error

    def test_tls_begins_when_the_proxy_has_connected(self) -> None:
        """The proxy sees host and port, its credentials, and nothing else unencrypted."""
        asking, line = self.tunnelled()
        head = line.sent
        self.assertTrue(head.startswith(b"CONNECT cache.example:443 HTTP/1.1\r\n"), head)
        for field in (b"Host: cache.example:443\r\n", b"Proxy-Authorization: " + LOGIN):
            self.assertIn(field, head)
        line.say(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 Connection esta")
        self.assertEqual(b"", line.sent)
        line.say(b"blished\r\nVia: proxy\r\n\r\n")
        hello = line.sent
        self.assertEqual(b"\x16\x03", hello[:2])
        self.assertIn(b"cache.example", hello)  # the server that TLS asks for
        self.assertNoResult(asking)
        line.cut()

    def test_bytes_of_the_server_arrive(self) -> None:
        """TLS gets the bytes from behind the proxy, here an alert; twice, as it tries twice."""
        asking, line = self.tunnelled()
        line.say(b"HTTP/1.0 200 OK\r\n\r\n")
        for _ in range(2):
            line.say(b"\x15\x03\x01\x00\x02\x02\x28")  # an alert: handshake failure
            self.wire.advance(0)
            if self.wire.pending:
                line = self.wire.accept()
                line.say(b"HTTP/1.0 200 OK\r\n\r\n")
        error = self.failureResultOf(asking, Unavailable).value
        self.assertIn("handshake failure", str(error))

    def test_refusals(self) -> None:
        """The error has the status and the proxy that sent it."""
        for status, words in (
            ("407 Proxy Authentication Required", "407, it wants other credentials"),
            ("403 Forbidden", "does not connect to cache.example:443: status 403"),
            ("502 Bad Gateway", "status 502"),
        ):
            asking, line = self.tunnelled()
            line.answer(status)
            error = self.failed(asking)
            self.assertIn(words, str(error))
            self.assertEqual("status", error.kind)
            self.assertNotIn("hunter2", str(error))
            self.assertFalse(line.is_up)

    def test_nonsense(self) -> None:
        """Bytes that are no answer, and an answer without end."""
        for said, words in (
            (b"SSH-2.0-OpenSSH\r\n\r\n", "does not speak HTTP"),
            (b"HTTP/1.1 200 OK\r\nx: " + b"x" * MAX_HEAD, f"more than {MAX_HEAD} bytes"),
        ):
            asking, line = self.tunnelled()
            line.say(said)
            error = self.failed(asking)
            self.assertIn(words, str(error))
            self.assertEqual("malformed", error.kind)
            self.assertFalse(line.is_up)

    def test_silence(self) -> None:
        """The deadline for connecting also covers the proxy's answer."""
        asking, line = self.tunnelled()
        self.wire.advance(3)
        self.assertTrue(self.failed(asking).timed_out)
        self.assertFalse(line.is_up)

    def test_end_before_the_answer(self) -> None:
        """That is a failure of the proxy."""
        asking, line = self.tunnelled()
        line.say(b"HTTP/1.1 2")
        line.cut()
        self.assertIn("closed the connection", str(self.failed(asking)))

    def test_cancelling_closes_the_connection(self) -> None:
        """At each moment; and no timer is left."""
        asking, line = self.tunnelled()
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertFalse(line.is_up)
        self.wire.advance(0)
        asking, line = self.tunnelled()
        line.say(b"HTTP/1.1 200 OK\r\n\r\n")
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.wire.advance(1)
        self.assertEqual([], self.wire.getDelayedCalls())

    def test_address_of_version_6(self) -> None:
        """It is in brackets."""
        self.ask("https://[2606:4700::1111]:8443/x").addErrback(lambda _: None)
        self.assertIn(b"CONNECT [2606:4700::1111]:8443 HTTP/1.1\r\n", self.wire.accept().sent)

    def test_proxy_over_tls(self) -> None:
        """Then nothing is sent to it unencrypted."""
        secured = Proxy(host="proxy.lan", port=3128, is_secured=True, authorization=LOGIN)
        self.proxies = Proxies(http=secured, https=secured)
        self.client = self.client_of("http://cache.example")
        for url in ("http://cache.example/x", "https://cache.example/x"):
            self.ask(url).addErrback(lambda _: None)
            hello = self.wire.accept().sent
            self.assertEqual(b"\x16\x03", hello[:2])
            self.assertIn(b"proxy.lan", hello)


class ReachTests(ProxiedCase):
    def test_internal_addresses_in_figures(self) -> None:
        """The proxy is not asked for them, either, in any spelling."""
        for url, address in (
            (f"http://{METADATA}/latest/meta-data", METADATA),
            ("https://10.0.0.1/", "10.0.0.1"),
            ("http://10.1/", "10.1"),
            ("http://0xa9fea9fe/", "0xa9fea9fe"),
            ("http://[fd00::1]/", "fd00::1"),
        ):
            self.refused(self.ask(url), Corrupt, f"leads to {address}, an internal address")
        asking = self.redirected(f"http://{METADATA}/")
        self.refused(asking, Unavailable, f"leads to {METADATA}")
        self.assertEqual([PROXY], self.hosts)

    def test_this_machine(self) -> None:
        """It is never asked through a proxy, and is checked as without one."""
        self.names.addresses["localhost"] = ["127.0.0.1"]
        for host in ("localhost", "127.0.0.1"):
            self.refused(self.ask(f"http://{host}:6379/"), Corrupt, "127.0.0.1")

    def test_excepted_name_that_leads_inside(self) -> None:
        """The connection is made from here, so its address is checked."""
        self.names.addresses["direct.example"] = ["10.0.0.7"]
        self.refused(self.ask("http://direct.example/"), Corrupt, "10.0.0.7")

    def test_the_proxys_address_is_not_the_upstreams(self) -> None:
        """The proxy's internal address permits nothing."""
        self.answered("http://cache.example/x")
        self.refused(self.ask("http://192.168.1.1/"), Corrupt, "192.168.1.1")
        self.assertNotIn("cache.example", self.names.asked)

    def test_upstream_that_is_inside(self) -> None:
        """An upstream at an internal IP address may lead to others, as without a proxy."""
        self.client = self.client_of("http://10.0.0.7")
        self.answered("http://10.0.0.7/x", "http://10.0.0.8/x")
        self.assertIn(b"GET http://10.0.0.8/x HTTP/1.1", self.wire.accept().sent)

    def test_setting(self) -> None:
        """If the operator says so, all upstreams may."""
        self.client = self.client_of("http://cache.example", may_lead_inside=True)
        self.answered(f"http://{METADATA}/x")

    def test_other_names_are_for_the_proxy(self) -> None:
        """We do not learn their addresses."""
        self.answered("http://files.example/x").cut()
        self.answered("http://nowhere.example/x")
        self.assertEqual([PROXY, PROXY], self.hosts)


class NamesTests(ReachCase):
    def setUp(self) -> None:
        super().setUp()
        self.threads = HeldThreads()
        self.found: dict[str, tuple[str, ...]] = {}
        resolver = Resolver(
            self.wire, self.threads, own=["cache.example"], patience_s=3, look_up=self.look_up
        )
        self.client = self.client_of("http://cache.example", resolver=resolver)

    def look_up(self, host: str) -> tuple[str, ...]:
        if host not in self.found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.found[host]

    def test_resolver_of_its_own(self) -> None:
        """Only this resolver is asked."""
        self.found["cache.example"] = (PUBLIC,)
        asking = self.ask("http://cache.example/x")
        self.threads.release()
        self.wire.accept().answer()
        self.successResultOf(asking)
        self.assertEqual([], self.names.asked)

    def test_reasons(self) -> None:
        """The error says what is wrong with the name, and whether the fault is ours."""
        asking = self.ask("http://cache.example/x")
        self.threads.release()
        error = self.failureResultOf(asking, Unavailable).value
        self.assertEqual("cache.example was not found: Name or service not known", str(error))
        asking = self.ask("http://cache.example/x")
        self.wire.advance(3)
        error = self.failureResultOf(asking, Unavailable).value
        self.assertTrue(error.timed_out)

    def test_bound_is_ours(self) -> None:
        """Too many look-ups at the same time are our limit, not a failure of the upstream."""
        self.test_resolver_of_its_own()
        for number in range(4):
            self.ask(f"http://x{number}.example/").addErrback(lambda _: None)
        asking = self.ask("http://y.example/x")
        self.wire.advance(3)
        error = self.failureResultOf(asking, Busy).value
        self.assertIn("y.example was not looked up", str(error))

    def test_inside_or_outside_is_unknown(self) -> None:
        """A name without an address now does not show where an upstream is."""
        asking = self.ask("http://192.168.1.1/x")
        self.wire.advance(3)
        self.assertIn("no name server", str(self.failureResultOf(asking, Unavailable).value))

    def test_timeouts_are_the_clients(self) -> None:
        """The deadline of the whole request covers a look-up, too."""
        quick = Timeouts(connect_s=0.5, first_byte_s=0.5, nar_s=0.5, idle_s=0.5)
        resolver = Resolver(self.wire, self.threads, patience_s=9, look_up=self.look_up)
        self.client = Client(
            self.wire,
            Destination(base_url="http://cache.example", timeouts=quick, resolver=resolver),
        )
        asking = self.ask("http://cache.example/x")
        self.wire.advance(1)
        self.assertTrue(self.failureResultOf(asking, Unavailable).value.timed_out)
