"""Listeners: the listening addresses of several workers, opened once and passed on to each.

Each address is one socket, which the workers inherit. Those of TCP they share by the number of
connections (`SharedPort`): of several processes at one socket the quickest takes whole bursts.
The supervisor binds them and does not listen: clients are refused until the first worker serves.
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
    """Where a worker listens.

    :param port: of a TCP address of ours; 0 for another socket, which listens already.
    :param fd: of the socket.
    :param family: of the socket.
    :param is_encrypted: whether the address speaks TLS.
    """

    host: str = ""
    port: int = 0
    backlog: int = BACKLOG
    fd: int = -1
    family: int = 0
    is_encrypted: bool = False

    @property
    def address(self) -> str:
        """For messages."""
        if not self.port:
            return "a socket that it was given"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@implementer(IListeningPort)
@define(eq=False)
class _Held:
    """A TCP address that is ours, though no process listens there yet."""

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
    """The addresses of a daemon; stands in for the reactor where endpoints want to listen.

    :param reactor: `IReactorUNIX`.
    :ivar doors: the addresses for the workers, in the order of the settings.
    :ivar entrances: the ports that hold the addresses; their owner closes each.
    """

    reactor: Any
    doors: list[Listener] = Factory(list)
    entrances: list[Entrance] = Factory(list)

    async def open(self, descriptions: Sequence[str]) -> None:
        """Take every address. Raises Refused, as one process would, if one cannot be had."""
        if not hasattr(socket, "TCP_INFO"):
            raise Refused("server-workers: more than one worker needs TCP_INFO of Linux")
        warn_of_unused(passed_sockets(), [it.removeprefix(ENCRYPTED) for it in descriptions])
        for description in descriptions:
            is_encrypted, known = description.startswith(ENCRYPTED), len(self.doors)
            port = await listen(self, description.removeprefix(ENCRYPTED), ProtocolFactory())
            self.entrances.append(Entrance(port, is_encrypted))
            self.doors[known:] = [
                evolve(door, is_encrypted=is_encrypted) for door in self.doors[known:]
            ]

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """See `IReactorTCP`: hold an address at which no other program listens."""
        del factory
        for door in self.doors:
            if port and (door.host, door.port) == (interface, port):
                taken = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
                raise CannotListenError(interface, port, taken)
        held = _Held(_bound(interface, port))
        self.doors.append(
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
        """See `IReactorUNIX`: make the socket, and leave its connections to the workers."""
        port = self.reactor.listenUNIX(address, factory, backlog, mode, wantPID)
        port.stopReading()
        self.doors.append(Listener(fd=port.fileno(), family=socket.AF_UNIX, backlog=backlog))
        return cast("IListeningPort", port)

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: IProtocolFactory
    ) -> IListeningPort:
        """See `IReactorSocket`: keep a socket of systemd's for the workers."""
        del factory
        check_passed(fileDescriptor, addressFamily)
        held = _Held(socket.socket(fileno=os.dup(fileDescriptor)))
        self.doors.append(Listener(fd=held.socket.fileno(), family=addressFamily))
        return held


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket bound as Twisted would bind it. Raises CannotListenError if that fails."""
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


def enter(reactor: Any, door: Listener, factory: IProtocolFactory, loads: Loads) -> IListeningPort:
    """Listen as a worker. Raises Refused if that fails.

    :param loads: of all workers.
    """
    try:
        if door.family == socket.AF_UNIX:
            return inherited(reactor, door.fd, door.family, factory, door.backlog)
        shared = socket.fromfd(door.fd, door.family, socket.SOCK_STREAM)
        backlog = door.backlog if door.port else None
        port = SharedPort(reactor, shared, factory, loads, backlog)
        port.startListening()
        return cast("IListeningPort", port)
    except OSError as error:
        why = why_not(door.address, error)
        raise Refused(f"a worker cannot listen on {door.address}: {why}") from error
