"""URLs from upstreams, in narinfos and redirects: strange ones are their fault, never ours."""

from __future__ import annotations

from random import Random
from typing import Final

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Corrupt, NcpsError, Unavailable
from ncps.observe.metrics import Metrics
from ncps.ports import UpstreamBody
from ncps.upstream.agent import Client
from ncps.upstream.destination import BasicCredentials, Destination
from ncps.upstream.remote import RemoteAddress, RemoteCache
from tests.fakes.threads import InlineThreads
from tests.fakes.wire import Wire
from tests.unit.upstream.rig import LIMITS, TIMEOUTS

BASE: Final = "http://127.0.0.1:8080"
NO_PORTS: Final = (
    "x",
    "99999",
    "-1",
    "8 0",
    "+80",
    "1_0",
    "80:80",
    "٣",
    "²",
    "0x50",
    "80.",
    "1" * 400,
)
HOSTS: Final = ("h", "u:p@h", "127.0.0.1", "[::1]", "[::1", "::1]", "[v1.x]", "é", "a..b", "\\")
PIECES: Final = (
    *"/:@?#[]%.\\ \t;=&-_",
    "http:",
    "//",
    "é",
    "\x7f",
    "%zz",
    "8080",
    "h",
    "[::1]",
    "\x00",
)


class UrlCase(SynchronousTestCase):
    metrics = Metrics()  # of all URLs; making it takes longer than the rest

    def upstream(self, base: str = BASE, *, has_password: bool) -> tuple[Wire, RemoteCache]:
        wire = Wire()
        client = Client(
            wire,
            Destination(
                base_url=base,
                timeouts=TIMEOUTS,
                credentials=BasicCredentials(user="u", password="p") if has_password else None,
            ),
        )
        cache = RemoteCache(
            client,
            RemoteAddress(name="h", base_url=base, priority=1),
            clock=wire,
            workers=InlineThreads(),
            metrics=self.metrics,
            limits=LIMITS,
        )
        return wire, cache


class StrangeTests(UrlCase):
    def opened(self, url: str, *, has_password: bool) -> NcpsError | None:
        """Return the error of opening a NAR at a URL; None if the URL is requested."""
        wire, cache = self.upstream(has_password=has_password)
        opening = Deferred.fromCoroutine(cache.open_nar(url))
        wire.advance(0)
        return self.verdict(wire, opening)

    def redirected(self, location: str, *, has_password: bool) -> NcpsError | None:
        """The same for a redirect."""
        wire, cache = self.upstream(has_password=has_password)
        opening = Deferred.fromCoroutine(cache.open_nar("nar/x"))
        wire.accept().answer("302 Found", location=location)
        wire.advance(0)
        return self.verdict(wire, opening)

    def verdict(self, wire: Wire, opening: Deferred[UpstreamBody]) -> NcpsError | None:
        if not opening.called:
            self.assertTrue(wire.pending or wire.lines[-1].sent, "nobody was asked")
            opening.cancel()
            self.failureResultOf(opening)
            return None
        error: NcpsError = self.failureResultOf(opening, NcpsError).value
        return error

    def test_ports_that_are_none(self) -> None:
        """A port that is no number, or too large, is the fault of the upstream that named it."""
        for has_password in (False, True):
            for port in NO_PORTS:
                for host in HOSTS:
                    url = f"http://{host}:{port}/x"
                    error = self.opened(url, has_password=has_password)
                    self.assertIsInstance(error, Corrupt, url)
                    url = url.encode().decode("latin-1")  # as in the request
                    error = self.redirected(url, has_password=has_password)
                    self.assertIsInstance(error, Corrupt | Unavailable, url)

    def test_nonsense(self) -> None:
        """A URL of random pieces is requested or refused."""
        chance = Random(10)
        for _ in range(250):
            url = "".join(chance.choices(PIECES, k=chance.randint(1, 7)))
            url = chance.choice(("", "http://", "https://", "//")) + url
            self.opened(url, has_password=True)
            if "\x00" not in url:
                self.redirected(url.encode().decode("latin-1"), has_password=True)


class LiteralTests(UrlCase):
    def test_addresses_of_ipv6_are_asked(self) -> None:
        """An upstream, a narinfo and a redirect may name a host by its IPv6 address."""
        wire, cache = self.upstream("http://[::1]:8080", has_password=True)
        opening = Deferred.fromCoroutine(cache.open_nar("nar/a%20b?c=d"))
        line = wire.accept()
        request = line.sent
        self.assertTrue(request.startswith(b"GET /nar/a%20b?c=d HTTP/1.1\r\n"), request)
        self.assertIn(b"Host: [::1]:8080\r\n", request)
        self.assertIn(b"Authorization: Basic", request)
        line.answer("302 Found", location="http://[2001:db8::1]/y")
        line = wire.accept()
        request = line.sent
        self.assertIn(b"Host: [2001:db8::1]\r\n", request)
        self.assertNotIn(b"Authorization", request)
        line.answer(body=b"nar")
        self.successResultOf(opening).close()
