"""Requests of the clients in a storm: the daemon, the repetitions, and forbidden answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

from attrs import define

from tests.chaos.endpoints import Endpoint, Endpoints
from tests.chaos.http import Answer, Connection, Cut, Garbled, Hung, Refused
from tests.chaos.score import Score
from tests.chaos.things import Thing
from tests.chaos.weather import SOURS
from tests.chaos.world import ANYWHERE, World

RETRIES = 5
LONGEST_WAIT_S = 8.0


class Failed(Exception):
    """A client has given up; the text has the result of each attempt."""


@define(eq=False)
class Asker:
    """One client's connection, which repeats requests as Nix does.

    :ivar homes: sets of origins: while one of each set is healthy, a request must succeed.
    :ivar only: the replica that the client asks; None: any.
    """

    world: World
    score: Score
    endpoints: Endpoints
    homes: tuple[frozenset[int], ...] = ()
    only: int | None = None
    _connection: Connection | None = None
    _endpoint: Endpoint | None = None

    async def attempt(self, what: str, thing: Thing, act: Awaitable[None]) -> bool:
        """Await a client's action; count a broken promise if it fails without a reason."""
        began = time.monotonic()
        self.homes = (thing.homes,)
        try:
            await act
        except Failed as failure:
            now = time.monotonic()
            moments = [began + (now - began) * step / 20 for step in range(21)]
            if all(self.world.is_served(homes, at) for at in moments for homes in self.homes):
                self.score.blame(
                    "failed though healthy", f"{what} {thing.path.base_name}: {failure}"
                )
            elif self.world.is_troubled(began, now):
                self.score.add("failed while a server was away")
            else:
                self.score.add("failed while no upstream was well")
            return False
        except Hung as error:
            self.score.blame("hung", f"{what} {thing.path.base_name}: {error}")
            return False
        except Cut:
            self.score.add("cut before the end")
            return False
        else:
            return True
        finally:
            self.leave_if_unfinished()

    def deny(self, thing: Thing, what: str, homes: Iterable[int] | None = None) -> None:
        """Check a 404: it is wrong if an origin that is not sour has the object."""
        if frozenset(thing.homes if homes is None else homes) <= frozenset(range(SOURS)):
            self.score.add("absences that upstreams made up")
            return
        self.score.blame("false absences", f"{what} of {thing.path.base_name} ({thing.path.url})")

    def deny_narinfo(self, thing: Thing, answer: Answer, since: float) -> None:
        """Check a 404 for a narinfo, which is right if no upstream could be asked.

        Then X-Cache says so, and no origin with the object was healthy.
        """
        mark, now = answer.headers.get("x-cache"), time.monotonic()
        homes = thing.homes if mark == "unsure" else ANYWHERE
        is_known = mark == "unsure" or (mark == "away" and self.world.may_be_absent)
        moments = [since + (now - since) * step / 20 for step in range(21)]
        if is_known and not all(self.world.is_served(homes, at) for at in moments):
            self.score.add(f"absences while no upstream was well ({mark})")
        else:
            self.deny(thing, f"narinfo ({mark})")

    async def patiently(self, once: Callable[[], Awaitable[Answer]]) -> Answer:
        """Repeat a request up to five times until the answer is no server error.

        Raises Failed if all attempts end with a server error or a cut.
        """
        saw = []
        for attempt in range(RETRIES + 1):
            if attempt:
                self.score.add("attempts repeated")
            wait = 0.25 * 2**attempt
            try:
                answer = await once()
                saw.append(str(answer.status))
                if answer.status < 500:
                    return answer
                if answer.has_body and not answer.is_complete:
                    await answer.whole()
                wait = self.wait_of(answer, wait)
            except Cut:
                saw.append("cut")
            self.leave_if_unfinished()
            await asyncio.sleep(wait)
        raise Failed(" ".join(saw))

    def wait_of(self, answer: Answer, usual: float) -> float:
        """Return the seconds until the next attempt."""
        after = answer.headers.get("retry-after", "")
        wait = max(usual, float(after)) if after.isdigit() else usual
        return min(wait, LONGEST_WAIT_S)

    async def ask(
        self, target: str, *, method: str = "GET", headers: dict[str, str] | None = None
    ) -> Answer:
        """Send a request; wait while the daemon is down.

        Raises Cut if the connection breaks before the head of the answer has come, Failed if
        nothing comes or the answer is not HTTP.
        """
        if (
            self.endpoints.are_many
            and self._connection is not None
            and self._connection.is_reusable
        ):
            self.close()
        while True:
            connection = self._connection or self.connect()
            try:
                answer = await connection.request(target, method=method, headers=headers)
            except Refused:
                self.close()
                await asyncio.sleep(0.05)
                await self.endpoints.next(self.only).up.wait()
                continue
            except Hung as error:
                self.score.blame("hung", f"{method} {target} {headers or ''}: {error}")
                self.close()
                raise Failed("hung") from error
            except Garbled as error:
                self.score.blame("internal errors", f"{method} {target}: {error}")
                self.close()
                raise Failed("garbled") from error
            self._note(answer, f"{method} {target} {headers or ''}")
            return answer

    def _note(self, answer: Answer, what: str) -> None:
        self.score.add("answers")
        self.score.add(f"answers {answer.status}")
        if answer.status == 500:
            self.score.blame("internal errors", f"500 for {what}")
        elif answer.status == 503 and "retry-after" not in answer.headers:
            self.score.blame("internal errors", f"503 without Retry-After for {what}")

    def connect(self, *, is_slow: bool = False) -> Connection:
        """Connect to the next daemon."""
        self.close()
        self._endpoint = self.endpoints.next(self.only)
        self._connection = Connection(self._endpoint.port, is_slow=is_slow)
        return self._connection

    @property
    def replica(self) -> int:
        """The number of the daemon that has answered last."""
        return 0 if self._endpoint is None else self._endpoint.number

    def leave_if_unfinished(self) -> None:
        """Close a connection whose answer was not read to its end."""
        if self._connection is not None and not self._connection.is_fresh:
            self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
