"""Listeners: the listening addresses of a daemon, which its workers share.

Each address is one socket, which all workers inherit. The supervisor binds it and does not listen,
so the kernel refuses clients until the first worker serves. A worker accepts a TCP connection only
if no other worker has fewer (`SharedPort`).
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from typing import Any, cast

from attrs import Factory, define, evolve, frozen
from twisted.internet.abstract import isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory
from twisted.internet.protocol import Factory as ProtocolFactory
from zope.interface import implementer

from ncps.aio.listening import (
    BACKLOG,
    check_passed,
    inherited,
    listen,
    passed_sockets,
    warn_of_unused,
    why_not,
)
from ncps.aio.shared_port import Loads, SharedPort
from ncps.assembly.role import Entrance
from ncps.errors import Refused
from ncps.settings.kinds.network import ENCRYPTED


@frozen(kw_only=True)
class Listener:
    """A listening address of a worker.

    :param port: of a TCP address that ncps has bound; 0 for another socket, which listens already.
    :param fd: of the socket.
    :param family: of the socket.
    :param is_encrypted: whether connections to the address use TLS.
    """

    host: str = ""
    port: int = 0
    backlog: int = BACKLOG
    fd: int = -1
    family: int = 0
    is_encrypted: bool = False

    @property
    def address(self) -> str:
        """The address for messages."""
        if not self.port:
            return "a socket that it was given"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@implementer(IListeningPort)
@define(eq=False)
class _Held:
    """A bound TCP address at which no process listens yet."""

    socket: socket.socket

    def startListening(self) -> None:
        """See `IListeningPort`."""

    def stopListening(self) -> None:
        """See `IListeningPort`."""
        self.socket.close()

    def getHost(self) -> IAddress:
        """See `IListeningPort`."""
        kind = IPv6Address if self.socket.family == socket.AF_INET6 else IPv4Address
        return kind("TCP", *self.socket.getsockname()[:2])


@define(eq=False)
class Listeners:
    """The addresses of a daemon; endpoints use this object as their reactor.

    :param reactor: `IReactorUNIX`.
    :ivar opened: the addresses for the workers, in the order of the settings.
    :ivar entrances: the ports that hold the addresses; their owner closes each.
    """

    reactor: Any
    opened: list[Listener] = Factory(list)
    entrances: list[Entrance] = Factory(list)

    async def open(self, descriptions: Sequence[str]) -> None:
        """Bind every address. Raises Refused, as in a single process, if that fails."""
        if not hasattr(socket, "TCP_INFO"):
            raise Refused("server-workers: more than one worker needs TCP_INFO of Linux")
        warn_of_unused(passed_sockets(), [it.removeprefix(ENCRYPTED) for it in descriptions])
        for description in descriptions:
            is_encrypted, known = description.startswith(ENCRYPTED), len(self.opened)
            port = await listen(self, description.removeprefix(ENCRYPTED), ProtocolFactory())
            self.entrances.append(Entrance(port, is_encrypted))
            self.opened[known:] = [
                evolve(listener, is_encrypted=is_encrypted) for listener in self.opened[known:]
            ]

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """See `IReactorTCP`: bind an address at which no other program listens."""
        del factory
        for listener in self.opened:
            if port and (listener.host, listener.port) == (interface, port):
                taken = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
                raise CannotListenError(interface, port, taken)
        held = _Held(_bound(interface, port))
        self.opened.append(
            Listener(
                host=interface,
                port=held.socket.getsockname()[1],
                backlog=backlog,
                fd=held.socket.fileno(),
                family=held.socket.family,
            )
        )
        return held

    def listenUNIX(
        self,
        address: str,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> IListeningPort:
        """See `IReactorUNIX`: make the socket; the workers accept its connections."""
        port = self.reactor.listenUNIX(address, factory, backlog, mode, wantPID)
        port.stopReading()
        self.opened.append(Listener(fd=port.fileno(), family=socket.AF_UNIX, backlog=backlog))
        return cast("IListeningPort", port)

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: IProtocolFactory
    ) -> IListeningPort:
        """See `IReactorSocket`: keep a socket from systemd for the workers."""
        del factory
        check_passed(fileDescriptor, addressFamily)
        held = _Held(socket.socket(fileno=os.dup(fileDescriptor)))
        self.opened.append(Listener(fd=held.socket.fileno(), family=addressFamily))
        return held


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket, bound as by Twisted. Raises CannotListenError if that fails."""
    family = socket.AF_INET6 if isIPv6Address(host) else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setblocking(False)
        if family == socket.AF_INET6:
            numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            made.bind(socket.getaddrinfo(host, port, family, 0, 0, numeric)[0][4])
        else:
            made.bind((host, port))
    except OSError as error:
        made.close()
        raise CannotListenError(host, port, error) from error
    return made


def enter(
    reactor: Any, listener: Listener, factory: IProtocolFactory, loads: Loads
) -> IListeningPort:
    """Listen at an address in a worker. Raises Refused if that fails.

    :param loads: the connections of all workers.
    """
    try:
        if listener.family == socket.AF_UNIX:
            return inherited(reactor, listener.fd, listener.family, factory, listener.backlog)
        shared = socket.fromfd(listener.fd, listener.family, socket.SOCK_STREAM)
        backlog = listener.backlog if listener.port else None
        port = SharedPort(reactor, shared, factory, loads, backlog)
        port.startListening()
        return cast("IListeningPort", port)
    except OSError as error:
        why = why_not(listener.address, error)
        raise Refused(f"a worker cannot listen on {listener.address}: {why}") from error
