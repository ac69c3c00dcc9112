"""Walk: goes through the closure of some paths, level by level, as far as narinfos are recorded.

One batch of facts is in memory at a time. Only the hash parts of all paths stay in memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Final

from ncps.errors import Refused
from ncps.ports import PathFacts, PathGraph
from ncps.ports.references import BATCH

MAX_PATHS: Final = 200_000
"""Paths of a closure, at most."""


async def walk(
    graph: PathGraph, roots: Iterable[str]
) -> AsyncIterator[Mapping[str, PathFacts | None]]:
    """Yield the facts of each path of a closure once; None for a path that is not recorded.

    Raises Refused if there are more than `MAX_PATHS`, Unavailable if the database is away.
    """
    known = dict.fromkeys(roots)
    waiting = list(known)
    while waiting:
        batch = waiting[-BATCH:]
        del waiting[-BATCH:]
        found = await graph.among(batch)
        yield {digest: found.get(digest) for digest in batch}
        for facts in found.values():
            for reference in facts.references:
                if reference not in known:
                    known[reference] = None
                    waiting.append(reference)
        if len(known) > MAX_PATHS:
            raise Refused(f"the closure has more than {MAX_PATHS} paths")
