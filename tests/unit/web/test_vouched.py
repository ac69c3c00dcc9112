"""The user of a request, as a trusted proxy names it."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from ncps.errors import Malformed
from ncps.web.vouched import LONGEST, MAX_QUIET, ProxiedUsers

NAME = b"X-Forwarded-User"


class UserTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.users = ProxiedUsers(Clock(), "x-forwarded-user")

    def user(self, *values: bytes, is_trusted: bool = True) -> str:
        return self.users.user(Headers({NAME: list(values)}), "192.0.2.1", is_trusted)

    def test_a_trusted_proxy_is_believed(self) -> None:
        """A name may have any letters."""
        self.assertEqual("alice", self.user(b" alice "))
        self.assertEqual("jörg", self.user("jörg".encode()))
        self.assertEqual("", self.user(b""))
        self.assertEqual("", self.users.user(Headers({}), "192.0.2.1", True))

    def test_others_are_not(self) -> None:
        """Their header is ignored."""
        self.assertEqual("", self.user(b"alice", is_trusted=False))
        self.assertEqual("", self.user(b"alice", b"bob", is_trusted=False))

    def test_several_users_are_none(self) -> None:
        """A proxy may have added its name to the client's own header."""
        for values in ((b"alice", b"bob"), (b"alice", b"alice"), (b"alice, bob",), (b"a\x01",)):
            self.assertRaises(Malformed, self.user, *values)
        self.assertRaises(Malformed, self.user, b"\xff")
        self.assertRaises(Malformed, self.user, b"x" * (LONGEST + 1))

    def test_without_the_setting_no_user_is_named(self) -> None:
        """Headers of clients and proxies are ignored."""
        users = ProxiedUsers(Clock())
        self.assertEqual("", users.user(Headers({NAME: [b"alice"]}), "192.0.2.1", True))

    def test_only_a_few_lines_are_written(self) -> None:
        """One line for each address, up to a number of addresses."""
        for number in range(MAX_QUIET + 10):
            for _ in range(2):
                self.users.user(Headers({NAME: [b"x"]}), f"10.0.0.{number}", False)
        self.assertEqual(MAX_QUIET, len(self.users._reported))
