"""The inner site: what workers of one machine, and nobody else, ask of each other.

/figures              this worker's part of the metrics, as `ncps.observe.snapshots` writes them
/cluster/nar/<file>   a NAR on its way; see `peers`
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.web.server import NOT_DONE_YET

from ncps.observe.metrics import Metrics
from ncps.observe.snapshots import Snapshot
from ncps.settings.schema.server import ServerSettings
from ncps.web.answer import send, tell
from ncps.web.pages.info import JSON
from ncps.web.request import NcpsRequest
from ncps.web.respond import respond
from ncps.web.routes import NarAnswers, Routes
from ncps.web.site import NcpsSite

FIGURES = "/figures"


class FiguresPage:
    """This worker's part of the metrics."""

    def __init__(self, own: Callable[[], Snapshot]) -> None:
        self._own = own

    def render(self, request: NcpsRequest) -> int:
        """See `routes.Page`."""
        return respond(request, self._answer(request))

    async def _answer(self, request: NcpsRequest) -> None:
        send(request, self._own().render(), JSON)


class _Elsewhere:
    """What clients ask is not answered here."""

    def render(self, request: NcpsRequest, _what: object) -> int:
        tell(request, 404, "no such path")
        return NOT_DONE_YET

    def render_old(self, request: NcpsRequest, _digest: str, _file_name: str) -> int:
        return self.render(request, None)


def inner_site(clock: IReactorTime, own: Callable[[], Snapshot], peers: NarAnswers) -> NcpsSite:
    """Make the inner site; it is neither logged nor counted among what clients ask.

    :param own: reads the figures of this worker.
    :param peers: answers for NARs on their way.
    """
    root = Routes(
        {FIGURES.encode(): FiguresPage(own)},
        narinfos=_Elsewhere(),
        nars=_Elsewhere(),
        peers=peers,
    )
    return NcpsSite(
        root,
        clock=clock,
        metrics=Metrics(),
        limits=ServerSettings(min_send_rate_bytes=0),
        access_log=lambda _: None,
    )
