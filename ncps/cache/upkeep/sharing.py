"""Sharing: whether a process with another catalog keeps its bytes in the same store.

Two machines with a SQLite database each, and one bucket, are two caches that do not know of each
other: either removes what the other counts on. So each process says in the store, now and then,
whose it is; who finds the name of another there again and again has company.
"""

from __future__ import annotations

from twisted.logger import Logger

from ncps.errors import NcpsError
from ncps.ports import ConfigStore

NAME = "catalog"
LONGEST = 300
"""Of what somebody wrote into the store, so many bytes are shown."""
CALM = 3
"""So many looks in a row must find nobody else before the trouble counts as over."""


class Sharing:
    """See the module.

    :param own: names our catalog, and no other on any machine.
    :ivar trouble: what is wrong, as far as was last seen; empty if nothing is.
    """

    _log = Logger()

    def __init__(self, config: ConfigStore, own: str) -> None:
        self.trouble = ""
        self._config = config
        self._own = own.encode()
        self._has_looked = False
        self._calm = 0

    async def look(self) -> None:
        """Look who was here last, and say that we are; a store that is away says nothing."""
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
            f"another ncps uses this store with {other}: either removes what the other knows of;"
            " give both the same PostgreSQL or MySQL database (cache-database-url), or each a"
            " store of its own"
        )
        if is_new:
            self._log.error("{trouble}", trouble=self.trouble)


def _shown(value: bytes) -> str:
    """What somebody wrote into the store, fit for a line of the log."""
    return "".join(
        c if c.isprintable() else "?" for c in value[:LONGEST].decode("utf-8", "replace")
    )
