"""The certificate of new connections, and the handshakes that fail.

`look` loads files that have changed. If it cannot use them twice in a row, new connections go on
using the old certificate, and one log line says what is wrong with the files.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ncps.aio.certificate import (
    Certificate,
    CertificateFiles,
    Signature,
    load_blocking,
    signature_blocking,
    trouble_of,
)
from ncps.aio.clocks import utc_now
from ncps.aio.threads import Threads
from ncps.aio.waiting import within
from ncps.errors import Refused, Unavailable
from ncps.observe.metrics import Metrics

SOON_S: Final = 14 * 24 * 3600.0
"""A certificate that expires within these seconds causes a warning."""

READ_S: Final = 10.0
"""Longest time to read the files: a network file system may hang."""

QUIET_S: Final = 60.0
"""Seconds after a logged failure in which further ones of its kind are only counted."""

_MESSAGES: Final = {
    "no_certificate": "it shows no certificate, and server-tls-client-ca-file asks for one",
    "bad_certificate": "no authority of server-tls-client-ca-file has signed its certificate",
    "distrust": "it does not trust the certificate of this server",
    "plain_http": "it speaks HTTP without TLS",
    "no_agreement": "it has no version of TLS, or no cipher, in common with this server",
    "timeout": "its handshake took longer than server-tls-handshake-timeout",
    "other": "its handshake is malformed",
}
"""The reasons that are logged, by kind."""

_KINDS: Final = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no_certificate",
    "CERTIFICATE_VERIFY_FAILED": "bad_certificate",
    "HTTP_REQUEST": "plain_http",
    "HTTPS_PROXY_REQUEST": "plain_http",
    "UNSUPPORTED_PROTOCOL": "no_agreement",
    "NO_SHARED_CIPHER": "no_agreement",
    "VERSION_TOO_LOW": "no_agreement",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "no_agreement",
}
"""The kinds of OpenSSL's reasons."""


def kind_of(error: Exception) -> str:
    """Return the kind of a handshake error, as a label of the metrics."""
    if isinstance(error, ssl.SSLEOFError) or not isinstance(error, ssl.SSLError):
        return "closed"
    reason = error.reason or ""
    if "ALERT" in reason and ("CERT" in reason or "UNKNOWN_CA" in reason):
        return "distrust"
    return _KINDS.get(reason, "other")


class Certificates:
    """The certificate of this process's https:// addresses.

    :param threads: threads that read the files.
    :param handshake_s: seconds that a client has for its handshake.
    :ivar era: replaced after each change that refuses clients which were accepted before.
    :ivar on_era: called after such a change.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        threads: Threads,
        metrics: Metrics,
        files: CertificateFiles,
        *,
        handshake_s: float,
    ) -> None:
        self.handshake_s = handshake_s
        self.clock = clock
        self._threads = threads
        self._metrics = metrics
        self._files = files
        self.era = object()
        self.on_era: Callable[[], object] = lambda: None
        self._used: CertificateFiles | None = None
        self._seen: tuple[CertificateFiles, Signature] | None = None
        self._doubtful: tuple[CertificateFiles, Signature] | None = None
        self._doubt = ""
        self._current: Certificate | None = None
        self._refused = ""
        self._reported = ""
        self._quiet: dict[str, tuple[float, int]] = {}

    @property
    def context(self) -> ssl.SSLContext:
        """The context for a new connection."""
        assert self._current is not None, "look() comes first"
        return self._current.context

    async def take(self, files: CertificateFiles) -> None:
        """Use other files from now on. Raises Refused if they cannot be used yet.

        Until they can, the old certificate and authorities remain in use; `look` tries again.
        """
        self._files = files
        if files != self._used:
            await self.look()
        if files != self._used:
            raise Refused(self._refused or self._doubt)

    async def look(self) -> None:
        """Load the files if they have changed.

        Raises Refused or Unavailable if there is no certificate yet.
        """
        late = f"{self._files.cert} and its key cannot be read within {READ_S:g} s"
        try:
            await within(self.clock, READ_S, self._look(), late)
        except Unavailable as error:
            if self._current is None:
                raise
            self._refuse(str(error))
        else:
            self._refused = "" if self._refused == late else self._refused

    async def _look(self) -> None:
        files = self._files
        seen = files, await self._threads.run(signature_blocking, files)
        if seen != self._seen:
            try:
                await self._take(files)
            except Refused as error:
                if self._current is None:
                    raise
                if seen != self._doubtful:
                    # Perhaps only one of the two files is written yet.
                    self._doubtful, self._doubt = seen, str(error)
                    return
                self._refuse(str(error))
            # Only now, so that an interrupted look is repeated.
            self._seen = seen
        self._watch_end()

    async def _take(self, files: CertificateFiles) -> None:
        found = await self._threads.run(load_blocking, files)
        if files is not self._files:
            return  # `take` has named other files meanwhile
        now, before = utc_now(self.clock), self._current
        if self._current is not None:
            trouble = trouble_of(found, now)
            if trouble and not trouble_of(self._current, now):
                raise Refused(trouble)
            self._log.info(
                "took a new certificate: {name}, until {ends}", name=found.name, ends=found.ends
            )
        self._current, self._used, self._refused = found, files, ""
        if before is not None and not found.lets_in_all_of(before):
            self.era = object()
            self.on_era()
        self._metrics.certificate_loads("used").inc()
        self._metrics.certificate_ends.set(found.ends.timestamp())

    def _refuse(self, reason: str) -> None:
        self._metrics.certificate_loads("refused").inc()
        if reason != self._refused:
            self._log.warn(
                "the new certificate cannot be used, the old one stays: {reason}", reason=reason
            )
        self._refused = reason

    def _watch_end(self) -> None:
        """Log once that the certificate expires soon, and once that it has expired."""
        assert self._current is not None
        trouble = trouble_of(self._current, utc_now(self.clock), soon_s=SOON_S)
        if trouble and trouble != self._reported:
            self._log.warn("{trouble}: clients need another one", trouble=trouble)
        self._reported = trouble

    def warnings(self) -> list[str]:
        """Return what an operator should fix: an expiring certificate, unusable files."""
        refused = f"the new certificate cannot be used: {self._refused}" if self._refused else ""
        return [text for text in (self._reported, refused) if text]

    def succeeded(self) -> None:
        """Count a handshake that succeeded."""
        self._metrics.handshakes("done").inc()

    def late(self, client: str) -> None:
        """Count a handshake that took too long."""
        self._metrics.limit_reached("server-tls-handshake-timeout").inc()
        self.failed(client, "timeout")

    def failed(self, client: str, kind: str) -> None:
        """Count a handshake that failed, and log at most one of its kind a minute.

        :param kind: one of `HANDSHAKES`.
        """
        self._metrics.handshakes(kind).inc()
        if kind not in _MESSAGES:
            return
        now = self.clock.seconds()
        until, more = self._quiet.get(kind, (0.0, 0))
        if now < until:
            self._quiet[kind] = until, more + 1
            return
        self._quiet[kind] = now + QUIET_S, 0
        self._log.warn(
            "refused a connection from {client}: {reason}{more}",
            client=client,
            reason=_MESSAGES[kind],
            more=f" ({more} more like this since the last line)" if more else "",
        )
