"""Logs of builds, by the base name of the derivation.

No key signs a log. The first one that a client uploads stays; without one, an upstream's is served.
"""

from __future__ import annotations

from functools import partial
from urllib.parse import quote

from attrs import evolve

from ncps.aio.threads import Threads
from ncps.cache.extras.answers import ServedExtra
from ncps.cache.extras.kept import KeptExtras, held
from ncps.cache.extras.searching import ExtraSearch
from ncps.codec.encodings import decoded
from ncps.errors import NotFound
from ncps.ports import ExtraKey


class Logs:
    """Serves logs; fetches those that are not kept."""

    def __init__(self, threads: Threads, kept: KeptExtras, search: ExtraSearch) -> None:
        self._threads = threads
        self._kept = kept
        self._search = search

    async def get(self, name: str, *, is_local: bool) -> ServedExtra:
        """See `Extras.log`."""
        key = ExtraKey("log", name)
        found = await self._kept.open("log", key.name)
        if found is not None:
            return found
        if is_local:
            raise NotFound(f"the log of {name} is not kept here")
        path = path_of(name)
        text, upstream, outcome = await self._search.first(
            path,
            partial(self._search.text, path=path),
            partial(self._kept.keep, "log", name),
        )
        found = await self._kept.open("log", name)
        if found is None:  # there was no room to keep it
            return held(text, outcome, upstream)
        return evolve(found, outcome=outcome, upstream=upstream)

    async def add(self, name: str, data: bytes, encoding: str) -> bool:
        """See `Extras.add_log`."""
        key = ExtraKey("log", name)
        if encoding:
            data = await self._threads.run(decoded, data, encoding, self._kept.bounds.object_size)
        return await self._kept.add("log", key.name, data)


def path_of(name: str) -> str:
    """Return the path of a log at an upstream, with an escaped `?`, which would begin a query."""
    return f"log/{quote(name, safe='+=')}"
