"""Listeners: the listening addresses of several workers, opened once and passed on to each.

A TCP address becomes a socket in every worker (SO_REUSEPORT): the kernel spreads connections over
sockets, while of several processes at one socket the quickest takes whole bursts. The supervisor
holds the number with a socket of its own that never listens. A UNIX socket, or one that systemd
has opened, is one socket: it is opened here, and the workers inherit it.
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
from twisted.internet.tcp import makeBinding
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
from ncps.assembly.role import Entrance
from ncps.errors import Refused
from ncps.settings.kinds.network import ENCRYPTED


@frozen(kw_only=True)
class Listener:
    """Where a worker listens: at a TCP address, or on a descriptor.

    :param fd: of a listening socket, -1 for a TCP address.
    :param family: of the descriptor's socket.
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
        if self.fd >= 0:
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
        if not hasattr(socket, "SO_REUSEPORT"):
            raise Refused("server-workers: more than one worker needs SO_REUSEPORT of Linux")
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
        # A socket that shares would be given a foreign process's port, if that one shares, too.
        _bound(interface, port, share=False).close()
        held = _Held(_bound(interface, port, share=True))
        number = held.socket.getsockname()[1]
        self.doors.append(Listener(host=interface, port=number, backlog=backlog))
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


def _bound(host: str, port: int, *, share: bool) -> socket.socket:
    """Return a socket bound as Twisted would bind it. Raises CannotListenError if that fails.

    :param share: whether other sockets of this user may have the same address.
    """
    family = socket.AF_INET6 if isIPv6Address(host) else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            made.bind(socket.getaddrinfo(host, port, family, 0, 0, numeric)[0][4])
        else:
            made.bind((host, port))
    except OSError as error:
        made.close()
        raise CannotListenError(host, port, error) from error
    return made


def enter(reactor: Any, door: Listener, factory: IProtocolFactory) -> IListeningPort:
    """Listen as a worker. Raises Refused if that fails."""
    try:
        if door.fd >= 0:
            return inherited(reactor, door.fd, door.family, factory, door.backlog)
        binding = makeBinding(door.host, door.port, reuseAddress=True, reusePort=True)
        port = reactor.listenTCP(binding, factory, door.backlog, door.host)
        return cast("IListeningPort", port)
    except CannotListenError as error:
        why = why_not(door.address, error.socketError)
        raise Refused(f"a worker cannot listen on {door.address}: {why}") from error
    except OSError as error:
        why = why_not(door.address, error)
        raise Refused(f"a worker cannot listen on {door.address}: {why}") from error
