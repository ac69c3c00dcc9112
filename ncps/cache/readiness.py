"""Readiness: the states of the parts that the cache needs, as they were seen last.

A question gets its answer within a second, because a probe with a deadline of its own takes a late
answer for a dead server. A part that does not answer in time keeps its last state for `STALE_S`
seconds. Each part is checked by one look at a time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from ncps.aio.single_flight import SingleFlight
from ncps.aio.tasks import Tasks
from ncps.aio.waiting import within
from ncps.errors import NcpsError

WAIT_S: Final = 0.5
"""Seconds that a question waits for a look."""

STALE_S: Final = 10.0
"""Seconds for which a part that gives no answer keeps its last state."""

OK: Final = "ok"


@frozen
class PartState:
    """The state of a part, and its age in seconds."""

    state: str
    age_s: float


class Looks:
    """Checks the parts, and remembers their states.

    :param looks: functions that check a part, by its name; they raise NcpsError for a fault.
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
        """Check each part, and return the states."""
        looking = {part: Deferred.fromCoroutine(self._look(part)) for part in self._looks}
        return {part: await seen for part, seen in looking.items()}

    async def _look(self, part: str) -> PartState:
        look = self._flights.join(part, lambda: self._run(part))
        try:
            await within(self._clock, WAIT_S, look)
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
