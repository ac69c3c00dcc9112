"""The inner site: pages with which the workers of one machine ask each other.

/figures              this worker's part of the metrics, as `ncps.observe.snapshots` writes them
/cluster/nar/<file>   a NAR that is arriving; see `peers`
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from ncps.observe.metrics import Metrics
from ncps.observe.snapshots import Snapshot
from ncps.settings.schema.server import ServerSettings
from ncps.web.answer import send
from ncps.web.grammar import NarAnswers, cluster_nars, fixed
from ncps.web.pages.info import JSON
from ncps.web.request import NcpsRequest
from ncps.web.respond import respond
from ncps.web.routes import Routes
from ncps.web.site import NcpsSite

FIGURES = "/figures"


class FiguresPage:
    """The page of this worker's part of the metrics."""

    def __init__(self, own: Callable[[], Snapshot]) -> None:
        self._own = own

    def render(self, request: NcpsRequest) -> int:
        """See `grammar.Page`."""
        return respond(request, self._answer(request))

    async def _answer(self, request: NcpsRequest) -> None:
        send(request, self._own().render(), JSON)


def inner_site(clock: IReactorTime, own: Callable[[], Snapshot], peers: NarAnswers) -> NcpsSite:
    """Make the inner site, whose requests are neither logged nor counted as those of clients.

    :param own: reads the metrics of this worker.
    :param peers: answers for NARs that are arriving.
    """
    root = Routes([fixed(FIGURES, FiguresPage(own)), cluster_nars(peers)])
    return NcpsSite(
        root,
        clock=clock,
        metrics=Metrics(),
        limits=ServerSettings(min_send_rate_bytes=0),
        access_log=lambda _: None,
    )
