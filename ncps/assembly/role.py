"""Role: how a process of ncps stands to others on its machine: alone, or one of several workers.

The differences are here and in `process/worker`; everything else is the same program.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from attrs import frozen
from twisted.internet.interfaces import IListeningPort

from ncps.aio.ending import Ending
from ncps.aio.listening import Inheriting, listen, passed_sockets, warn_of_unused
from ncps.assembly.systemd import Watchdog, notify
from ncps.observe.metrics import Metrics
from ncps.observe.snapshots import Collector
from ncps.observe.tracing.spans import NO_TRACER, Tracer
from ncps.ports import Notices
from ncps.settings.kinds.network import ENCRYPTED
from ncps.settings.schema.tree import Settings
from ncps.web.grammar import NarAnswers
from ncps.web.site import NcpsSite


def new_name() -> str:
    """Make up the name of a cache in Via headers."""
    return f"ncps-{uuid4().hex[:12]}"


@frozen
class Entrance:
    """A port at which clients come in.

    :ivar is_encrypted: whether it speaks TLS.
    """

    port: IListeningPort
    is_encrypted: bool

    @property
    def address(self) -> str:
        """Say where it listens, for logs."""
        return address_of(self.port, is_encrypted=self.is_encrypted)


class Role(Protocol):
    """The place of a process among others.

    Its methods are called in the order `begin`, `enter`, `open`, `tell`, ..., `leave`.

    :ivar via: name in Via headers, which all workers of one daemon share, and no other has.
    :ivar pid: process id of the daemon: of this process, or of the supervisor.
    :ivar address: where siblings reach this process; empty where it has none.
    :ivar siblings: where this process reaches each of them.
    :ivar is_in_charge: whether locks, schema and leftovers are seen to here, and not by a
        supervisor.
    :ivar notices: messages among siblings; None without siblings.
    :ivar leases: directory in which siblings lease; None without siblings.
    :ivar gather: collects the metrics of all siblings, from `begin` on; None without any.
    :ivar watchdog: restarts this process if its reactor stands still.
    """

    via: str
    pid: int
    address: str
    siblings: tuple[str, ...]
    is_in_charge: bool
    notices: Notices | None
    leases: Path | None
    gather: Callable[[], Awaitable[Collector]] | None
    watchdog: Watchdog

    def begin(self, metrics: Metrics) -> None:
        """Get ready to hear siblings, before anything is remembered.

        Raises Unavailable if that fails.
        """

    async def enter(self, peers: NarAnswers, tracer: Tracer = NO_TRACER) -> None:
        """Let siblings ask this process. Raises Refused if it cannot listen.

        :param peers: answers for NARs on their way.
        :param tracer: begins the spans of these answers.
        """

    def open(self, settings: Settings, site: NcpsSite) -> AsyncIterator[Entrance]:
        """Let clients ask, where the settings say. Raises Refused if an address cannot be used."""

    def tell(self, *lines: str) -> None:
        """Report in the words of sd_notify(3), such as READY=1. Never fails; see `systemd`."""

    async def mend(self) -> None:
        """Make again what something has removed: files by which siblings find each other.

        Raises Refused or Unavailable if they cannot be made.
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
        self.watchdog = Watchdog.of(os.environ, self.pid)
        self._reactor = reactor

    def begin(self, metrics: Metrics) -> None:
        """See `Role`."""

    async def enter(self, peers: NarAnswers, tracer: Tracer = NO_TRACER) -> None:
        """See `Role`."""

    async def open(self, settings: Settings, site: NcpsSite) -> AsyncIterator[Entrance]:
        """See `Role`."""
        addresses = [address.removeprefix(ENCRYPTED) for address in settings.server.addr]
        warn_of_unused(passed_sockets(), addresses)
        for address in settings.server.addr:
            description = address.removeprefix(ENCRYPTED)
            passed = description.startswith("systemd:")
            reactor = Inheriting(self._reactor) if passed else self._reactor
            port = await listen(reactor, description, site)
            yield Entrance(port, address.startswith(ENCRYPTED))

    def tell(self, *lines: str) -> None:
        """See `Role`."""
        notify(*lines)

    async def mend(self) -> None:
        """See `Role`: it needs none."""

    async def leave(self, ending: Ending) -> None:
        """See `Role`."""


def address_of(port: IListeningPort, *, is_encrypted: bool = False) -> str:
    """Say where a port listens, for logs."""
    scheme = "https" if is_encrypted else "http"
    where = port.getHost()
    host, number = getattr(where, "host", None), getattr(where, "port", 0)
    if host is None:
        return f"unix:{os.fsdecode(getattr(where, 'name', None) or b'?')}"
    return f"{scheme}://[{host}]:{number}" if ":" in host else f"{scheme}://{host}:{number}"


async def closed(port: Any) -> None:
    """Stop listening, at an `IListeningPort`; return when it is done."""
    ended = port.stopListening()
    try:
        if ended is not None:
            await ended
    except OSError:
        # Twisted removes the file of a UNIX socket first, and comes no farther where it is gone.
        port.socket.close()
