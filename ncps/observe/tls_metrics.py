"""Metrics of encrypted connections."""

from __future__ import annotations

from ncps.observe.labelled import Labelled
from ncps.observe.registry import Registered

HANDSHAKES = (
    "done",
    "no_certificate",
    "bad_certificate",
    "distrust",
    "plain_http",
    "no_agreement",
    "timeout",
    "closed",
    "other",
)
"""The results of TLS handshakes."""


class TlsMetrics(Registered):
    """Handshakes and the certificate."""

    def _add_tls(self) -> None:
        self.handshakes = Labelled(
            self._counter(
                "ncps_tls_handshakes_total",
                "TLS handshakes with clients that ended, by result.",
                "result",
            ),
            HANDSHAKES,
        )
        self.certificate_ends = self._gauge(
            "ncps_tls_certificate_expiry_timestamp_seconds",
            "The time at which the certificate of the https:// addresses expires; 0 without one.",
            way="least",
        )
        self.certificate_loads = Labelled(
            self._counter(
                "ncps_tls_certificate_loads_total",
                "Loads of new files of the certificate, by whether ncps could use them.",
                "result",
            ),
            ("used", "refused"),
        )
