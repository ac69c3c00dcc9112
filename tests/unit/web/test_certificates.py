"""Certificates: failures of handshakes have different reasons, logged once a minute."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any
from unittest.mock import patch

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.certificate import CertificateFiles
from ncps.aio.threads import Threads
from ncps.errors import Refused, Unavailable
from ncps.observe.metrics import Metrics
from ncps.web.certificates import QUIET_S, READ_S, SOON_S, Certificates, kind_of
from tests.fakes.metrics import counted, series
from tests.fakes.threads import InlineThreads
from tests.integration.servers.certificates import Authority


class Hanging(InlineThreads):
    """Threads that never finish."""

    async def run(self, *_: Any, **__: Any) -> Any:
        await Deferred[None]()


class CertificatesTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = Path(self.mktemp()).absolute()
        self.authority = Authority(directory, "authority")
        cert, key = self.authority.issue("server", days=90)
        self.files = CertificateFiles(cert=cert, key=key)
        self.clock, self.metrics = Clock(), Metrics()
        self.certificates = self.made(InlineThreads())
        self.lines: list[LogEvent] = []
        observer: Any = self.lines.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def made(self, threads: Threads) -> Certificates:
        return Certificates(self.clock, threads, self.metrics, self.files, handshake_s=10.0)

    def look(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.certificates.look()))

    @property
    def said(self) -> list[str]:
        """Return the lines that were logged since the last call."""
        lines, self.lines[:] = list(self.lines), []
        return [formatEvent(line) for line in lines]

    def expire_soon(self) -> float:
        """Go to a day before the certificate's end; return the end."""
        self.look()
        end = counted(self.metrics.certificate_ends)
        self.clock.advance(end - 86400 - self.clock.seconds())
        return end

    def test_without_a_certificate_there_is_no_start(self) -> None:
        """The first load fails with a reason."""
        self.files.key.write_text("garbage")
        looked = Deferred.fromCoroutine(self.certificates.look())
        self.assertIn("private key in PEM", str(self.failureResultOf(looked, Refused).value))

    def test_files_that_hang(self) -> None:
        """The old certificate stays, with a warning; a first load fails."""
        self.look()
        with patch.object(self.certificates, "_threads", Hanging()):
            looked = Deferred.fromCoroutine(self.certificates.look())
            self.clock.advance(READ_S)
            self.successResultOf(looked)
        self.assertIn("cannot be read within 10 s", self.certificates.warnings()[-1])
        self.look()
        self.assertNotIn("cannot be read", "".join(self.certificates.warnings()))
        looked = Deferred.fromCoroutine(self.made(Hanging()).look())
        self.clock.advance(READ_S)
        self.failureResultOf(looked, Unavailable)

    def test_an_end_is_told_once_before_and_once_after(self) -> None:
        """A warning stays until there is a new certificate."""
        end = self.expire_soon()
        self.assertGreater(SOON_S, 86400)
        self.lines.clear()
        for _ in range(3):
            self.look()
        (line,) = self.said
        self.assertIn("the certificate of CN=server expires at", line)
        self.assertEqual(1, len(self.certificates.warnings()))
        self.clock.advance(end - self.clock.seconds())
        self.look()
        self.look()
        (line,) = self.said
        self.assertIn("has expired", line)
        self.authority.issue("server", days=365)
        self.look()
        self.assertIn("took a new certificate: CN=server", self.said[0])
        self.assertEqual([], self.certificates.warnings())
        self.assertEqual({"used": 2}, series(self.metrics.certificate_loads))

    def test_other_authorities(self) -> None:
        """Only changes that refuse former clients begin a new era.

        A pair that does not fit changes nothing until it does.
        """
        eras: list[str] = []
        self.certificates.on_era = lambda: eras.append("era")
        self.look()
        one, two, both = (self.files.cert.with_name(name) for name in ("one", "two", "both"))
        for file in (one, two):
            file.write_bytes(
                Authority(file.parent / f"of-{file.name}", file.name).path.read_bytes()
            )
        both.write_bytes(one.read_bytes() + two.read_bytes())
        path: Path | None
        for path, count in ((one, 1), (both, 1), (two, 2), (two, 2), (None, 2), (both, 3)):
            self.take(evolve(self.files, client_ca=path))
            self.assertEqual(count, len(eras), path)
        key = self.files.key.read_bytes()
        self.files.key.write_bytes(self.authority.issue("other", days=9)[1].read_bytes())
        context = self.certificates.context
        taken = Deferred.fromCoroutine(self.certificates.take(evolve(self.files, client_ca=one)))
        self.assertIn("is not the key", str(self.failureResultOf(taken, Refused).value))
        self.assertIs(context, self.certificates.context)
        self.assertEqual(3, len(eras))
        self.files.key.write_bytes(key)
        self.look()
        self.assertIsNot(context, self.certificates.context)
        self.assertEqual(4, len(eras))

    def take(self, files: CertificateFiles) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.certificates.take(files)))

    def test_the_same_trouble_is_logged_once(self) -> None:
        """Files that stay wrong, and files that are wrong again in the same way."""
        self.clock.advance(1_700_000_000)
        context = None
        for content in ("", "garbage", "more garbage"):
            if content:
                self.files.cert.write_text(content)
            self.look()
            self.look()
            context = context or self.certificates.context
            self.assertIs(context, self.certificates.context)
        (line,) = [line for line in self.said if "cannot be used" in line]
        self.assertIn("the old one stays", line)
        self.assertEqual({"used": 1, "refused": 2}, series(self.metrics.certificate_loads))

    def test_failures_are_logged_once_a_minute(self) -> None:
        """Each reason by itself, with the number of others; all are counted."""
        for _ in range(3):
            self.certificates.failed("192.0.2.1", "plain_http")
        self.certificates.failed("192.0.2.1", "distrust")
        self.certificates.failed("192.0.2.1", "closed")
        begin = "refused a connection from 192.0.2.1: it "
        distrust = f"{begin}does not trust the certificate of this server"
        self.assertEqual([f"{begin}speaks HTTP without TLS", distrust], self.said)
        self.clock.advance(QUIET_S)
        self.certificates.failed("192.0.2.2", "plain_http")
        (line,) = self.said
        self.assertTrue(line.endswith("(2 more like this since the last line)"), line)
        self.assertEqual(
            {"plain_http": 4, "distrust": 1, "closed": 1}, series(self.metrics.handshakes)
        )

    def test_reasons_of_openssl(self) -> None:
        """An alert of the client about a certificate means distrust."""
        for reason, kind in (
            ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "no_certificate"),
            ("CERTIFICATE_VERIFY_FAILED", "bad_certificate"),
            ("TLSV1_ALERT_UNKNOWN_CA", "distrust"),
            ("SSLV3_ALERT_CERTIFICATE_UNKNOWN", "distrust"),
            ("SSLV3_ALERT_HANDSHAKE_FAILURE", "other"),
            ("HTTP_REQUEST", "plain_http"),
            ("NO_SHARED_CIPHER", "no_agreement"),
            ("A_NEW_REASON", "other"),
        ):
            error = ssl.SSLError(1, reason)
            error.reason = reason
            self.assertEqual(kind, kind_of(error), reason)
        for gone in (ssl.SSLEOFError(8, "EOF"), ConnectionResetError(), ValueError()):
            self.assertEqual("closed", kind_of(gone))
