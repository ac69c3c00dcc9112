"""Resolver: look-ups are shared, kept, limited and given up, in threads of the test."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from attrs import Factory, define
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from twisted.internet.protocol import Factory as ProtocolFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ncps.aio.resolver import (
    FRESH_S,
    LATE_S,
    MAX_NAMES,
    MAX_OTHERS,
    MAX_PER_NAME,
    QUEUE,
    RENEWED_S,
    STALE_S,
    NamedEndpoint,
    NameTrouble,
    Resolver,
)
from ncps.errors import Unavailable
from tests.fakes.threads import HeldThreads
from tests.fakes.wire import Wire

PATIENCE_S = 3.0
V4, V6 = "93.184.215.14", "2606:4700::1111"
AWAY = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
NONE = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@implementer(IResolutionReceiver)
@define
class Receiver:
    """A receiver that records its calls."""

    addresses: list[IAddress] = Factory(list)
    name: str = ""
    is_complete: bool = False

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:  # noqa: N803
        self.name = resolutionInProgress.name

    def addressResolved(self, address: IAddress) -> None:
        self.addresses.append(address)

    def resolutionComplete(self) -> None:
        assert not self.is_complete
        self.is_complete = True


class ResolverCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.wire = Wire()
        self.threads = HeldThreads()
        self.answer: Callable[[str], tuple[str, ...]] = lambda _: (V4,)
        self.asked: list[str] = []
        self.resolver = Resolver(
            self.wire,
            self.threads,
            own=["Own.example"],
            patience_s=PATIENCE_S,
            look_up=self.look_up,
        )

    def look_up(self, host: str) -> tuple[str, ...]:
        self.asked.append(host)
        return self.answer(host)

    def fail_with(self, error: Exception) -> None:
        def fail(_: str) -> tuple[str, ...]:
            raise error

        self.answer = fail

    def find(self, host: str) -> Deferred[tuple[str, ...]]:
        return Deferred.fromCoroutine(self.resolver.find(host))

    def trouble(self, finding: Deferred[Any]) -> NameTrouble:
        error: NameTrouble = self.failureResultOf(finding, NameTrouble).value
        return error


class FindTests(ResolverCase):
    def test_addresses_in_figures_need_no_look_up(self) -> None:
        """Numeric addresses are returned immediately, even if all look-ups hang."""
        for text in (V4, V6, "::1", "127.0.0.1", "fe80::1%eth0"):
            self.assertEqual((text,), self.successResultOf(self.find(text)))
        self.assertEqual(0, len(self.threads))

    def test_one_look_up_for_all_callers(self) -> None:
        """The case of letters does not count; a caller that leaves ends no other caller's wait."""
        finding = [self.find(host) for host in ("a.example", "A.Example", "a.example")]
        self.assertEqual(1, len(self.threads))
        finding[0].cancel()
        self.failureResultOf(finding[0], CancelledError)
        self.threads.release()
        for other in finding[1:]:
            self.assertEqual((V4,), self.successResultOf(other))
        self.assertEqual([], self.wire.getDelayedCalls())

    def test_remembered_for_a_while(self) -> None:
        """An address is kept for `FRESH_S`; then it is looked up again."""
        finding = self.find("a.example")
        self.threads.release()
        self.successResultOf(finding)
        self.wire.advance(FRESH_S - 0.1)
        self.assertEqual((V4,), self.successResultOf(self.find("a.example")))
        self.wire.advance(0.1)
        self.answer = lambda _: (V6,)
        finding = self.find("a.example")
        self.assertNoResult(finding)
        self.threads.release()
        self.assertEqual((V6,), self.successResultOf(finding))

    def test_silence_is_given_up(self) -> None:
        """A later caller does not wait again; a late answer serves the next caller."""
        finding = self.find("a.example")
        self.wire.advance(PATIENCE_S - 1)
        later = self.find("a.example")
        self.wire.advance(0.9)
        self.assertNoResult(finding)
        self.wire.advance(0.1)
        for one in (finding, later):
            self.assertTrue(self.trouble(one).timed_out)
        much_later = self.find("a.example")
        self.wire.advance(0)
        self.assertIn(
            "no name server gave the address of a.example within 3 s", str(self.trouble(much_later))
        )
        self.assertEqual(1, len(self.threads))
        self.threads.release()
        self.assertEqual((V4,), self.successResultOf(self.find("a.example")))

    def test_old_addresses_while_no_name_server_answers(self) -> None:
        """Old addresses are used after a second, or immediately after a reported failure."""
        self.find("a.example")
        self.threads.release()
        self.wire.advance(FRESH_S)
        finding = self.find("a.example")
        self.wire.advance(LATE_S)
        self.assertEqual((V4,), self.successResultOf(finding))
        self.fail_with(AWAY)
        self.threads.release()
        finding = self.find("a.example")
        self.threads.release()
        self.assertEqual((V4,), self.successResultOf(finding))
        self.wire.advance(STALE_S)
        finding = self.find("a.example")
        self.threads.release()
        self.assertIn("Temporary failure", str(self.trouble(finding)))

    def test_name_that_is_no_more(self) -> None:
        """After a denial old addresses are not used, and the denial is not kept."""
        self.find("a.example")
        self.threads.release()
        self.wire.advance(FRESH_S)
        self.fail_with(NONE)
        finding = self.find("a.example")
        self.threads.release()
        self.assertEqual(
            "a.example was not found: Name or service not known", str(self.trouble(finding))
        )
        self.answer = lambda _: (V6,)
        finding = self.find("a.example")
        self.threads.release()
        self.assertEqual((V6,), self.successResultOf(finding))

    def test_names_that_cannot_be_any(self) -> None:
        """Each error of the system becomes NameTrouble."""
        for error in (UnicodeError("label too long"), OSError("odd"), ValueError("nul")):
            self.fail_with(error)
            finding = self.find("a" * 70)
            self.threads.release()
            self.assertIn("was not found", str(self.trouble(finding)))

    def test_no_thread(self) -> None:
        """A lack of threads is a limit of this process, not a fault of the name."""
        self.fail_with(Unavailable("no thread"))
        finding = self.find("own.example")
        self.threads.release()
        self.assertTrue(self.trouble(finding).is_ours)

    def test_second_look_up_beside_one_that_hangs_for_good(self) -> None:
        """A second look-up begins beside one that hangs, but no third one."""
        for _ in range(4):
            finding = self.find("own.example")
            self.wire.advance(RENEWED_S)
            self.trouble(finding)
        self.assertEqual(MAX_PER_NAME, len(self.threads))

    def test_names_of_others_are_bounded(self) -> None:
        """Other names wait for their turn; the resolver's own name never waits."""
        finding = [self.find(f"x{number}.example") for number in range(MAX_OTHERS + 2)]
        own = self.find("own.EXAMPLE")
        self.assertEqual(MAX_OTHERS + 1, len(self.threads))
        self.threads.release()
        for one in (*finding, own):
            self.assertEqual((V4,), self.successResultOf(one))
        self.assertEqual([], self.wire.getDelayedCalls())

    def test_names_of_others_that_hang(self) -> None:
        """A look-up that waits for a thread has not failed; known addresses are used."""
        self.find("known.example")
        self.threads.release()
        self.wire.advance(FRESH_S)
        hanging = [self.find(f"x{number}.example") for number in range(MAX_OTHERS)]
        behind, known = self.find("y.example"), self.find("known.example")
        self.wire.advance(PATIENCE_S)
        for one in hanging:
            self.assertTrue(self.trouble(one).timed_out)
        refused = self.trouble(behind)
        self.assertTrue(refused.is_ours)
        self.assertEqual(str(refused), str(self.resolver.why("y.example")))
        self.assertEqual((V4,), self.successResultOf(known))

    def test_queue_is_bounded(self) -> None:
        """Beyond the limit of the queue the error comes immediately."""
        waiting = [self.find(f"x{number}.example") for number in range(MAX_OTHERS + QUEUE)]
        self.assertTrue(self.trouble(self.find("y.example")).is_ours)
        self.wire.advance(PATIENCE_S)
        for one in waiting:
            self.trouble(one)

    def test_names_remembered_are_bounded(self) -> None:
        """Beyond the limit the oldest name is forgotten."""
        for number in range(MAX_NAMES + 10):
            self.find(f"x{number}.example")
            self.threads.release()
        self.asked.clear()
        self.successResultOf(self.find("x20.example"))
        self.find("x3.example")
        self.threads.release()
        self.assertEqual(["x3.example"], self.asked)


