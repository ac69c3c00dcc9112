"""The client with which a worker asks its siblings for their metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import TimeoutError as DeferredTimeout

from ncps.aio.waiting import within
from ncps.errors import NcpsError, Unavailable
from ncps.upstream.agent import Client
from ncps.upstream.destination import Destination, Timeouts
from ncps.upstream.peers import UnixEndpoints

MAX_ANSWER: Final = 16 * 1024 * 1024


class SiblingClient:
    """The client of one sibling at its UNIX socket; its owner closes it.

    :param deadline_s: seconds for a whole answer.
    """

    def __init__(self, reactor: Any, path: Path, deadline_s: float) -> None:
        self._reactor = reactor
        self._path = path
        self._deadline_s = deadline_s
        self._client = Client(
            reactor,
            Destination(
                base_url="http://worker",
                timeouts=Timeouts(
                    connect_s=deadline_s,
                    first_byte_s=deadline_s,
                    nar_s=deadline_s,
                    idle_s=deadline_s,
                ),
            ),
            endpoints=UnixEndpoints(reactor, str(path), deadline_s),
        )

    async def ask(self, target: str) -> bytes:
        """Return the body of a 200. Raises Unavailable for other answers and after `deadline_s`."""
        try:
            return await within(self._reactor, self._deadline_s, self._ask(target))
        except DeferredTimeout as error:
            raise Unavailable(f"{self._path.name} does not answer", timed_out=True) from error
        except NcpsError as error:
            raise Unavailable(f"{self._path.name}: {error}") from error

    async def _ask(self, target: str) -> bytes:
        answer = await self._client.request("GET", f"http://worker{target}", follows=False)
        body = answer.body
        try:
            if answer.status != 200:
                raise Unavailable(f"status {answer.status}")
            found = b""
            async for chunk in body:
                found += chunk
                if len(found) > MAX_ANSWER:
                    raise Unavailable("too long an answer")
            return found
        finally:
            body.close()

    async def close(self) -> None:
        """Close the idle connection."""
        await self._client.close()
