"""Mending: makes directories again that another program has removed while ncps runs.

Programs that clean `/tmp` or `/run` remove them. `/readyz` names a directory until it exists again.
"""

from __future__ import annotations

from typing import Final

from twisted.logger import Logger

from ncps.aio.threads import Threads
from ncps.assembly.role import Role
from ncps.assembly.storage import Stores
from ncps.errors import NcpsError

LOOK_S: Final = 5.0


class Mending:
    """Makes removed directories again.

    :param threads: check the directory of unfinished downloads.
    :ivar trouble: why a directory cannot be made again; empty if none is missing.
    """

    _log = Logger()

    def __init__(self, stores: Stores, threads: Threads, role: Role) -> None:
        self.trouble = ""
        self._stores = stores
        self._threads = threads
        self._role = role

    async def look(self) -> None:
        """Make missing directories. Never raises: a failure is logged once, and is in `trouble`."""
        found = []
        try:
            if await self._threads.run(self._stores.mend):
                self._log.warn(
                    "the directory of unfinished downloads was removed; ncps made it again: {path}",
                    path=str(self._stores.spools.directory),
                )
        except NcpsError as error:
            found.append(str(error))
        try:
            await self._role.mend()
        except NcpsError as error:
            found.append(str(error))
        trouble = "; ".join(found)
        if trouble and trouble != self.trouble:
            self._log.error("{trouble}", trouble=trouble)
        self.trouble = trouble
