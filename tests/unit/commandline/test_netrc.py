"""`ncps token netrc`: the line that curl, and so Nix, finds for the host of the cache."""

from __future__ import annotations

import io
import sys
from argparse import Namespace

from twisted.trial.unittest import SynchronousTestCase

from ncps.commandline import tokens
from ncps.commandline.parser import WrongWords
from tests.unit.settings.around import load_with


class NetrcTests(SynchronousTestCase):
    def line(self, host: str) -> str:
        out = io.StringIO()
        self.patch(sys, "stdout", out)
        self.patch(sys, "stderr", io.StringIO())
        options = Namespace(command="token netrc", name="ci", host=host)
        self.assertEqual(0, tokens.command(options, load_with()))
        return out.getvalue()

    def test_hosts_are_written_as_curl_compares_them(self) -> None:
        """IPv6 addresses without the brackets that they have in a URL."""
        for host, machine in (
            ("cache.example.org", "cache.example.org"),
            ("10.0.0.1", "10.0.0.1"),
            ("my_host", "my_host"),
            ("[::1]", "::1"),
            ("fd00::1", "fd00::1"),
        ):
            self.assertEqual(f"machine {machine} login ci password TOKEN\n", self.line(host))

    def test_what_no_client_would_find_is_refused(self) -> None:
        """A port, an address, several words: the message says what is right."""
        for host in (
            "cache.example.org:8501",
            "[::1]:8501",
            "http://cache",
            "a b",
            "a\nmachine b",
            "a#b",
            "bücher.example",
            "fe80::1%a\nmachine b",
        ):
            with self.assertRaises(WrongWords, msg=host) as caught:
                self.line(host)
            self.assertIn(
                "host name in the URL of the cache, without a port", str(caught.exception)
            )
