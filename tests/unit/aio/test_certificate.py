"""The files of a server's certificate: each fault has a message of one line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from attrs import evolve
from cryptography.hazmat.primitives import serialization
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.certificate import (
    MAX_SIZE,
    CertificateFiles,
    load_blocking,
    signature_blocking,
    trouble_of,
)
from ncps.errors import Refused
from tests.integration.servers.certificates import Authority


class CertificateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.authority = Authority(self.directory, "authority")
        cert, key = self.authority.issue("server", days=90)
        self.files = CertificateFiles(cert=cert, key=key, client_ca=self.authority.path)

    def refused(self, *words: str, **changes: Path) -> None:
        """The error is one line that names the setting and the file."""
        with self.assertRaises(Refused) as caught:
            load_blocking(evolve(self.files, **changes))
        said = str(caught.exception)
        self.assertTrue(said.startswith("server-tls-"), said)
        self.assertNotIn("\n", said)
        for word in words:
            self.assertIn(word, said)

    def file(self, content: bytes) -> Path:
        path = self.directory / "given"
        path.write_bytes(content)
        return path

    def test_a_certificate_and_its_key(self) -> None:
        """Names and times come from the certificate."""
        found = load_blocking(self.files)
        self.assertEqual("CN=server", found.name)
        left = found.ends - datetime.now(UTC)
        self.assertLess(abs(left - timedelta(days=90)), timedelta(hours=1))

    def test_files_that_are_no_use(self) -> None:
        """A file may be missing, a directory, too large, invalid, swapped, or of another pair."""
        self.refused("cert-file", "/nonexistent", "No such file", cert=Path("/nonexistent"))
        self.refused("key-file", "is not a file", key=self.directory)
        self.refused("client-ca-file", "/none", client_ca=Path("/none"))
        self.refused("larger than", cert=self.file(b"x" * (MAX_SIZE + 1)))
        self.refused("should hold a certificate in PEM", cert=self.file(b"\0garbage"))
        self.refused("should hold a certificate in PEM", cert=self.file(b""))
        self.refused("should hold a certificate in PEM", cert=self.files.key)
        self.refused("private key in PEM", key=self.files.cert)
        self.refused("authorities in PEM", client_ca=self.file(b"\xff garbage"))
        self.refused("authorities in PEM", client_ca=self.files.key)
        other = self.authority.issue("other")[1]
        self.refused("is not the key of the certificate", str(other), key=other)

    def test_authorities_with_names_between_them(self) -> None:
        """Bundles name their authorities in comments, in any language."""
        bundle = "# Főtanúsítvány\n".encode() + self.authority.path.read_bytes()
        found = load_blocking(evolve(self.files, client_ca=self.file(bundle)))
        self.assertEqual(1, len(found.context.get_ca_certs()))

    def test_a_key_with_a_password(self) -> None:
        """OpenSSL does not ask for the password at the terminal."""
        key = serialization.load_pem_private_key(self.files.key.read_bytes(), None)
        text = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
        self.refused("is encrypted", "without a password", key=self.file(text))

    def test_changes_are_seen(self) -> None:
        """A replaced file of the same size, and a removed file, change the signature."""
        seen = signature_blocking(self.files)
        self.assertEqual(seen, signature_blocking(self.files))
        fresh = self.file(self.files.cert.read_bytes())
        fresh.rename(self.files.cert)
        changed = signature_blocking(self.files)
        self.assertNotEqual(seen, changed)
        self.files.cert.unlink()
        self.assertNotEqual(changed, signature_blocking(self.files))

    def test_its_times(self) -> None:
        """The text depends on the time: before, within, near the end, and after the validity."""
        found = load_blocking(self.files)
        day = timedelta(days=1)
        for at, soon_s, says in (
            (found.begins - day, 0.0, "is not valid before"),
            (found.begins, 0.0, ""),
            (found.ends - day, 0.0, ""),
            (found.ends - day, 2 * 86400.0, "expires at"),
            (found.ends, 0.0, "has expired"),
        ):
            said = trouble_of(found, at, soon_s=soon_s)
            self.assertIn(says, said)
            self.assertEqual(bool(says), bool(said))
