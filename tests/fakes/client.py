"""A client that reads a body at its own pace."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ncps.ports import Body


class Client:
    """Reads a body to its end; `hold` makes it stop after each chunk until `go`."""

    def __init__(self, body: Body, *, hold: bool = False) -> None:
        self.body = body
        self.chunks: list[bytes] = []
        self.hold = hold
        self._held: Deferred[None] | None = None
        self.done = Deferred.fromCoroutine(self._read())

    @property
    def data(self) -> bytes:
        return b"".join(self.chunks)

    async def _read(self) -> None:
        try:
            async for chunk in self.body:
                self.chunks.append(chunk)
                if self.hold:
                    self._held = Deferred()
                    await self._held
        finally:
            self.body.close()

    def go(self) -> None:
        """Take the next chunk."""
        held, self._held = self._held, None
        if held is not None:
            held.callback(None)

    def leave(self) -> None:
        """Disconnect."""
        self.done.addErrback(lambda _: None)
        self.done.cancel()
