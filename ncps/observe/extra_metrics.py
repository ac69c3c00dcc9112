"""Metrics of logs, listings and debug information."""

from __future__ import annotations

from typing import Final

from ncps.observe.labelled import Labelled
from ncps.observe.registry import Registered

EXTRA_ROUTES: Final = ("/{hash}.ls", "/log/{drv}", "/debuginfo/{id}", "/buildid/{id}/debuginfo")

_KINDS: Final = ("log", "listing", "debuginfo", "symbols")


class ExtraMetrics(Registered):
    """Extras that were served, kept and removed."""

    def _add_extras(self) -> None:
        self.extras_served = Labelled(
            self._counter(
                "ncps_extras_served_total",
                "Logs, listings, links to debug information and symbols that clients asked for, "
                "by the result; a miss may be an absence.",
                "kind result",
            ),
            _KINDS,
            ("hit", "miss", "coalesced"),
        )
        self.extra_size = Labelled(
            self._gauge(
                "ncps_extra_size_bytes",
                "Bytes of logs, listings and links in the store, by whether clients have uploaded "
                "them.",
                way="own",
                labels="sort",
            ),
            ("fetched", "uploaded"),
        )
        self.extras_removed = self._counter(
            "ncps_extras_removed_total",
            "Fetched logs, listings and links that were removed because there were too many.",
        )
