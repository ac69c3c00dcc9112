"""Readiness: what the parts of the cache that it cannot do without have last been seen to be.

Whoever asks has an answer within a second, since a probe with a deadline of its own takes silence
for death. A part that does not answer in time counts as what it was, for a while, and is looked at
by one look at a time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from ncps.aio.tasks import Tasks
from ncps.aio.waiting import SingleFlight
from ncps.errors import NcpsError

WAIT_S: Final = 0.5
"""How long a look is waited for."""

STALE_S: Final = 10.0
"""How long a part that gives no answer counts as what it was."""

OK: Final = "ok"


@frozen
class PartState:
    """What a part was, and how many seconds ago."""

    state: str
    age_s: float


class Looks:
    """See the module.

    :param looks: looks at each part, by name; an error of ours says what is wrong with it.
    """

    def __init__(
        self,
        clock: IReactorTime,
        tasks: Tasks,
        looks: Mapping[str, Callable[[], Awaitable[object]]],
    ) -> None:
        self._clock = clock
        self._looks = looks
        self._states: dict[str, str] = {}
        self._since = {part: clock.seconds() for part in looks}
        self._began = dict(self._since)
        self._flights: SingleFlight[str, None] = SingleFlight(tasks, "look at")

    async def all(self) -> dict[str, PartState]:
        """Look at every part, and say what is known of it."""
        looking = {part: Deferred.fromCoroutine(self._look(part)) for part in self._looks}
        return {part: await seen for part, seen in looking.items()}

    async def _look(self, part: str) -> PartState:
        look = Deferred.fromCoroutine(self._flights.join(part, lambda: self._run(part)))
        try:
            await look.addTimeout(WAIT_S, self._clock)
        except DeferredTimeout:
            now = self._clock.seconds()
            age, silence = now - self._since[part], now - self._began[part]
            if part not in self._states or silence > STALE_S:
                return PartState(f"no answer for {silence:.1f} s", age)
            return PartState(self._states[part], age)
        except NcpsError as error:  # the daemon is stopping
            return PartState(str(error), 0.0)
        return PartState(self._states[part], 0.0)

    async def _run(self, part: str) -> None:
        self._began[part] = self._clock.seconds()
        try:
            await self._looks[part]()
        except NcpsError as error:
            self._states[part] = str(error)
        else:
            self._states[part] = OK
        self._since[part] = self._clock.seconds()
