"""Sharing: whether a process with another catalog keeps its bytes in the same store.

Two machines with one bucket, and each with a SQLite database of its own, are two caches that do not
know of each other: each removes objects that the other needs. So each process writes the name of
its catalog into the store at intervals. A process that finds another name there is not alone.
"""

from __future__ import annotations

from twisted.logger import Logger

from ncps.errors import NcpsError
from ncps.ports import ConfigStore

NAME = "catalog"
LONGEST = 300
"""Bytes of another catalog's name that are shown, at most."""
CALM = 3
"""The trouble counts as over after this many looks in a row have found our own name."""


class Sharing:
    """Looks for another catalog; call `look` at intervals.

    :param own: the name of our catalog, which no other catalog on any machine has.
    :ivar trouble: the trouble at the last look; empty if there was none.
    """

    _log = Logger()

    def __init__(self, config: ConfigStore, own: str) -> None:
        self.trouble = ""
        self._config = config
        self._own = own.encode()
        self._has_looked = False
        self._calm = 0

    async def look(self) -> None:
        """Read the last name in the store and write ours; ignore a store that is away."""
        try:
            found = await self._config.get(NAME)
            if found != self._own:
                await self._config.replace(NAME, self._own)
        except NcpsError:
            return
        has_looked, self._has_looked = self._has_looked, True
        if found == self._own:
            self._alone()
        elif found is not None and has_looked:
            self._with(_shown(found))
        elif found is not None:
            self._log.info("the store was last used with {other}", other=_shown(found))

    def _alone(self) -> None:
        self._calm += 1
        if self.trouble and self._calm >= CALM:
            self.trouble = ""
            self._log.info("the store is used with one database again")

    def _with(self, other: str) -> None:
        self._calm = 0
        is_new = not self.trouble
        self.trouble = (
            f"another ncps uses this store with {other}: each removes files that the"
            " other has in its database; give both the same PostgreSQL or MySQL database"
            " (cache-database-url), or each a store of its own"
        )
        if is_new:
            self._log.error("{trouble}", trouble=self.trouble)


def _shown(value: bytes) -> str:
    """Return another catalog's name, cleaned and cut for a log line."""
    return "".join(
        c if c.isprintable() else "?" for c in value[:LONGEST].decode("utf-8", "replace")
    )
