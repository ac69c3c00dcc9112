"""Wrong credentials are limited for each address that they come from."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from ncps.auth.credentials import Credentials, WrongCredentials
from ncps.auth.guard import Guard, TooManyFailures, Unauthenticated
from ncps.auth.logins import LIMIT, MAX_ADDRESSES, LoginLimits, network_of
from ncps.auth.principal import Principal, Scope
from ncps.observe.metrics import Metrics
from tests.fakes.credentials import StubCredentials
from tests.fakes.metrics import counted

HERE = "192.0.2.1"


class LoginCase(SynchronousTestCase):
    most = 3

    def setUp(self) -> None:
        self.clock = Clock()
        self.guesses = 0
        self.metrics = Metrics()
        self.logins = LoginLimits(self.clock, self.metrics, most=self.most, window_s=60.0)

    def fail_from(self, client: str, times: int = 1) -> None:
        for _ in range(times):
            self.guesses += 1
            self.logins.failed(client, str(self.guesses))

    def is_let_in(self, client: str) -> bool:
        try:
            self.logins.check(client)
        except TooManyFailures:
            return False
        return True


class LimitTests(LoginCase):
    def test_an_address_has_to_wait(self) -> None:
        """From the failure that is too many until the window ends; other addresses do not wait."""
        self.fail_from(HERE, 2)
        self.assertTrue(self.is_let_in(HERE))
        self.clock.advance(20)
        self.fail_from(HERE)
        with self.assertRaises(TooManyFailures) as caught:
            self.logins.check(HERE)
        self.assertEqual(40.0, caught.exception.retry_after)
        self.assertTrue(self.is_let_in("192.0.2.2"))
        self.clock.advance(40)
        self.assertTrue(self.is_let_in(HERE))
        self.fail_from(HERE)
        self.assertTrue(self.is_let_in(HERE))
        self.assertEqual(1, counted(self.metrics.limit_reached(LIMIT)))

    def test_the_same_credentials_are_no_further_guess(self) -> None:
        """A client with an old token gets the reason for each path that it asks for."""
        for _ in range(100):
            self.logins.failed(HERE, "expired")
        self.fail_from(HERE)
        self.assertTrue(self.is_let_in(HERE))
        self.fail_from(HERE)
        self.assertFalse(self.is_let_in(HERE))

    def test_a_network_of_ipv6_is_one_address(self) -> None:
        """A site has 2**64 addresses."""
        self.fail_from("2001:db8::1", 2)
        self.fail_from("2001:db8::ffff:2")
        self.assertFalse(self.is_let_in("2001:db8::3"))
        self.assertTrue(self.is_let_in("2001:db8:0:1::1"))
        self.assertEqual(network_of("192.0.2.1"), "192.0.2.1")
        self.assertEqual(network_of("unix"), "unix")

    def test_memory_is_bounded(self) -> None:
        """With too many addresses, the oldest are forgotten."""
        for number in range(MAX_ADDRESSES + 100):
            self.fail_from(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 3)
        self.assertEqual(MAX_ADDRESSES, self.logins.watched)
        self.assertTrue(self.is_let_in("10.0.0.0"))
        self.assertFalse(self.is_let_in("10.0.39.0"))

    def test_a_burst_is_two_lines(self) -> None:
        """The first failure, and the failure that was too many."""
        with capturedLogs() as events:
            self.fail_from(HERE, 100)
        texts = [str(event["log_format"]) for event in events]
        self.assertEqual(2, len(texts), texts)
        self.clock.advance(60)
        with capturedLogs() as events:
            self.fail_from(HERE)
        self.assertEqual(1, len(events))


class NoLimitTests(LoginCase):
    most = 0

    def test_without_a_limit(self) -> None:
        """No address waits."""
        self.fail_from(HERE, 1000)
        self.assertTrue(self.is_let_in(HERE))


class GuardTests(LoginCase):
    """The guard and the limits together."""

    def setUp(self) -> None:
        super().setUp()
        self.source = StubCredentials()
        self.source.asked["forged"] = WrongCredentials("forged")
        self.source.asked["new"] = Principal(name="new", scopes=frozenset({Scope.WRITE}))
        self.source.known["right"] = Principal(name="ci", scopes=frozenset({Scope.WRITE}))
        self.guard = Guard([self.source], logins=self.logins)

    def admit(self, secret: str) -> Principal:
        found = self.guard.admit(Credentials(client=HERE, bearer=secret), Scope.WRITE)
        if isinstance(found, Principal):
            return found
        try:
            found.send(None)
        except StopIteration as ended:
            principal: Principal = ended.value
            return principal
        raise AssertionError("nothing awaits here")

    def test_known_clients_are_not_locked_out(self) -> None:
        """Another client at their address guesses; a new client there must also wait."""
        for secret in ("forged", "guess", "another guess"):
            self.assertRaises(Unauthenticated, self.admit, secret)
        self.assertEqual("ci", self.admit("right").name)
        questions = self.source.questions
        self.assertRaises(TooManyFailures, self.admit, "forged")
        self.assertRaises(TooManyFailures, self.admit, "new")
        self.assertEqual(questions, self.source.questions)
        self.clock.advance(60)
        self.assertEqual("new", self.admit("new").name)
