"""Reload: reads the settings again while the process runs.

A running process applies some changes, and logs those that need a restart. If the new settings have
any problem, the process keeps all old ones.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from ncps.aio.tasks import Coalesced, Tasks
from ncps.aio.threads import Workers
from ncps.aio.waiting import within
from ncps.assembly.systemd import reloading
from ncps.errors import NcpsError
from ncps.observe.logs import log_warnings
from ncps.settings.changes import changes
from ncps.settings.load import load
from ncps.settings.problems import InvalidSettings
from ncps.settings.schema.tree import Settings

LOAD_S: Final = 30.0
"""Longest time to read the files of the settings."""
PART_S: Final = 10.0
"""Longest time for one part to read a file, or an object of the store, for a reload.

Without this limit, a file that hangs would block all later reloads. All parts together need less
than `TAKE_S` of the crew.
"""
TROUBLE: Final = "trouble: "
"""Prefix of a line about a change that could not be applied."""
_FAILED: Final = "nothing is reloaded, all settings stay as they are: {reason}"


class Reload:
    """Reads the settings again after calls of `ask`, one reload at a time.

    :param take: applies other settings; returns lines about changes that these do not show.
    :param tell: sends lines to the service manager.
    :param status: returns the line of status for the service manager.
    :ivar settings: the present settings.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        *,
        take: Callable[[Settings], Awaitable[Sequence[str]]],
        tell: Callable[..., object],
        status: Callable[[], str],
    ) -> None:
        self.settings = settings
        self._reactor = reactor
        self._take = take
        self._tell = tell
        self._status = status
        self._tasks = Tasks(reactor)
        self._workers: Workers | None = None
        self._job = Coalesced(reactor, self._tasks, "reload", self._run, longest_rest_s=0.0)
        self._is_open = False
        self._is_asked = False

    def ask(self) -> None:
        """Reload now, or once the process serves; after `stop`, do nothing."""
        if self._is_open:
            self._job.ask()
        else:
            self._is_asked = True

    def start(self) -> None:
        """Begin, since the process serves now."""
        self._is_open = True
        if self._is_asked:
            self._job.ask()

    async def stop(self) -> None:
        """Reload nothing any more; a further call does nothing."""
        self._is_open = False
        await self._tasks.stop(0.0)
        workers, self._workers = self._workers, None
        if workers is not None:
            await workers.stop(0.0)

    async def _run(self) -> None:
        self._tell(*reloading())
        self._log.info("reading the settings again")  # ends the windows of repeated warnings
        try:
            await self._reload()
        except CancelledError:
            raise
        except InvalidSettings as error:
            for problem in error.problems:
                self._log.error(_FAILED, reason=problem, log_always=True)
        except NcpsError as error:
            self._log.error(_FAILED, reason=str(error), log_always=True)
        except Exception:  # noqa: BLE001 - the process goes on as before
            self._log.failure("the settings could not be reloaded")
        self._tell("READY=1", self._status())

    async def _reload(self) -> None:
        if self._workers is None:
            self._workers = Workers(self._reactor, "settings", 1)
            self._workers.start()
        reading = self._workers.run(_load_blocking, self.settings.given)
        late = f"the configuration cannot be read within {LOAD_S:g} s"
        found = await within(self._reactor, LOAD_S, reading, late)
        new = [line for line in found.warnings if line not in self.settings.warnings]
        log_warnings(new)
        change = changes(self.settings, found)
        more = await self._take(change.settings)
        self.settings = change.settings
        for line in (*change.taken, *more):
            if line.startswith(TROUBLE):
                self._log.warn("{trouble}", trouble=line.removeprefix(TROUBLE), log_always=True)
            else:
                self._log.info("reloaded: {change}", change=line)
        for line in change.left:
            self._log.warn("a restart is needed for {change}", change=line, log_always=True)
        if not (change.taken or more or change.left):
            self._log.info("reloaded: nothing has changed")


def _load_blocking(given: Mapping[str, Sequence[str]]) -> Settings:
    """Load the settings. Raises NcpsError if they, or the authorities of clients, are wrong.

    The authorities are checked first, so that the rights of clients never follow from a part of the
    new settings.
    """
    found = load(given)
    if found.server.tls.client_ca_file is not None:
        from ncps.aio.certificate import check_authorities_blocking  # noqa: PLC0415 - for few settings

        check_authorities_blocking(found.server.tls.client_ca_file)
    return found
