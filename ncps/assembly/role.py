"""Role: whether a process runs alone on its machine, or is one of several workers.

All differences between the two are here and in `process/worker`.
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
    """Return a random name of a cache for Via headers."""
    return f"ncps-{uuid4().hex[:12]}"


@frozen
class Entrance:
    """A listening port for clients.

    :ivar is_encrypted: whether it speaks TLS.
    """

    port: IListeningPort
    is_encrypted: bool

    @property
    def address(self) -> str:
        """The address of the port, for logs."""
        return address_of(self.port, is_encrypted=self.is_encrypted)


class Role(Protocol):
    """The relation of a process to the other workers of its daemon.

    Its methods are called in the order `begin`, `enter`, `open`, `tell`, ..., `leave`.

    :ivar via: name in Via headers, the same for all workers of one daemon and for no other.
    :ivar pid: process id of the daemon: of this process, or of the supervisor.
    :ivar address: the address at which siblings reach this process; empty without siblings.
    :ivar siblings: the addresses of all siblings.
    :ivar is_in_charge: whether this process, and not a supervisor, handles locks, schema and
        unfinished files.
    :ivar notices: messages among siblings; None without siblings.
    :ivar leases: directory of the siblings' lease files; None without siblings.
    :ivar gather: collects the metrics of all siblings, from `begin` on; None without siblings.
    :ivar watchdog: restarts this process if its reactor stalls.
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
        """Begin to receive notices of siblings, before this process remembers anything.

        Raises Unavailable if that fails.
        """

    async def enter(self, peers: NarAnswers, tracer: Tracer = NO_TRACER) -> None:
        """Let siblings ask this process. Raises Refused if it cannot listen.

        :param peers: answers for arriving NARs.
        :param tracer: begins the spans of these answers.
        """

    def open(self, settings: Settings, site: NcpsSite) -> AsyncIterator[Entrance]:
        """Listen for clients at the addresses of the settings. Raises Refused if one is wrong."""

    def tell(self, *lines: str) -> None:
        """Send lines of sd_notify(3), such as READY=1. Never fails; see `systemd`."""

    async def mend(self) -> None:
        """Make removed files again by which siblings find each other.

        Raises Refused or Unavailable if they cannot be made.
        """

    async def leave(self, ending: Ending) -> None:
        """Stop receiving and answering siblings; running answers have until the end."""


class Alone(Role):
    """The role of a process without siblings."""

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
        """See `Role`; there is nothing to make."""

    async def leave(self, ending: Ending) -> None:
        """See `Role`."""


def address_of(port: IListeningPort, *, is_encrypted: bool = False) -> str:
    """Return the address of a port, for logs."""
    scheme = "https" if is_encrypted else "http"
    where = port.getHost()
    host, number = getattr(where, "host", None), getattr(where, "port", 0)
    if host is None:
        return f"unix:{os.fsdecode(getattr(where, 'name', None) or b'?')}"
    return f"{scheme}://[{host}]:{number}" if ":" in host else f"{scheme}://{host}:{number}"


async def closed(port: Any) -> None:
    """Stop listening at an `IListeningPort`; return when that is done."""
    ended = port.stopListening()
    try:
        if ended is not None:
            await ended
    except OSError:
        # Twisted first removes the file of a UNIX socket, and stops there if it is missing.
        port.socket.close()
