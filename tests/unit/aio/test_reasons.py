"""Reasons that people read, in logs and answers."""

from __future__ import annotations

import errno
import os

from OpenSSL import SSL
from twisted.internet import error
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived

from ncps.aio.reasons import in_words, reason_of
from ncps.aio.resolver import NameTrouble


class ReasonTests(SynchronousTestCase):
    def test_reasons_are_words(self) -> None:
        """No reason has the name of a Python class, a number of the system, or a full stop."""
        odd = error.ConnectError(errno.EAFNOSUPPORT, "x")
        for found, words in (
            (
                error.ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
                "connection refused",
            ),
            (error.TimeoutError(), "no connection in time"),
            (error.NoRouteError(errno.EHOSTUNREACH, "x"), "no route to the host"),
            (error.ConnectionDone(), "the other side closed the connection"),
            (error.ConnectionLost("reset by peer"), "the connection broke off (reset by peer)"),
            (error.DNSLookupError(), "the name was not found"),
            (NameTrouble("a was not found: no such name"), "a was not found: no such name"),
            (odd, os.strerror(errno.EAFNOSUPPORT)),
            (OSError(errno.EPIPE, "Broken pipe"), "Broken pipe"),
            (
                SSL.Error([("SSL routines", "", "certificate has expired")]),
                "certificate has expired",
            ),
            (SSL.Error(), "an error of TLS"),
            (ValueError("it is odd."), "it is odd"),
            (KeyError(), "key error"),
            (ResponseNeverReceived([]), "[]"),
            (None, "the reason is not known"),
        ):
            self.assertEqual(reason_of(found), words)

    def test_names_of_classes_become_words(self) -> None:
        """The name of an unknown class becomes the reason."""
        self.assertEqual(in_words(ResponseNeverReceived), "response never received")