class TwistedTests(ResolverCase):
    def resolve(self, host: str, **options: Any) -> Receiver:
        receiver = Receiver()
        self.assertEqual(host, self.resolver.resolveHostName(receiver, host, **options).name)
        return receiver

    def test_addresses_as_twisted_has_them(self) -> None:
        """Twisted gets addresses of both kinds, or of the requested ones, with the port."""
        self.answer = lambda _: (V6, V4)
        receiver = self.resolve("a.example", portNumber=80)
        self.assertFalse(receiver.is_complete)
        self.threads.release()
        both = [IPv6Address("TCP", V6, 80), IPv4Address("TCP", V4, 80)]
        self.assertEqual((both, True), (receiver.addresses, receiver.is_complete))
        receiver = self.resolve("a.example", addressTypes=[IPv4Address])
        self.assertEqual([IPv4Address("TCP", V4, 0)], receiver.addresses)

    def test_no_address(self) -> None:
        """The resolution ends without an address, and `why` gives the reason."""
        self.fail_with(NONE)
        receiver = self.resolve("a.example")
        self.threads.release()
        self.assertEqual(([], True), (receiver.addresses, receiver.is_complete))
        self.assertIn("Name or service not known", str(self.resolver.why("A.example")))

    def test_cancelled(self) -> None:
        """A cancelled receiver gets no further call; another one of the name gets its answer."""
        self.answer = lambda _: (V4,)
        left, kept = Receiver(), self.resolve("a.example")
        self.resolver.resolveHostName(left, "a.example").cancel()
        self.threads.release()
        self.assertEqual(([], False), (left.addresses, left.is_complete))
        self.assertEqual(([IPv4Address("TCP", V4, 0)], True), (kept.addresses, kept.is_complete))

    def test_endpoint(self) -> None:
        """The endpoint connects, or fails with an error that Twisted treats as a failed look-up."""
        self.wire.installNameResolver(self.resolver)
        endpoint = NamedEndpoint(self.wire, "a.example", 80, 3)
        connecting = endpoint.connect(ProtocolFactory())
        self.threads.release()
        self.assertEqual((V4, 80), self.wire.tcpClients[0][:2])
        connecting.cancel()
        self.failureResultOf(connecting)
        self.wire.advance(FRESH_S)
        self.fail_with(NONE)
        connecting = endpoint.connect(ProtocolFactory())
        self.threads.release()
        error = self.failureResultOf(connecting, DNSLookupError).value
        self.assertEqual("a.example was not found: Name or service not known", str(error))
