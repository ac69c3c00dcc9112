"""The facts in a verified certificate of a client."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ncps.auth.credentials import ClientCertificate
from ncps.web.fast.tls import certificate_of


class CertificateOfTests(SynchronousTestCase):
    def test_names(self) -> None:
        """The common name, and the alternative names with their kinds."""
        found = certificate_of(
            {
                "subject": ((("organizationName", "x"),), (("commonName", "ci"),)),
                "subjectAltName": (("DNS", "a.example"), ("URI", "spiffe://x/y")),
            }
        )
        expected = ClientCertificate(common_name="ci", names=("DNS:a.example", "URI:spiffe://x/y"))
        self.assertEqual(expected, found)

    def test_two_common_names_are_none(self) -> None:
        """It is unclear which of them the authority means."""
        subject = ((("commonName", "ci"),), (("commonName", "admin"),))
        found = certificate_of({"subject": subject})
        self.assertEqual(ClientCertificate(), found)

    def test_no_certificate(self) -> None:
        """Python has two values for this."""
        self.assertIsNone(certificate_of(None))
        self.assertIsNone(certificate_of({}))
