"""The clients of a chaos run: they behave like Nix, and know what they should have got.

An install is a narinfo and its NAR, each asked for up to five times more when cut or told to come
again; a NAR that was cut goes on by Range from the byte there is, without If-Range, as Nix does.
Others read slowly, leave early, ask for heads or for pieces. Every answer that looks complete is
compared with the truth.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from random import Random

from attrs import define, field

from tests.chaos.http import Answer, Connection, Cut, Garbled, Hung, Refused
from tests.chaos.score import Score
from tests.chaos.weather import SOURS
from tests.chaos.world import Thing, World

RETRIES = 5
LONGEST_WAIT_S = 8.0
STORED_S = 5.0
"""How long after a NAR went to somebody its narinfo may still be an upstream's."""


class Failed(Exception):
    """A client has given up: what it saw, attempt by attempt."""


@define
class Gate:
    """Whether the daemon is up; clients that find nobody wait here as `systemd` users would."""

    up: asyncio.Event = field(factory=asyncio.Event)


@define(eq=False)
class Client:
    """One client; `run` does one of the things that clients do.

    :param number: of the operation, for the details.
    """

    world: World
    score: Score
    gate: Gate
    port: int
    _connection: Connection | None = None
    _homes: frozenset[int] = frozenset()

    # What clients do

    async def run(self, number: int, chance: Random) -> None:
        """Do one thing, and note whether it should have worked."""
        kinds: list[tuple[float, str, Callable[[Thing, Random], Awaitable[None]]]] = [
            (0.66, "installs", self.install),
            (0.74, "slow readers", self.read_slowly),
            (0.82, "early leavers", self.leave_early),
            (0.88, "heads", self.head),
            (0.97, "pieces", self.piece),
        ]
        at = chance.random()
        for limit, name, act in kinds:
            if at < limit:
                thing = self._choose(chance)
                self.score.add(name)
                await self.attempt(f"#{number} {name}", thing, act(thing, chance))
                return
        self.score.add("absent paths")
        await self._ask_absent(chance.choice(self.world.absent))

    def _choose(self, chance: Random) -> Thing:
        """Some things are asked for much more than others."""
        things = self.world.things
        if chance.random() < 0.3:
            return things[int(len(things) * chance.random() ** 3)]
        return chance.choice(things)

    async def attempt(self, what: str, thing: Thing, act: Awaitable[None]) -> bool:
        """Await what a client does; blame the daemon if it fails without an excuse."""
        began = time.monotonic()
        self._homes = thing.homes
        try:
            await act
        except Failed as failure:
            now = time.monotonic()
            moments = [began + (now - began) * step / 20 for step in range(21)]
            if all(self.world.is_served(self._homes, at) for at in moments):
                self.score.blame(
                    "failed though healthy", f"{what} {thing.path.base_name}: {failure}"
                )
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
            self._leave_if_unfinished()

    async def install(self, thing: Thing, _chance: Random) -> None:
        """Narinfo and NAR, whole."""
        url = await self.narinfo(thing)
        await self.nar(thing, url)

    async def read_slowly(self, thing: Thing, chance: Random) -> None:
        """An install over a thin line."""
        url = await self.narinfo(thing)
        self.close()
        self._connection = Connection(self.port, is_slow=True)
        try:
            await self.nar(thing, url, pause=lambda: chance.uniform(0.0, 0.1), budget=3.0)
        finally:
            self.close()

    async def leave_early(self, thing: Thing, chance: Random) -> None:
        """An install that somebody interrupts."""
        url = await self.narinfo(thing)
        enough = chance.randint(0, len(thing.file))
        got = 0
        try:
            answer = await self._ask("/" + url)
            if answer.status == 200:
                async for piece in answer.pieces():
                    got += len(piece)
                    if got >= enough:
                        break
        except Cut:
            pass
        self.close()

    async def head(self, thing: Thing, _chance: Random) -> None:
        """HEAD of a NAR."""
        url = await self.narinfo(thing)
        sizes = {str(len(file)) for file in self._behind(thing, url)}
        answer = await self._patiently(lambda: self._ask("/" + url, method="HEAD"))
        length = answer.headers.get("content-length")
        if answer.status == 404:
            self._deny(thing, "HEAD")
        elif answer.status == 200 and length not in {None, *sizes}:
            self.score.blame("lies", f"HEAD says {length} for {thing.path.nar_target}")

    async def piece(self, thing: Thing, chance: Random) -> None:
        """A piece of a NAR, with and without If-Range."""
        url = await self.narinfo(thing)
        files = self._behind(thing, url)
        self._homes = self._homes_behind(thing, url)
        size = min(map(len, files))
        start = chance.randrange(size)
        stop = chance.randint(start + 1, size)
        text, cut = chance.choice(
            [
                (f"bytes={start}-{stop - 1}", slice(start, stop)),
                (f"bytes={start}-", slice(start, None)),
                (f"bytes={start}-{max(map(len, files)) + 100}", slice(start, None)),
                (f"bytes=-{stop}", slice(-stop, None)),
            ]
        )
        headers = {"Range": text}
        if chance.random() < 0.2:
            headers["If-Range"] = '"another"'
            cut = slice(None)
        wanted = {file[cut] for file in files}

        async def once() -> Answer:
            answer = await self._ask("/" + url, headers=headers)
            if answer.status in {200, 206}:
                got = await answer.whole()
                if "If-Range" not in headers and self._is_misled(url, answer):
                    if got not in files:
                        self.score.blame("lies", f"{text} of {url}: not the whole either")
                elif got not in wanted or (answer.status == 206) == ("If-Range" in headers):
                    self.score.blame(
                        "lies",
                        f"{text} of {url}: status {answer.status}, {len(got)} bytes instead of"
                        f" {' or '.join(str(len(piece)) for piece in wanted)}",
                    )
            return answer

        answer = await self._patiently(once)
        if answer.status == 404:
            self._deny(thing, "piece")

    async def _ask_absent(self, digest: str) -> None:
        try:
            answer = await self._ask(f"/{digest}.narinfo")
            await answer.whole()
            if answer.status == 200:
                self.score.blame("false presences", digest)
        except (Cut, Hung):
            pass
        finally:
            self._leave_if_unfinished()

    async def touch(self, target: str) -> None:
        """Ask for the head of a NAR, whatever comes of it."""
        try:
            await self._ask(target, method="HEAD")
        except (Cut, Failed):
            pass
        finally:
            self._leave_if_unfinished()

    # The two questions

    async def narinfo(self, thing: Thing) -> str:
        """Ask for a narinfo until there is one. Failed."""
        target = f"/{thing.path.digest}.narinfo"
        texts: list[bytes] = []
        asked = time.monotonic()

        async def once() -> Answer:
            answer = await self._ask(target)
            texts.append(await answer.whole())
            return answer

        answer = await self._patiently(once)
        if answer.status == 404:
            self._deny(thing, "narinfo")
            raise Failed("narinfo: 404")
        pairs = (line.partition(": ") for line in texts[-1].decode().splitlines())
        fields = {key: value for key, _, value in pairs}
        for key, value in thing.facts.items():
            if fields.get(key) != value:
                self.score.blame("wrong narinfos", f"{key} {fields.get(key)!r} in {target}")
        url = fields.get("URL", "")
        if not url:
            self.score.blame("wrong narinfos", f"no URL in {target}")
            raise Failed("narinfo without URL")
        if not thing.is_told_truly(fields.get("FileHash"), fields.get("FileSize")):
            if self.world.whole.get(url, asked) < asked - STORED_S:
                facts = f"{fields.get('FileHash')}, {fields.get('FileSize')}"
                self.score.blame("wrong narinfos", f"{facts} in {target}, though it is stored")
            else:
                self.score.add("false facts of files passed on before they were seen")
        return url

    async def nar(
        self,
        thing: Thing,
        url: str,
        *,
        pause: Callable[[], float] | None = None,
        budget: float = 0.0,
    ) -> None:
        """Fetch a NAR to its end, going on where it was cut. Failed."""
        got = bytearray()
        saw: list[str] = []
        files = thing.files
        for attempt in range(RETRIES + 1):
            if attempt:
                self.score.add("attempts repeated")
            headers = {"Range": f"bytes={len(got)}-"} if got else {}
            start, wait = len(got), 0.25 * 2**attempt
            life = self.world.lives
            try:
                answer = await self._ask("/" + url, headers=headers)
                saw.append(str(answer.status))
                if answer.status not in {200, 206}:
                    await answer.whole()
                    if answer.status == 404:
                        self._deny(thing, "NAR")
                        raise Failed(f"NAR: {' '.join(saw)}")
                    wait = self._wait_of(answer, wait)
                elif (answer.status == 206) != bool(got) and not self._is_misled(url, answer):
                    self.score.blame("resume refused", f"{answer.status} for {headers}")
                    raise Failed("resume refused")
                else:
                    start = self._kept(answer, got)
                    async for piece in answer.pieces():
                        got += piece
                        if pause is not None and budget > 0:
                            nap = pause()
                            budget -= nap
                            await asyncio.sleep(nap)
                    self._judge(files, bytes(got), start, url)
                    if bytes(got) in files:
                        if life == self.world.lives:
                            self._compare(url, bytes(got))
                            self.world.whole.setdefault(url, time.monotonic())
                        self.score.add("NARs got whole")
                        self.score.add("bytes got", len(got))
                        return
                    raise Failed("a lie")
            except Cut as error:
                saw.append(f"cut at {len(got)}")
                del error
            self._homes = thing.homes_of(bytes(got)) or thing.homes
            if not any(file.startswith(got) for file in files):
                # Wrong bytes of an upstream were passed on and then broken off, visibly. Nix would
                # go on from there, find the hash wrong and ask anew; so do we.
                self.score.add("broken off after wrong bytes")
                got.clear()
            self._leave_if_unfinished()
            await asyncio.sleep(wait)
        raise Failed(f"NAR: {' '.join(saw)}")

    @staticmethod
    def _kept(answer: Answer, got: bytearray) -> int:
        """Drop what an answer begins with once more; return how much is kept."""
        if answer.status == 200:
            got.clear()
        return len(got)

    def _is_misled(self, url: str, answer: Answer) -> bool:
        """Whether the whole came instead of the rest, as for those who have wrong bytes.

        Somebody at our address must have had some: `audit.examine_refusals` looks for it.
        """
        if answer.status != 200 or answer.headers.get("accept-ranges") != "none":
            return False
        self.score.add("whole instead of the rest")
        self.world.refused.append((url, time.time()))
        return True

    def _behind(self, thing: Thing, url: str) -> list[bytes]:
        """The files that may lie behind a URL: one, once somebody has seen it."""
        seen = self.world.behind.get(url)
        return thing.files if seen is None else [seen[0]]

    def _homes_behind(self, thing: Thing, url: str) -> frozenset[int]:
        """Who has the file that a URL stands for: whoever wants a part may have the rest of it."""
        seen = self.world.behind.get(url)
        if seen is not None:
            return thing.homes_of(seen[0])
        if thing.other is not None and url == thing.other.url:
            return thing.strangers
        nar_name = thing.facts["NarHash"].removeprefix("sha256:")
        if url == thing.path.url or nar_name in url:
            return thing.homes - thing.strangers
        return frozenset()  # a name of a narinfo that was false

    def _compare(self, url: str, got: bytes) -> None:
        """Bytes behind a URL never change: compare them with the first ones seen there."""
        if got != self.world.behind.setdefault(url, (got, time.monotonic()))[0]:
            self.score.blame("lies", f"{url} stands for other bytes than before")

    def _judge(self, files: list[bytes], got: bytes, start: int, url: str) -> None:
        """Judge what came after `start` in an answer that looked complete."""
        if got[start:] not in {file[start:] for file in files}:
            sizes = " or ".join(str(len(file)) for file in files)
            self.score.blame("lies", f"{url} from {start}: up to {len(got)} bytes of {sizes}")

    def _deny(self, thing: Thing, what: str) -> None:
        if thing.homes <= frozenset(range(SOURS)):
            self.score.add("absences that upstreams made up")
            return
        self.score.blame("false absences", f"{what} of {thing.path.base_name} ({thing.path.url})")

    # Asking

    async def _patiently(self, once: Callable[[], Awaitable[Answer]]) -> Answer:
        """Ask up to five times more until the answer is no server error. Failed."""
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
                wait = self._wait_of(answer, wait)
            except Cut:
                saw.append("cut")
            self._leave_if_unfinished()
            await asyncio.sleep(wait)
        raise Failed(" ".join(saw))

    def _wait_of(self, answer: Answer, usual: float) -> float:
        after = answer.headers.get("retry-after", "")
        wait = max(usual, float(after)) if after.isdigit() else usual
        return min(wait, LONGEST_WAIT_S)

    async def _ask(
        self, target: str, *, method: str = "GET", headers: dict[str, str] | None = None
    ) -> Answer:
        """Ask, waiting as long as the daemon is down. Cut, Failed."""
        if self._connection is None:
            self._connection = Connection(self.port)
        while True:
            try:
                answer = await self._connection.request(target, method=method, headers=headers)
            except Refused:
                await asyncio.sleep(0.05)
                await self.gate.up.wait()
                continue
            except Hung as error:
                self.score.blame("hung", f"{method} {target} {headers or ''}: {error}")
                self.close()
                raise Failed("hung") from error
            except Garbled as error:
                self.score.blame("internal errors", f"{method} {target}: {error}")
                self.close()
                raise Failed("garbled") from error
            self.score.add("answers")
            self.score.add(f"answers {answer.status}")
            if answer.status == 500:
                self.score.blame("internal errors", f"500 for {method} {target} {headers or ''}")
            return answer

    def _leave_if_unfinished(self) -> None:
        """Drop a connection on which more would come."""
        if self._connection is not None and not self._connection.is_fresh:
            self.close()

    def close(self) -> None:
        """Leave."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
