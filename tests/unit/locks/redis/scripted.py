"""Servers of leases with scripted answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from ncps.errors import NcpsError, Unavailable
from ncps.locks.redis.address import RedisAddress
from ncps.locks.redis.locks import RedisBackend
from ncps.locks.redis.node import TAKE, redis_nodes

PLACE = RedisAddress(addresses=(("redis", 6379),), timeout_s=2.0)
TTL_S = 12.0
OTHER = "0" * 32
"""Token of a process that holds everything that is not granted."""


class ScriptedClient:
    """A client, and its own connection, that answers scripts as the test sets.

    :ivar answer: for the next scripts: a number, the token of a holder, an error, or a Deferred of
        one of these. For an attempt a number is the fence, and 0 means that `OTHER` has the lease.
    :ivar asked: scripts that were run; `words` has their last arguments.
    """

    trouble = ""

    def __init__(self) -> None:
        self.answer: Any = 7
        self.asked: list[str] = []
        self.words: list[object] = []
        self.is_up = True

    async def call(self, send: Callable[[Any], Awaitable[Any]]) -> Any:
        return await send(self)

    async def up(self, _seconds: float) -> None:
        if not self.is_up:
            raise Unavailable("not in time")

    async def script(self, script: str, _keys: list[str], words: list[object]) -> Any:
        self.asked.append(script)
        self.words = words
        return self._told(script, words, await self._answered())

    async def command(self, *_words: object) -> Any:
        return await self._answered()

    async def _answered(self) -> Any:
        answer = self.answer
        if isinstance(answer, Deferred):
            answer = await answer
        if isinstance(answer, NcpsError):
            raise answer.with_traceback(None)
        return answer

    def _told(self, script: str, words: list[object], answer: Any) -> Any:
        if script != TAKE:
            return answer
        if isinstance(answer, str):
            return [b"0", answer.encode()]
        token = str(words[0]) if answer else OTHER
        return [b"%d" % answer, token.encode()]


def backend_of(clock: Clock, servers: int) -> tuple[RedisBackend, list[ScriptedClient]]:
    """Make a backend at some servers, and the clients that answer for them."""
    nodes = redis_nodes(clock, [PLACE] * servers, prefix="p:", subject="nothing", now=clock.seconds)
    clients = [ScriptedClient() for _ in nodes]
    for node, client in zip(nodes, clients, strict=True):
        node.client = client  # type: ignore[assignment]
    backend = RedisBackend(clock, nodes, ttl_of=lambda _name: TTL_S, now=clock.seconds)
    return backend, clients
