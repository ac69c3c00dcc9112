"""Metrics of uploads."""

from __future__ import annotations

from ncps.observe.labelled import Labelled
from ncps.observe.registry import Registered

KINDS = ("nar", "narinfo")
OUTCOMES = ("stored", "known", "merged", "refused", "failed", "cut")


class UploadMetrics(Registered):
    """NARs and narinfos that clients have uploaded."""

    def _add_uploads(self) -> None:
        self.uploads = Labelled(
            self._counter(
                "ncps_uploads_total",
                "Uploads that ended, by kind of object and by outcome.",
                "kind outcome",
            ),
            KINDS,
            OUTCOMES,
        )
        self.upload_bytes = self._counter(
            "ncps_upload_bytes_total", "Bytes of NARs that clients have sent."
        )
        self.abandoned_uploads = self._counter(
            "ncps_uploads_abandoned_total",
            "Uploaded NARs that were removed because no narinfo came for them.",
        )
