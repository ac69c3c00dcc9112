"""The ledger: records of answered requests, written to metrics and log in batches.

A log line and half a dozen counters for each request would cost more than the answer. So each
request that has ended leaves a record. Once there are `MOST` records, or the first has waited for
`DELAY_S`, all are added to the metrics and the access log together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ncps.observe.log_order import precede
from ncps.observe.metrics import METHODS, OTHER_METHOD, PROBES, Metrics

DELAY_S = 0.25
MOST = 256


class Access(NamedTuple):
    """One request that has ended.

    :param ended: the time of the clock.
    :param route: pattern of the path, for metrics.
    :param size: bytes of the body that were written to the connection.
    :param elapsed: seconds from the end of the request to the end of the response.
    :param is_complete: whether the client stayed until the end.
    :param cache: outcome, if the cache was asked; the same holds for `digest` and `upstream`.
    :param user: name of the client's credentials; empty without any.
    :param is_hot: whether the answer was ready.
    :param trace_id: of the span of the request; like `span_id`, empty if it has no span.
    """

    ended: float
    route: str
    method: str
    path: str
    status: int
    size: int
    elapsed: float
    is_complete: bool
    cache: str
    digest: str
    upstream: str
    client: str
    user: str = ""
    is_hot: bool = False
    trace_id: str = ""
    span_id: str = ""


class Ledger:
    """The records that wait; `settle` writes them.

    :param access_log: called with batches, in the order of `ended`.
    :param repeated: called with the requests that were answered without asking the page.
    """

    def __init__(
        self,
        *,
        clock: IReactorTime,
        metrics: Metrics,
        access_log: Callable[[Sequence[Access]], object],
        repeated: Callable[[Sequence[Access]], object],
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._access_log = access_log
        self._repeated = repeated
        self._waiting: list[Access] = []
        self._call: IDelayedCall | None = None
        metrics.before_scrape(self.settle)
        precede(self)

    def add(self, access: Access) -> None:
        """Record a request that has ended."""
        waiting = self._waiting
        waiting.append(access)
        if self._call is None:
            self._call = self._clock.callLater(DELAY_S, self.settle)
        elif len(waiting) >= MOST:
            self.settle()

    def settle(self) -> None:
        """Write the waiting records to metrics and log."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        self._count(waiting)
        hot = [access for access in waiting if access.is_hot]
        if hot:
            self._repeated(hot)
        logged = [access for access in waiting if access.route not in PROBES]
        if logged:
            self._access_log(logged)

    def _count(self, accesses: Sequence[Access]) -> None:
        sizes: Counter[str] = Counter()
        for access in accesses:
            method = access.method if access.method in METHODS else OTHER_METHOD
            self._metrics.request_seconds(access.route, method, str(access.status)).observe(
                access.elapsed
            )
            sizes[access.route] += access.size
        for route, size in sizes.items():
            if size:
                self._metrics.bytes_served(route).inc(size)
