"""HttpDocuments: fetches small documents over HTTP, with a deadline and a bound."""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IReactorTime

from ncps.aio.waiting import within
from ncps.errors import Corrupt, Unavailable
from ncps.ports.documents import Documents
from ncps.upstream.agent import Answer, Client
from ncps.upstream.content import decoded
from ncps.upstream.destination import Timeouts

TIMEOUTS: Final = Timeouts(connect_s=3.0, first_byte_s=5.0, nar_s=5.0, idle_s=5.0)
DEADLINE_S: Final = 10.0
"""Seconds for one document, from the first try to connect to the last byte."""

MAX_SIZE: Final = 256 * 1024
"""Bytes of a document, at most; a hundred large RSA keys with certificates have less."""


class HttpDocuments(Documents):
    """Fetches documents; see `ncps.ports.documents`.

    :param client: sends the requests; decides on addresses and proxies.
    """

    def __init__(
        self,
        client: Client,
        clock: IReactorTime,
        *,
        max_size: int = MAX_SIZE,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._client = client
        self._clock = clock
        self._max_size = max_size
        self._deadline_s = deadline_s

    async def fetch(self, url: str) -> bytes:
        """See `Documents`."""
        late = f"{url} was not there within {self._deadline_s:g} s"
        return await within(self._clock, self._deadline_s, self._fetch(url), late)

    async def _fetch(self, url: str) -> bytes:
        answer = await self._client.request(
            "GET", url, headers={"accept": "application/json"}, follows=False
        )
        try:
            _check(answer)
            return await self._read(answer)
        finally:
            answer.body.close()

    async def _read(self, answer: Answer) -> bytes:
        data = b""
        async for piece in decoded(answer, lambda _: None):
            data += piece
            if len(data) > self._max_size:
                raise Corrupt(f"{answer.url} has more than {self._max_size} bytes")
        return data


def _check(answer: Answer) -> None:
    """Raise the error for the status of an answer, unless it is 200."""
    if 300 <= answer.status < 400:
        raise Corrupt(f"{answer.url} leads elsewhere, which is not followed", kind="status")
    if answer.status != 200:
        raise Unavailable(
            f"{answer.url}: status {answer.status}",
            kind="status",
            retry_after=answer.retry_after_s,
        )
