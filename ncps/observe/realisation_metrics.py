"""Metrics of realisations."""

from __future__ import annotations

from ncps.observe.labelled import Labelled
from ncps.observe.registry import Registered

RESULTS = ("hit", "miss", "absent", "error")
OUTCOMES = ("created", "same", "replaced", "left", "conflict", "refused", "failed")


class RealisationMetrics(Registered):
    """Realisations that clients ask for, and those that they upload."""

    def _add_realisations(self) -> None:
        self.realisations_served = Labelled(
            self._counter(
                "ncps_realisation_served_total",
                "Realisations of content-addressed derivations that clients asked for, by result.",
                "result",
            ),
            RESULTS,
        )
        self.realisation_uploads = Labelled(
            self._counter(
                "ncps_realisation_uploads_total",
                "Realisations that clients uploaded, by outcome.",
                "outcome",
            ),
            OUTCOMES,
        )
