"""The credentials of a request."""

from __future__ import annotations

import base64
import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ncps.auth.credentials import LONGEST, Credentials, read_authorization
from ncps.errors import Malformed


def basic(text: bytes) -> bytes:
    return b"Basic " + base64.b64encode(text)


class AuthorizationTests(SynchronousTestCase):
    def test_bearer(self) -> None:
        """The name of the scheme may be in capitals; blanks around the token do not count."""
        for value in (b"Bearer ncps_x", b"bearer ncps_x", b"BEARER   ncps_x "):
            self.assertEqual(read_authorization(value), ("ncps_x", "", ""))

    def test_basic(self) -> None:
        """The password may have colons; the user may be empty."""
        self.assertEqual(read_authorization(basic(b"login:a:b")), ("", "login", "a:b"))
        self.assertEqual(
            read_authorization(basic(b":a").replace(b"Basic", b"bAsIc")), ("", "", "a")
        )

    def test_everything_else_is_malformed(self) -> None:
        """An empty token, another scheme, no base64, no colon, no UTF-8, and too many bytes."""
        for value in (
            b"",
            b"Bearer",
            b"Bearer ",
            b"ncps_x",
            b"Digest a=b",
            b"Basic",
            b"Basic %%%",
            basic(b"nothing"),
            basic(b"a:\xff"),
            b"Bearer \xff",
            b"Bearer " + b"x" * LONGEST,
        ):
            with self.assertRaises(Malformed, msg=value[:20]) as found:
                read_authorization(value)
            self.assertNotIn("ncps_x", str(found.exception))

    @given(st.binary(max_size=100))
    def test_any_bytes_are_read_or_malformed(self, value: bytes) -> None:
        """No bytes of a client cause another error."""
        for field in (value, b"Basic " + value, basic(value), b"Bearer " + value):
            with contextlib.suppress(Malformed):
                read_authorization(field)

    def test_no_secret_in_repr(self) -> None:
        """A traceback or a log line that shows credentials shows no secret."""
        shown = repr(Credentials(client="192.0.2.1", bearer="hush", user="hush", password="hush"))
        self.assertNotIn("hush", shown)
        self.assertIn("192.0.2.1", shown)
