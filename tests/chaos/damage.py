"""Damage to stored NARs that the daemon does not see, and its effect on the rules."""

from __future__ import annotations

import asyncio
import hashlib
import time
from pathlib import Path
from random import Random
from typing import Protocol, Self

from attrs import define, field

from tests.chaos.score import Score
from tests.chaos.things import Thing
from tests.chaos.world import World
from tests.system.caches import EXTENSIONS

PLANTED_AT_FIRST = 0.08
"""Share of the names that have a planted file before the first request."""


class Place(Protocol):
    """A place with NARs: a directory or a bucket. OSError if another program interferes."""

    def stored(self) -> list[str]:
        """Return the file names of the NARs there."""

    def read(self, name: str) -> bytes: ...

    def delete(self, name: str) -> None: ...

    def truncate(self, name: str, size: int) -> None: ...

    def put(self, name: str, content: bytes, chance: Random) -> None:
        """Write an object, also in place of another one."""


class Directory(Place):
    """The store of one daemon.

    :param storage: its `cache-storage-local`.
    """

    def __init__(self, storage: Path) -> None:
        self._nars = storage / "store" / "nar"
        self._workshop = storage / "planted"

    def _path(self, name: str) -> Path:
        return self._nars / name[0] / name[:2] / name

    def stored(self) -> list[str]:
        return sorted(path.name for path in self._nars.glob("*/*/*") if path.is_file())

    def read(self, name: str) -> bytes:
        return self._path(name).read_bytes()

    def delete(self, name: str) -> None:
        self._path(name).unlink()

    def truncate(self, name: str, size: int) -> None:
        path = self._path(name)
        path.chmod(0o600)
        with path.open("rb+") as file:
            file.truncate(size)
        path.chmod(0o400)

    def put(self, name: str, content: bytes, chance: Random) -> None:
        self._workshop.mkdir(exist_ok=True)
        made, path = self._workshop / name, self._path(name)
        made.write_bytes(content)
        made.chmod(0o400)
        for parent in (path.parent.parent, path.parent):
            parent.mkdir(0o700, exist_ok=True)
        made.replace(path)


def other_bytes(content: bytes, chance: Random) -> bytes:
    """Return wrong bytes of the same size: all of them differ, or a few near the end."""
    if chance.random() < 0.5 or len(content) < 100:
        return chance.randbytes(len(content))
    at = chance.randrange(len(content) - 50)
    return content[:at] + chance.randbytes(20) + content[at + 20 :]


@define(eq=False)
class Vandal:
    """Deletes, truncates and replaces stored NARs, and plants files where none is yet.

    :ivar damages: time of each damage to stored bytes, and the name of the file, by the hash of the
        right bytes.
    :ivar names: damaged files.
    :ivar planted: hashes of planted files, by name.
    """

    world: World
    score: Score
    place: Place
    chance: Random
    damages: dict[str, list[tuple[float, str]]] = field(factory=dict)
    names: set[str] = field(factory=set)
    planted: dict[str, set[str]] = field(factory=dict)

    @classmethod
    def of(cls, seed: int, world: World, score: Score, place: Place) -> Self:
        """Return the vandal of a seed."""
        return cls(world, score, place, Random(f"{seed}/damage"))

    async def prepare(self) -> None:
        """Plant some files before the first request."""
        for thing in self.world.things:
            if self.chance.random() < PLANTED_AT_FIRST:
                await self._plant(thing)

    async def act(self) -> None:
        """Do one damage."""
        what = self.chance.random()
        unseen = [t for t in self.world.things if t.path.digest not in self.world.shown]
        if what < 0.25 and unseen:
            await self._plant(self.chance.choice(unseen))
            return
        try:
            stored = await asyncio.to_thread(self.place.stored)
            if not stored:
                return
            name = self.chance.choice(stored)
            content = await asyncio.to_thread(self.place.read, name)
            self._note(name)
            if what < 0.5:
                await asyncio.to_thread(self.place.delete, name)
                self.score.add("stored files damaged")
            elif what < 0.75:
                size = self.chance.randrange(max(1, len(content)))
                self._lay(name, content[:size])
                await asyncio.to_thread(self.place.truncate, name, size)
                self.score.add("stored files damaged")
            else:
                await self._put(name, content)
                self.score.add("stored files replaced")
        except OSError:  # the file is gone, or the place is away
            return
        self._note(name)

    async def _plant(self, thing: Thing) -> None:
        """Write wrong bytes under a name that the object has or will have."""
        path = self.chance.choice(thing.paths)
        nar_name = thing.facts["NarHash"].removeprefix("sha256:")
        extension = EXTENSIONS[path.compression]
        names = [f"{nar_name}.nar{extension}"]
        names += [path.url.rpartition("/")[2]] if path in thing.conventional else []
        name = self.chance.choice(names)
        self._note(name)
        try:
            await self._put(name, path.file)
        except OSError:
            return
        self._note(name)
        self.score.add("files planted at names that had none")

    async def _put(self, name: str, content: bytes) -> None:
        other = other_bytes(content, self.chance)
        self._lay(name, other)
        await asyncio.to_thread(self.place.put, name, other, self.chance)

    def _lay(self, name: str, content: bytes) -> None:
        """Remember the planted file."""
        self.planted.setdefault(name, set()).add(hashlib.sha256(content).hexdigest())

    def _note(self, name: str) -> None:
        """Note that the file may be fetched again, and that its narinfo may be an upstream's."""
        url = f"nar/{name}"
        self.names.add(name)
        self.world.whole.pop(url, None)
        named = self.world.named(url)
        for file in [] if named is None else named[1]:
            sha256 = hashlib.sha256(file).hexdigest()
            self.damages.setdefault(sha256, []).append((time.monotonic(), name))
