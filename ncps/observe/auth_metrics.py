"""Metrics of clients with credentials."""

from __future__ import annotations

from ncps.observe.labelled import Labelled
from ncps.observe.registry import Registered

SOURCES = ("token", "static", "oidc", "certificate", "proxy", "none")
"""The sources that know credentials; `none` for unknown credentials."""
RESULTS = ("ok", "unknown", "expired", "revoked", "invalid", "unavailable")


class AuthMetrics(Registered):
    """Credentials that clients send, and the results of their check."""

    def _add_auth(self) -> None:
        self.authentications = Labelled(
            self._counter(
                "ncps_authentications_total",
                "Credentials of clients that ncps checked, by their source and the result.",
                "source result",
            ),
            SOURCES,
            RESULTS,
        )
        self.oidc_fetches = Labelled(
            self._counter(
                "ncps_oidc_fetches_total",
                "Fetches of the keys of an issuer of tokens, by whether ncps could use them.",
                "result",
            ),
            ("done", "failed"),
        )
