"""Upstreams over TLS: which certificates ncps accepts."""

from __future__ import annotations

import ssl
from collections.abc import Collection

from tests.e2e.daemon import Daemon
from tests.integration.servers.certificates import Authority
from tests.system.origin import Origin
from tests.system.stage import Stage

PASSWORD = "hunter2-of-the-upstream"


class CertificateTests(Stage):
    def secured(self, authority: Authority, names: Collection[str]) -> Origin:
        """Return a started origin with the cache on it and a certificate for these names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.issue("elsewhere.example", names=names))
        origin = Origin(tls=context)
        origin.start()
        self.addCleanup(origin.stop)
        self.cache.mount(origin)
        return origin

    def over(self, origin: Origin, trusted: Authority) -> Daemon:
        """Return a running daemon with a password for the origin and one trusted authority."""
        url = origin.url.replace("://", f"://user:{PASSWORD}@")
        daemon = self.make_daemon(url, options=["--cache-upstream-away-answer", "error"])
        daemon.environment["SSL_CERT_FILE"] = str(trusted.path)
        daemon.start()
        return daemon

    def test_certificate_that_is_not_of_the_upstream(self) -> None:
        """ncps sends no request and no password, and the log says what is wrong."""
        right, wrong = Authority(self.directory, "right"), Authority(self.directory, "wrong")
        path = self.cache.add()
        for names, trusted, reason in (
            ([], right, "the certificate of 127.0.0.1 names no host"),
            (["*.example", "elsewhere.example"], right, "127.0.0.1 is for another host"),
            (["127.0.0.1"], wrong, "the certificate of 127.0.0.1 is not trusted"),
        ):
            origin = self.secured(right, names)
            daemon = self.over(origin, trusted)
            self.assertEqual(503, self.narinfo(daemon, path).status)
            self.assertEqual([], origin.log)
            self.wait_for_log(daemon, "failed for", reason)
            self.assertNotIn(PASSWORD, daemon.log)
            daemon.stop()
            self.check_log(daemon)

    def test_certificate_of_the_upstream(self) -> None:
        """With a certificate for its address all requests succeed."""
        authority = Authority(self.directory, "authority")
        path = self.cache.add()
        origin = self.secured(authority, ["127.0.0.1"])
        self.assert_served(self.over(origin, authority), path)
        self.assertTrue(all("authorization" in visit.request.headers for visit in origin.log))
