"""Gathering: the figures of all workers in one answer, which never counts backwards.

A scraper takes a counter that falls for one that began anew, and adds it all once more. So what a
worker shows it writes down before it shows it: its successor begins from there, and while it is
away or busy the others use what it has written.
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

    :param ask: asks it for its figures, within a deadline. Unavailable.
    :param shown: what it wrote down when it was last asked.
    """

    ask: Callable[[], Awaitable[bytes]]
    shown: Path


class Gathering:
    """See the module.

    :param shown: where this worker writes down what it shows; what a predecessor wrote there is
        where its own figures begin.
    """

    _log = Logger()

    def __init__(self, metrics: Metrics, shown: Path, siblings: list[Sibling]) -> None:
        self._metrics = metrics
        self._shown = shown
        self._siblings = siblings
        self._base = _written(shown)

    def count_lives(self, life: int) -> None:
        """Count the restarts of this worker, also of predecessors that showed nothing."""
        family = self._base.families.get("ncps_worker_restarts", None)
        known = 0.0 if family is None else sum(family.samples.values())
        self._metrics.worker_restarts.inc(max(0.0, life - 1 - known))

    def own(self) -> Snapshot:
        """Return the figures of this worker and its predecessors, written down."""
        figures = Snapshot.of(self._metrics.registry)
        figures.add(self._base, self._metrics.ways)
        aside = self._shown.with_suffix(".new")
        try:
            aside.write_bytes(figures.growing().render())
            aside.replace(self._shown)
        except OSError as error:
            self._log.warn("figures are not written down: {reason}", reason=error.strerror)
        return figures

    async def all(self) -> Collector:
        """Return the figures of all workers; of those that do not answer, what they wrote."""
        asked = [Deferred.fromCoroutine(self._of(sibling)) for sibling in self._siblings]
        results = await DeferredList(asked, fireOnOneErrback=True, consumeErrors=True)
        found = self.own()  # last, so that it is as late as the others'
        for _, figures in results:
            found.add(figures, self._metrics.ways)
        return found

    async def _of(self, sibling: Sibling) -> Snapshot:
        try:
            return Snapshot.read(await sibling.ask())
        except (Unavailable, Malformed) as error:
            self._log.warn("figures of a worker are missing: {reason}", reason=str(error))
        return _written(sibling.shown)


def _written(path: Path) -> Snapshot:
    with suppress(OSError, Malformed):
        return Snapshot.read(path.read_bytes())
    return Snapshot()
