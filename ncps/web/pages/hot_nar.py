"""Stored NARs whose answers the connection can repeat; see `ncps.web.fast.hot_nars`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from ncps.aio.sending_times import sending_times
from ncps.cache.answers import Cache, Outcome, ServedNar
from ncps.errors import Corrupt
from ncps.nix.narurl import NarKey
from ncps.observe.metrics import Metrics
from ncps.web.fast.hot import rest_of_head
from ncps.web.fast.hot_nars import ROUTE, HotNar, HotNars, Sent
from ncps.web.fast.ledger import Access
from ncps.web.pages.nar import NarPages, pour_body
from ncps.web.request import NcpsRequest
from ncps.web.respond import respond

NOTED: Final = 1 << 20
"""Bytes of an answer from which it shows how fast its client reads; the kernel holds fewer."""


class HotNarPages(NarPages):
    """The pages of `/nar/<file>`, which also hold the answers that may be repeated.

    :ivar hot: these answers.
    """

    def __init__(
        self, cache: Cache, metrics: Metrics, hot: HotNars, *, takes_uploads: bool = False
    ) -> None:
        super().__init__(cache, metrics, takes_uploads=takes_uploads)
        self._repeated_nars = cache.nars_repeated
        self._sent = cache.nar_sent
        self.hot = hot
        hot.repeated = self._repeated
        cache.watch_nars(hot.drop)

    async def _attempt(
        self,
        request: NcpsRequest,
        nar: ServedNar,
        sending: Callable[[], Awaitable[None]],
        *,
        is_last: bool = True,
    ) -> bool:
        is_done = await super()._attempt(request, nar, sending, is_last=is_last)
        self._note_times(request)
        is_private = self.hot.are_private
        if is_done and request.is_private == is_private and _is_usual(request, nar):
            self._keep(request, nar)
        return is_done

    def _keep(self, request: NcpsRequest, nar: ServedNar) -> None:
        """Hold an answer for other clients, if the NAR has not changed while it was sent."""
        reopen, size = nar.reopener(), nar.size
        if reopen is None or size is None:
            return
        self.hot.put(
            HotNar(
                key=nar.key,
                path=f"/{nar.key.url}",
                head=rest_of_head(request.responseHeaders),
                size=size,
                reopen=reopen,
                cache=nar.outcome.value,
                upstream=nar.upstream,
                go_on=partial(self._go_on, nar),
            )
        )

    def _go_on(self, nar: ServedNar, request: NcpsRequest, sent: Sent) -> None:
        """Send the rest of an answer, after the first `sent.count` bytes.

        The rest is opened as for a client that resumes there: the bytes before it were read from
        the file of this NAR, which had not changed.
        """
        request.began, request.principal = sent.began, sent.reader
        request.route, request.digest = ROUTE, nar.key.file_name
        request.cache, request.upstream = nar.outcome.value, nar.upstream
        request.startedWriting = 1
        if sent.count < len(sent.head):
            request.channel.write(sent.head[sent.count :])
        request.sentLength = max(0, sent.count - len(sent.head))
        self._repeated_nars([nar.key])
        respond(request, self._send_rest(request, nar, request.sentLength))

    async def _send_rest(self, request: NcpsRequest, nar: ServedNar, start: int) -> None:
        # `super`, since the request does not have the head of this answer: it must not be held.
        await super()._attempt(request, nar, partial(_send_from, request, nar, start))
        self._note_times(request)

    def _note_times(self, request: NcpsRequest) -> None:
        """Note how long the client of a large NAR has kept the connection waiting.

        A proxy reads as fast as the network behind it, or faster than its clients.
        """
        if request.sentLength < NOTED or request.channel is None or request.channel.is_proxied:
            return
        if times := sending_times(request.channel.transport):
            busy_s, full_s = request.channel.noted_times
            request.channel.noted_times = times
            self._sent(times[0] - busy_s, times[1] - full_s)

    def _repeated(self, accesses: Sequence[Access]) -> None:
        """Count answers that were sent without this page."""
        self._repeated_nars([NarKey.parse(name) for name in {one.digest for one in accesses}])
        for upstream, count in Counter(access.upstream for access in accesses).items():
            self._served("hit", "success", upstream).inc(count)


async def _send_from(request: NcpsRequest, nar: ServedNar, start: int) -> None:
    size = nar.size
    assert size is not None
    body = await nar.body(start)
    try:
        if nar.size != size:
            raise Corrupt(f"{nar.key.file_name} does not have the {size} bytes that were announced")
        await pour_body(body, request, size - start)
    finally:
        body.close()


def _is_usual(request: NcpsRequest, nar: ServedNar) -> bool:
    """Whether every client that asks for the same gets the same answer.

    A client that asked for a part and got the whole may have got `Accept-Ranges: none`.
    """
    return (
        nar.outcome is Outcome.HIT
        and request.method == b"GET"
        and request.getHeader(b"range") is None
        and request.code == 200
        and request.uri == f"/{nar.key.url}".encode("ascii")
    )
