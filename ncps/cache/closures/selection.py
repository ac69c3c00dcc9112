"""Selection: finds the paths of some closures that nothing else in this cache needs.

A path stays if a recorded path outside the closures refers to it, if a pin holds it, or if a path
that stays refers to it. Roots never stay.
"""

from __future__ import annotations

from collections.abc import Collection

from attrs import evolve, field, frozen

from ncps.cache.closures.permit import Permit, anything, is_permitted
from ncps.cache.closures.walk import walk
from ncps.cache.world import World
from ncps.nix.narurl import NarKey
from ncps.ports import PathFacts


@frozen(kw_only=True)
class Going:
    """The paths to remove.

    There may be 100,000. Their facts are tuples of texts, because Python's garbage collector does
    not visit these.

    :param paths: for each hash part, the base name of the path, if it is recorded, and the two
        parts of the name of its NAR.
    :param kept: number of paths of the closures that stay.
    :param size: bytes of the stored NARs of the paths to remove, unless another path has the NAR.
    """

    paths: dict[str, tuple[str, str, str]] = field(factory=dict)
    kept: int = 0
    size: int = 0

    def base(self, digest: str) -> str | None:
        """Return the base name of a path; None if it is not recorded."""
        known = self.paths.get(digest)
        return None if known is None else known[0]

    def name(self, digest: str) -> str:
        """Return the name in the base name of a path; empty if the path is not recorded."""
        return (self.base(digest) or "").partition("-")[2]

    def nar(self, digest: str) -> NarKey | None:
        """Return the name of the NAR of a path; None if the path is not recorded."""
        known = self.paths.get(digest)
        return None if known is None else NarKey(known[1], known[2])


class Selection:
    """Chooses the paths to remove.

    Threads go through all members of a closure, because that takes longer than a turn of the
    reactor should.
    """

    def __init__(self, world: World) -> None:
        self._graph = world.graph
        self._pins = world.pins
        self._threads = world.threads

    async def choose(
        self, roots: Collection[str], *, closure: bool, permit: Permit = anything
    ) -> Going:
        """Return the paths to remove with the roots.

        Raises Refused if the closures are too large, Unavailable if the database is away.

        :param closure: whether to remove more paths than the roots.
        :param permit: called in a thread for each path of the closures; refused paths stay.
        """
        if not closure:
            paths = dict(await self._graph.among(roots))
            return await self._threads.run(_going, paths, set[str](), set(roots), anything)
        members: dict[str, PathFacts] = {}
        known: dict[str, str] = {}
        async for found in walk(self._graph, roots):
            for digest, facts in found.items():
                if facts is not None:  # keep each hash part in memory only once
                    shared = tuple(known.setdefault(each, each) for each in facts.references)
                    members[digest] = evolve(facts, references=shared, nar_hash=None)
        needed = await self._needed_outside(members)
        needed |= set(await self._pins.holders(members))
        return await self._threads.run(_going, members, needed, set(roots), permit)

    async def _needed_outside(self, members: Collection[str]) -> set[str]:
        """Return the members that outside paths refer to. Reads the whole catalog."""
        needed: set[str] = set()
        last = ""
        while page := await self._graph.after(last):
            for digest, facts in page.items():
                if digest not in members:
                    needed.update(each for each in facts.references if each in members)
            last = max(page)
        return needed


def _going(
    members: dict[str, PathFacts], needed: set[str], roots: set[str], permit: Permit
) -> Going:
    """Choose the paths, and empty `members`, because freeing them in the reactor takes long."""
    needed |= {d for d, facts in members.items() if not is_permitted(permit, facts.base)}
    stays = _reached(members, needed - roots, roots)
    gone = {digest: facts for digest, facts in members.items() if digest not in stays}
    members.clear()
    nars = {facts.nar: facts.stored_size or 0 for facts in gone.values()}
    paths = {d: (facts.base, facts.nar.name, facts.nar.extension) for d, facts in gone.items()}
    return Going(paths=paths, kept=len(stays), size=sum(nars.values()))


def _reached(members: dict[str, PathFacts], needed: set[str], roots: set[str]) -> set[str]:
    """Return the paths that stay: the needed ones, and all members that they refer to."""
    stays: set[str] = set()
    waiting = list(needed)
    while waiting:
        digest = waiting.pop()
        if digest in stays or digest not in members or digest in roots:
            continue
        stays.add(digest)
        waiting += members[digest].references
    return stays
