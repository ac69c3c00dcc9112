"""Role: how a process of ncps stands to others on its machine: alone, or one of several workers.

What differs between the two is here and in `worker`; everything else is the same program.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from twisted.internet.interfaces import IListeningPort

from ncps.aio.ending import Ending
from ncps.aio.listening import listen
from ncps.observe.metrics import Metrics
from ncps.observe.snapshots import Collector
from ncps.ports import Notices
from ncps.settings.schema.tree import Settings
from ncps.web.routes import NarAnswers
from ncps.web.site import NcpsSite


def new_name() -> str:
    """Make up the name of a cache in Via headers."""
    return f"ncps-{uuid4().hex[:12]}"


class Role(Protocol):
    """See the module. Called in the order `begin`, `enter`, `open`, `tell`, ..., `leave`.

    :ivar via: name in Via headers, which all workers of one daemon share, and no other has.
    :ivar pid: process id of the daemon: of this process, or of the supervisor.
    :ivar address: where siblings reach this process; empty where it has none.
    :ivar siblings: where this process reaches each of them.
    :ivar is_in_charge: whether locks, schema and leftovers are seen to here, and not by a
        supervisor.
    :ivar notices: what siblings tell each other; None without siblings.
    :ivar leases: directory in which siblings lease; None without siblings.
    :ivar gather: collects the metrics of all siblings, from `begin` on; None without any.
    """

    via: str
    pid: int
    address: str
    siblings: tuple[str, ...]
    is_in_charge: bool
    notices: Notices | None
    leases: Path | None
    gather: Callable[[], Awaitable[Collector]] | None

    def begin(self, metrics: Metrics) -> None:
        """Get ready to hear siblings, before anything is remembered. Unavailable."""

    async def enter(self, peers: NarAnswers) -> None:
        """Let siblings ask. Refused.

        :param peers: answers for NARs on their way.
        """

    def open(self, settings: Settings, site: NcpsSite) -> AsyncIterator[IListeningPort]:
        """Let clients ask, where the settings say. Refused."""

    def tell(self, state: str) -> None:
        """Report a state in the words of sd_notify(3): READY=1, STOPPING=1. Never fails."""

    async def mend(self) -> None:
        """Make again what something has removed: files by which siblings find each other.

        Refused, Unavailable: it cannot be made.
        """

    async def leave(self, ending: Ending) -> None:
        """Hear and answer siblings no more; those that are being answered have until the end."""


class Alone(Role):
    """One process that looks after everything itself."""

    def __init__(self, reactor: Any) -> None:
        self.via = new_name()
        self.pid = os.getpid()
        self.address = ""
        self.siblings = ()
        self.is_in_charge = True
        self.notices = None
        self.leases = None
        self.gather = None
        self._reactor = reactor

    def begin(self, metrics: Metrics) -> None:
        """See `Role`."""

    async def enter(self, peers: NarAnswers) -> None:
        """See `Role`."""

    async def open(self, settings: Settings, site: NcpsSite) -> AsyncIterator[IListeningPort]:
        """See `Role`."""
        for description in settings.server.addr:
            yield await listen(self._reactor, description, site)

    def tell(self, state: str) -> None:
        """See `Role`."""
        notify(state)

    async def mend(self) -> None:
        """See `Role`: it needs none."""

    async def leave(self, ending: Ending) -> None:
        """See `Role`."""


def notify(state: str) -> None:
    """Tell systemd, if it asked to be told (sd_notify(3)); never fails."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto(state.encode(), address)
    except OSError:
        pass


def address_of(port: IListeningPort) -> str:
    """Say where a port listens, for logs."""
    where = port.getHost()
    host, number = getattr(where, "host", None), getattr(where, "port", 0)
    if host is None:
        return f"unix:{os.fsdecode(getattr(where, 'name', None) or b'?')}"
    return f"http://[{host}]:{number}" if ":" in host else f"http://{host}:{number}"


async def closed(port: Any) -> None:
    """Stop listening, at an `IListeningPort`; return when it is done."""
    ended = port.stopListening()
    try:
        if ended is not None:
            await ended
    except OSError:
        # Twisted removes the file of a UNIX socket first, and comes no farther where it is gone.
        port.socket.close()
