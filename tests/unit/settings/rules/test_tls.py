"""Settings of TLS: certificate files and https:// addresses need each other."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.settings.around import load_with, problems_of

CERT = {"server-tls-cert-file": "/c"}
KEY = {"server-tls-key-file": "/k"}
CLIENTS = {"server-tls-client-ca-file": "/a"}
ADDRESSES = {"server-addr": [":8501", "https://:8443"]}


class TlsRuleTests(SynchronousTestCase):
    def test_an_address_needs_a_certificate_and_its_key(self) -> None:
        """The error names all missing settings."""
        for flags, says in (
            (ADDRESSES, "https:// needs server-tls-cert-file and server-tls-key-file, too"),
            ({**ADDRESSES, **CERT}, "server-tls-cert-file needs server-tls-key-file, too"),
            ({**ADDRESSES, **KEY}, "server-tls-key-file needs server-tls-cert-file, too"),
            ({**ADDRESSES, **CLIENTS}, "server-tls-client-ca-file needs server-tls-cert-file"),
        ):
            (problem,) = problems_of(flags)
            self.assertIn(says, problem)

    def test_a_certificate_needs_an_address(self) -> None:
        """A certificate that no address uses is an error."""
        (problem,) = problems_of({**CERT, **KEY})
        self.assertIn("write one like https://:8443", problem)

    def test_both_together(self) -> None:
        """The settings are valid with and without authorities for clients."""
        for more in ({}, CLIENTS):
            found = load_with({**ADDRESSES, **CERT, **KEY, **more}).server
            self.assertEqual("/c", str(found.tls.cert_file))
            self.assertTrue(found.addr[1].startswith("https+tcp:8443:"))
