"""Gathering: the metrics of all workers in one answer, whose counters never fall.

If a counter falls, a scraper believes that it began again at 0, and adds its whole value again. So
a worker writes its metrics to a file before it sends them. Its successor begins with this file;
while a worker does not answer, the others use its file.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from ncps.errors import Malformed, Unavailable
from ncps.observe.metrics import Metrics
from ncps.observe.snapshots import Collector, Snapshot


@frozen(kw_only=True)
class Sibling:
    """Another worker.

    :param ask: asks it for its metrics, within a deadline; raises Unavailable if that fails.
    :param shown: the file that it wrote at its last answer.
    """

    ask: Callable[[], Awaitable[bytes]]
    shown: Path


class Gathering:
    """The metrics of this worker and of its siblings.

    :param shown: the file of this worker; its metrics begin with those of a predecessor there.
    """

    _log = Logger()

    def __init__(self, metrics: Metrics, shown: Path, siblings: list[Sibling]) -> None:
        self._metrics = metrics
        self._shown = shown
        self._siblings = siblings
        self._base = _written(shown)

    def count_lives(self, life: int) -> None:
        """Count the restarts of this worker, also of predecessors without a file."""
        family = self._base.families.get("ncps_worker_restarts", None)
        known = 0.0 if family is None else sum(family.samples.values())
        self._metrics.worker_restarts.inc(max(0.0, life - 1 - known))

    def own(self) -> Snapshot:
        """Write the metrics of this worker and its predecessors to the file; return them."""
        figures = Snapshot.of(self._metrics.registry)
        figures.add(self._base, self._metrics.ways)
        aside = self._shown.with_suffix(".new")
        try:
            aside.write_bytes(figures.growing().render())
            aside.replace(self._shown)
        except OSError as error:
            self._log.warn(
                "the metrics of this worker are not saved: {reason}", reason=error.strerror
            )
        return figures

    async def all(self) -> Collector:
        """Return the metrics of all workers; for one that does not answer, those in its file."""
        asked = [Deferred.fromCoroutine(self._of(sibling)) for sibling in self._siblings]
        results = await DeferredList(asked, fireOnOneErrback=True, consumeErrors=True)
        found = self.own()  # last, so that they are not older than those of the others
        for _, figures in results:
            found.add(figures, self._metrics.ways)
        return found

    async def _of(self, sibling: Sibling) -> Snapshot:
        try:
            return Snapshot.read(await sibling.ask())
        except (Unavailable, Malformed) as error:
            self._log.warn("the metrics of a worker are missing: {reason}", reason=str(error))
        return _written(sibling.shown)


def _written(path: Path) -> Snapshot:
    with suppress(OSError, Malformed):
        return Snapshot.read(path.read_bytes())
    return Snapshot()
