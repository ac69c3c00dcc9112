"""Selection: of the closures of some paths, those that nothing else in this cache needs.

A path stays if a recorded path outside of the closures refers to it, if a pin holds it, or if a
path that stays refers to it. Roots never stay.
"""

from __future__ import annotations

from collections.abc import Collection

from attrs import field, frozen

from ncps.cache.closures.permit import Permit, anything, is_permitted
from ncps.cache.closures.walk import walk
from ncps.cache.world import World
from ncps.ports import PathFacts


@frozen(kw_only=True)
class Going:
    """The paths that go.

    :param paths: those that are recorded.
    :param kept: number of paths of the closures that stay.
    """

    paths: dict[str, PathFacts] = field(factory=dict)
    kept: int = 0

    @property
    def size(self) -> int:
        """Bytes of their stored NARs, if no other path has these."""
        return sum({facts.nar: facts.stored_size or 0 for facts in self.paths.values()}.values())

    def name(self, digest: str) -> str:
        """The name in the base name of a path; empty if it is not known."""
        facts = self.paths.get(digest)
        return "" if facts is None else facts.base.partition("-")[2]


class Selection:
    """Chooses the paths that go."""

    def __init__(self, world: World) -> None:
        self._graph = world.graph
        self._pins = world.pins

    async def choose(
        self, roots: Collection[str], *, closure: bool, permit: Permit = anything
    ) -> Going:
        """Return the paths that go with the roots.

        Raises Refused if the closures are too large, Unavailable if the database is away.

        :param closure: whether more paths than the roots are to go.
        :param permit: paths of the closures that are not permitted stay.
        """
        if not closure:
            return Going(paths=dict(await self._graph.among(roots)))
        members: dict[str, PathFacts] = {}
        async for found in walk(self._graph, roots):
            members |= {digest: facts for digest, facts in found.items() if facts is not None}
        needed = await self._needed_outside(members)
        needed |= set(await self._pins.holders(members))
        needed |= {d for d, facts in members.items() if not is_permitted(permit, facts.base)}
        stays = _reached(members, needed - set(roots), set(roots))
        going = {digest: facts for digest, facts in members.items() if digest not in stays}
        return Going(paths=going, kept=len(stays))

    async def _needed_outside(self, members: Collection[str]) -> set[str]:
        """Return the members that recorded paths outside refer to; reads the whole catalog."""
        needed: set[str] = set()
        last = ""
        while page := await self._graph.after(last):
            for digest, facts in page.items():
                if digest not in members:
                    needed.update(each for each in facts.references if each in members)
            last = max(page)
        return needed


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
