"""Documents in memory."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ncps.errors import Corrupt, NcpsError, Unavailable
from ncps.ports import Documents

MAX_SIZE = 256 * 1024


class FakeDocuments(Documents):
    """Documents by URL.

    :ivar pages: the documents by URL: bytes, or the error of a fetch.
    :ivar moved: the URLs that lead elsewhere.
    :ivar fetched: the URLs that were asked for.
    :ivar held: fetches that wait for `release`, while `holds` is true.
    """

    def __init__(self) -> None:
        self.pages: dict[str, bytes | NcpsError] = {}
        self.moved: set[str] = set()
        self.fetched: list[str] = []
        self.holds = False
        self.held: list[Deferred[None]] = []

    def release(self) -> None:
        """Let the fetches that wait go on."""
        held, self.held = self.held, []
        for each in held:
            each.callback(None)

    async def fetch(self, url: str) -> bytes:
        """See `Documents`."""
        self.fetched.append(url)
        if self.holds:
            waiting: Deferred[None] = Deferred()
            self.held.append(waiting)
            await waiting
        if url in self.moved:
            raise Corrupt(f"{url} leads elsewhere, which is not followed", kind="status")
        found = self.pages.get(url, Unavailable(f"{url}: status 404", kind="status"))
        if isinstance(found, NcpsError):
            raise found
        if len(found) > MAX_SIZE:
            raise Corrupt(f"{url} has more than {MAX_SIZE} bytes")
        return found
