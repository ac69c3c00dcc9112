"""TLS clients accept only a certificate for their own host; handshakes in memory."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cryptography.x509 import DNSName, GeneralName, UniformResourceIdentifier
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, PrivateCertificate, trustRootFromCertificates
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import connectedServerAndClient
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.authorities import trouble_of_authorities
from ncps.aio.tls import (
    VerifiedHTTPS,
    WrongCertificate,
    trouble_with_callbacks,
    verified,
)
from tests.integration.servers.certificates import Authority


class _End(Protocol):
    """One end of a connection, which may send a greeting."""

    def __init__(self, greeting: bytes = b"") -> None:
        self.greeting = greeting
        self.heard = b""
        self.reason: Any = None

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.greeting)

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason.value


class VerifiedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.authority = Authority(Path(self.mktemp()).absolute(), "authority")
        root = Certificate.loadPEM(self.authority.path.read_bytes())
        self.trust = trustRootFromCertificates([root])

    def shake(
        self,
        host: str,
        names: Collection[str | GeneralName],
        *,
        trust: Any = None,
        subject: str = "server",
    ) -> tuple[bytes, Any]:
        """Connect to a server with a certificate for these names.

        :return: the bytes that the server received, and the reason of the end; None without an end.
        """
        certificate, key = self.authority.issue(subject, names=names)
        own = PrivateCertificate.loadPEM(certificate.read_bytes() + key.read_bytes())
        server, client = _End(), _End(b"the password")
        creator = verified(host, trust=trust or self.trust)
        clock = Clock()  # small writes wait for it
        _, _, pump = connectedServerAndClient(
            lambda: _wrapped(own.options(), server, clock, is_client=False),
            lambda: _wrapped(creator, client, clock, is_client=True),
        )
        for _ in range(3):
            pump.flush()
            clock.advance(0)
        return server.heard, client.reason

    def shake_with(self, **environ: str) -> tuple[bytes, Any]:
        """Connect with variables in the environment and no trust root given."""
        self.trust = None
        with patch.dict(os.environ, environ):  # OpenSSL looks there itself
            for name in {"SSL_CERT_FILE", "SSL_CERT_DIR", "NIX_SSL_CERT_FILE"} - environ.keys():
                os.environ.pop(name, None)
            return self.shake("cache.example", ["cache.example"])

    def test_authorities_of_nix(self) -> None:
        """The file in Nix's variable is used, unless OpenSSL's variable names another one."""
        own = str(self.authority.path)
        good = (b"the password", None)
        self.assertEqual(good, self.shake_with(NIX_SSL_CERT_FILE=own))
        self.assertEqual(good, self.shake_with(SSL_CERT_FILE=own, NIX_SSL_CERT_FILE="/none"))
        other = str(Authority(Path(self.mktemp()).absolute(), "other").path)
        for environ in (
            {"NIX_SSL_CERT_FILE": other},
            {"NIX_SSL_CERT_FILE": own, "SSL_CERT_FILE": other},
            {"NIX_SSL_CERT_FILE": ""},
        ):
            self.assertEqual(b"", self.shake_with(**environ)[0])

    def test_authorities_that_cannot_be_read(self) -> None:
        """With an unreadable file no server is trusted, and the reason is given."""
        empty = Path(self.mktemp())
        empty.write_text("nothing")
        for path, why in ((empty, "holds no certificates"), (Path("/no-cert.crt"), "read: No")):
            heard, reason = self.shake_with(NIX_SSL_CERT_FILE=str(path))
            self.assertEqual(b"", heard)
            self.assertIn("no trusted authority signed it", str(reason))
            for name in ("NIX_SSL_CERT_FILE", "SSL_CERT_FILE"):
                told = trouble_of_authorities({name: str(path)})
                self.assertIn(f"environment {name}: {path}", told)
                self.assertIn(why, told)
        good = {"SSL_CERT_FILE": str(self.authority.path), "NIX_SSL_CERT_FILE": "/none"}
        for environ in ({}, good):
            self.assertEqual("", trouble_of_authorities(environ))

    def test_certificate_for_the_host(self) -> None:
        """The host may be a name, one of several, a wildcard, or an address of either kind."""
        for host, names in (
            ("cache.example", ["cache.example"]),
            ("cache.example", ["other.example", "cache.example"]),
            ("CACHE.example", ["cache.EXAMPLE"]),
            ("a.cache.example", ["*.cache.example"]),
            ("127.0.0.1", ["127.0.0.1"]),
            ("::1", ["cache.example", "::1"]),
            ("bücher.example", ["xn--bcher-kva.example"]),
            ("cache.lan", ["*.lan", "10.0.0.7.", "cache.lan"]),
        ):
            self.assertEqual((b"the password", None), self.shake(host, names), (host, names))

    def test_certificate_for_another_host(self) -> None:
        """Nothing is sent, and the reason names the certificate and the host."""
        for host, names in (
            ("cache.example", ["other.example"]),
            ("cache.example", ["example"]),
            ("a.b.cache.example", ["*.cache.example"]),
            ("cache.example", ["*.cache.example"]),
            ("cache.example", ["127.0.0.1"]),
            ("127.0.0.1", ["127.0.0.2"]),
            ("127.0.0.1", ["localhost"]),
            ("::1", ["::2"]),
        ):
            heard, reason = self.shake(host, names)
            self.assertEqual(b"", heard, (host, names))
            self.assertIsInstance(reason, WrongCertificate)
            self.assertEqual(f"the certificate of {host} is for another host", str(reason))

    def test_certificate_for_no_host(self) -> None:
        """Invalid names are ignored, and a common name does not count."""
        for host, subject, names in (
            ("cache.example", "elsewhere.example", []),
            ("cache.example", "cache.example", []),
            ("127.0.0.1", "127.0.0.1", []),
            ("cache.example", "server", ["*.example"]),
            ("cache.a.example", "server", ["*.*.example", "*"]),
            ("cache.example", "server", [""]),
        ):
            heard, reason = self.shake(host, names, subject=subject)
            self.assertEqual(b"", heard, (host, subject, names))
            self.assertIsInstance(reason, WrongCertificate)
            self.assertIn(f"the certificate of {host} names no host", str(reason))
        self.assertEqual([], self.flushLoggedErrors())

    def test_address_among_the_names(self) -> None:
        """An address must be in the certificate as an address, not as a name."""
        names = [DNSName("10.0.0.7")]
        for host, given, is_heard in (
            ("10.0.0.7", names, False),
            ("cache.example", names, False),
            ("cache.example", [*names, DNSName("cache.example")], True),
            ("cache.example", [UniformResourceIdentifier("nonsense")], False),
        ):
            heard, reason = self.shake(host, given)
            self.assertEqual(is_heard, bool(heard), (host, given))
            self.assertEqual(not is_heard, isinstance(reason, WrongCertificate))
        self.assertEqual([], self.flushLoggedErrors())

    def test_authority_that_is_not_trusted(self) -> None:
        """The right name does not help a server whose authority is unknown."""
        other = Authority(Path(self.mktemp()).absolute(), "other")
        trust = trustRootFromCertificates([Certificate.loadPEM(other.path.read_bytes())])
        for names in (["cache.example"], []):
            heard, reason = self.shake("cache.example", names, trust=trust)
            self.assertEqual(b"", heard)
            self.assertIsInstance(reason, WrongCertificate)
            self.assertIn("cache.example is not trusted: no trusted authority", str(reason))
        self.assertEqual([], self.flushLoggedErrors())

    def test_https(self) -> None:
        """The policy for Twisted's agents verifies in the same way."""
        creator = VerifiedHTTPS(self.trust).creatorForNetloc(b"cache.example", 443)
        self.assertIs(type(verified("cache.example")), type(creator))

    def test_callbacks_that_cannot_be_made(self) -> None:
        """If the process may not have such memory, the message names the remedy."""
        self.assertEqual("", trouble_with_callbacks())
        with patch("OpenSSL.SSL.Context.set_info_callback", side_effect=MemoryError):
            self.assertIn("remove MemoryDenyWriteExecute=", trouble_with_callbacks())

    def test_hosts_that_are_none(self) -> None:
        """A text that cannot be a host is an error before anything is connected."""
        with self.assertRaises(ValueError):
            verified("*.example")


def _wrapped(creator: Any, end: Protocol, clock: Clock, *, is_client: bool) -> Any:
    factory = Factory.forProtocol(lambda: end)
    factory.noisy = False
    return TLSMemoryBIOFactory(creator, is_client, factory, clock=clock).buildProtocol(None)
