"""The clients of a storm: they behave like Nix, and check each answer.

An install is a narinfo and its NAR. A client repeats a request up to five times after a cut or a
server error, and resumes a cut NAR by Range, without If-Range, as Nix does. Some clients know the
URL of a NAR and ask for it without its narinfo. Others read slowly, leave early, send HEAD or ask
for pieces. Every answer that looks complete is compared with the right bytes: those that the hash
in its URL names.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from random import Random

from attrs import define

from tests.chaos.asking import RETRIES, Asker, Failed
from tests.chaos.endpoints import TRUSTING
from tests.chaos.http import Answer, Cut
from tests.chaos.things import Thing

SLOW_S = 3.0
"""Seconds for which a slow reader pauses in total."""

STORED_S = 5.0
"""Seconds after a client got a NAR in which its narinfo may have an upstream's FileHash and
FileSize."""


@define(eq=False)
class Client(Asker):
    """One client; `run` does one of its actions.

    :param number: number of the action, for messages.
    """

    # Actions of clients

    async def run(self, number: int, chance: Random) -> None:
        """Do one action, and note whether it should have succeeded."""
        kinds: list[tuple[float, str, Callable[[Thing, Random], Awaitable[None]]]] = [
            (0.58, "installs", self.install),
            (0.66, "remembered URLs", self.remember),
            (0.74, "slow readers", self.read_slowly),
            (0.82, "early leavers", self.leave_early),
            (0.88, "heads", self.head),
            (0.97, "pieces", self.piece),
        ]
        at = chance.random()
        for limit, name, act in kinds:
            if at < limit:
                thing = self._choose(chance)
                self.choose(thing)
                self.score.add(name)
                await self.attempt(f"#{number} {name}", thing, act(thing, chance))
                return
        if self.endpoints.are_many and chance.random() < 0.5:
            await self._ask_strangers(chance)
            return
        self.only = None
        self.score.add("absent paths")
        await self._ask_absent(chance.choice(self.world.absent), "false presences")

    async def _ask_strangers(self, chance: Random) -> None:
        """Ask a replica for a path that only a key of another replica has signed."""
        self.score.add("untrusted paths")
        self.only = chance.choice(
            [endpoint.number for endpoint in self.endpoints.all if endpoint.number != TRUSTING]
        )
        thing = chance.choice([thing for thing in self.world.things if thing.is_private])
        await self._ask_absent(thing.path.digest, "wrong narinfos")

    def choose(self, thing: Thing) -> None:
        """Choose an object, and the daemons that can have it."""
        self.only = TRUSTING if thing.is_private and self.endpoints.are_many else None

    def _choose(self, chance: Random) -> Thing:
        """Choose an object, some much more often than others."""
        things = self.world.things
        if chance.random() < 0.3:
            return things[int(len(things) * chance.random() ** 3)]
        return chance.choice(things)

    async def install(self, thing: Thing, _chance: Random) -> None:
        """Fetch a narinfo and its complete NAR."""
        url = await self.narinfo(thing)
        await self.nar(thing, url)

    async def remember(self, thing: Thing, chance: Random) -> None:
        """Fetch a NAR without its narinfo, by a URL that the client knows."""
        url = self.world.remembered(thing, chance)
        if not url:
            return
        files = self._behind(thing, url)
        self.world.ask_for(url, files)
        self.homes = self._homes_behind(thing, url)
        await self.nar(thing, url)

    async def read_slowly(self, thing: Thing, chance: Random) -> None:
        """Install a path over a slow line."""
        url = await self.narinfo(thing)
        self.connect(is_slow=True)
        try:
            await self.nar(thing, url, pause=lambda: chance.uniform(0.0, 0.1))
        finally:
            self.close()

    async def leave_early(self, thing: Thing, chance: Random) -> None:
        """Begin to install a path, and leave."""
        url = await self.narinfo(thing)
        enough = chance.randint(0, len(thing.file))
        got = 0
        try:
            answer = await self.ask("/" + url)
            if answer.status == 200:
                async for piece in answer.pieces():
                    got += len(piece)
                    if got >= enough:
                        break
        except Cut:
            pass
        self.close()

    async def head(self, thing: Thing, _chance: Random) -> None:
        """Send HEAD for a NAR."""
        url = await self.narinfo(thing)
        sizes = {str(len(file)) for file in self._behind(thing, url)}
        answer = await self.patiently(lambda: self.ask("/" + url, method="HEAD"))
        length = answer.headers.get("content-length")
        if answer.status == 404:
            self.deny(thing, "HEAD")
        elif answer.status == 200 and length not in {None, *sizes}:
            self.score.blame("lies", f"HEAD says {length} for {thing.path.nar_target}")

    async def piece(self, thing: Thing, chance: Random) -> None:
        """Ask for a piece of a NAR, with and without If-Range."""
        url = await self.narinfo(thing)
        files = self._behind(thing, url)
        self.homes = self._homes_behind(thing, url)
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
            answer = await self.ask("/" + url, headers=headers)
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

        answer = await self.patiently(once)
        if answer.status == 404:
            self.deny(thing, "piece")

    async def _ask_absent(self, digest: str, promise: str) -> None:
        try:
            answer = await self.ask(f"/{digest}.narinfo")
            await answer.whole()
            if answer.status == 200:
                self.score.blame(promise, f"{digest} at replica {self.replica}")
        except (Cut, Failed):
            pass
        finally:
            self.leave_if_unfinished()

    async def touch(self, url: str) -> None:
        """Ask for a NAR by its URL; every answer without wrong bytes is right."""
        named = self.world.named(url)
        self.world.ask_for(url, [] if named is None else named[1])
        try:
            answer = await self.ask("/" + url)
            got = await answer.whole()
            if answer.status == 200 and (named is None or got not in named[1]):
                self.score.blame("lies", f"{url} at the end: {len(got)} bytes that are not its own")
        except (Cut, Failed):
            pass
        finally:
            self.leave_if_unfinished()

    # The two requests

    async def narinfo(self, thing: Thing) -> str:
        """Ask for a narinfo until it comes. Raises Failed if it does not come or has no URL."""
        target = f"/{thing.path.digest}.narinfo"
        texts: list[bytes] = []
        asked = time.monotonic()

        async def once() -> Answer:
            nonlocal asked
            asked = time.monotonic()
            answer = await self.ask(target)
            texts.append(await answer.whole())
            return answer

        answer = await self.patiently(once)
        if answer.status == 404:
            self.deny_narinfo(thing, answer, asked)
            raise Failed("narinfo: 404")
        pairs = [line.partition(": ")[::2] for line in texts[-1].decode().splitlines()]
        fields = dict(pairs)
        for key, value in thing.facts.items():
            if fields.get(key) != value:
                self.score.blame("wrong narinfos", f"{key} {fields.get(key)!r} in {target}")
        url = fields.get("URL", "")
        if not url:
            self.score.blame("wrong narinfos", f"no URL in {target}")
            raise Failed("narinfo without URL")
        self.world.shown.setdefault(thing.path.digest, set()).add(url)
        self.world.ask_for(url, thing.files)
        named = self.world.named(url)
        if named is None or named[0] is not thing:
            self.score.blame("wrong narinfos", f"{url} in {target} names none of its hashes")
        sigs = [value for key, value in pairs if key == "Sig"]
        trusts_private = self.endpoints.are_many and self.replica == TRUSTING
        if not self.world.is_vouched_for(thing, sigs, trusts_private=trusts_private):
            self.score.blame("wrong narinfos", f"{target}: no key of replica {self.replica}")
        self._check_file(thing, fields, asked)
        return url

    def _check_file(self, thing: Thing, fields: dict[str, str], asked: float) -> None:
        """Check FileHash and FileSize, once the daemon has had the bytes."""
        if not thing.is_told_truly(fields.get("FileHash"), fields.get("FileSize")):
            facts = f"{fields.get('FileHash')}, {fields.get('FileSize')}"
            self.world.untrue.add(fields["URL"])
            if self.world.whole.get(fields["URL"], asked) < asked - STORED_S:
                self.score.blame("wrong narinfos", f"{facts} of {fields['URL']}, which is stored")
            else:
                self.score.add("false facts of files passed on before they were seen")

    async def nar(
        self,
        thing: Thing,
        url: str,
        *,
        pause: Callable[[], float] | None = None,
    ) -> None:
        """Fetch a NAR to its end and resume it after cuts. Raises Failed if that is impossible."""
        got = bytearray()
        saw: list[str] = []
        files, homes = self._named(thing, url), self.homes
        first_life = self.world.lives
        for attempt in range(RETRIES + 1):
            if attempt:
                self.score.add("attempts repeated")
            headers = {"Range": f"bytes={len(got)}-"} if got else {}
            start, wait = len(got), 0.25 * 2**attempt
            life = self.world.lives
            first_life = first_life if got else life
            try:
                answer = await self.ask("/" + url, headers=headers)
                saw.append(str(answer.status))
                if answer.status not in {200, 206}:
                    await answer.whole()
                    if answer.status == 404:
                        self.deny(thing, f"NAR {url}", frozenset().union(*self.homes))
                        raise Failed(f"NAR {url}: {' '.join(saw)}")
                    wait = self.wait_of(answer, wait)
                elif (answer.status == 206) != bool(got) and not self._is_misled(url, answer):
                    self.score.blame("resume refused", f"{answer.status} for {headers}")
                    raise Failed("resume refused")
                else:
                    start = self._kept(answer, got)
                    await self._read(answer, got, pause)
                    self._judge(files, bytes(got), start, url)
                    if bytes(got) in files:
                        now = time.monotonic()
                        if life == self.world.lives and not self.world.is_troubled(now, now):
                            self._compare(url, bytes(got))
                            self.world.whole.setdefault(url, time.monotonic())
                        self.score.add("NARs got whole")
                        self.score.add("bytes got", len(got))
                        return
                    if start == 0 or first_life == self.world.lives:
                        raise Failed(f"the rest of another file from {start}: {' '.join(saw)}")
                    # The daemon was killed in between and does not know the bytes that it had sent.
                    self.score.add("ends of another file after a kill")
                    got.clear()
            except Cut as error:
                saw.append(f"cut at {len(got)}")
                del error
            self.homes = ((thing.homes_of(bytes(got)) or thing.homes),) if got else homes
            if not any(file.startswith(got) for file in files):
                # Wrong bytes of an upstream were passed on before the cut. Nix would
                # resume there, find the wrong hash and ask again; so does this client.
                self.score.add("broken off after wrong bytes")
                got.clear()
            self.leave_if_unfinished()
            await asyncio.sleep(wait)
        sizes = " or ".join(str(len(file)) for file in files)
        raise Failed(f"NAR {url} of {sizes} bytes: {' '.join(saw)}")

    async def _read(
        self, answer: Answer, got: bytearray, pause: Callable[[], float] | None
    ) -> None:
        """Append the received bytes to the known ones, with pauses of 3 s in total."""
        slept = 0.0
        async for piece in answer.pieces():
            got += piece
            if pause is not None and slept < SLOW_S:
                nap = pause()
                slept += nap
                await asyncio.sleep(nap)

    def _named(self, thing: Thing, url: str) -> list[bytes]:
        """Return the files of an object that may be behind a URL, by the hash in its name."""
        named = self.world.named(url)
        return named[1] if named is not None and named[0] is thing else thing.files

    @staticmethod
    def _kept(answer: Answer, got: bytearray) -> int:
        """Drop the kept bytes if the answer begins the file again; return how many are kept."""
        if answer.status == 200:
            got.clear()
        return len(got)

    def _is_misled(self, url: str, answer: Answer) -> bool:
        """Return whether the complete file came instead of the rest, as after wrong bytes.

        A client at this address must have received some: `audit.examine_refusals` checks it.
        """
        if answer.status != 200 or answer.headers.get("accept-ranges") != "none":
            return False
        self.score.add("ranges answered in full after wrong bytes")
        self.world.refused.append((url, time.time()))
        return True

    def _behind(self, thing: Thing, url: str) -> list[bytes]:
        """Return the files that may be behind a URL: only one, once a client has seen it."""
        seen = self.world.behind.get(url)
        return self._named(thing, url) if seen is None else [seen[0]]

    def _homes_behind(self, thing: Thing, url: str) -> tuple[frozenset[int], ...]:
        """Return the origins that have the file of a URL, for a client that wants a part of it.

        If the name may stand for two files, an origin with the one and an origin with the other
        must have been healthy.
        """
        if self.world.named(url) is None or url in self.world.untrue - self.world.behind.keys():
            return (frozenset(),)  # a false narinfo has named a file that no origin has
        return tuple(thing.homes_of(file) for file in self._behind(thing, url))

    def _compare(self, url: str, got: bytes) -> None:
        """Compare bytes with the first ones behind the same URL, because these never change."""
        if got != self.world.behind.setdefault(url, (got, time.monotonic()))[0]:
            self.score.blame("lies", f"{url} stands for other bytes than before")

    def _judge(self, files: list[bytes], got: bytes, start: int, url: str) -> None:
        """Check the bytes after `start` of an answer that looked complete."""
        if got[start:] not in {file[start:] for file in files}:
            sizes = " or ".join(str(len(file)) for file in files)
            self.score.blame("lies", f"{url} from {start}: up to {len(got)} bytes of {sizes}")
