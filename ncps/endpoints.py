"""Listening where an endpoint string says, with an error that says why not."""

from __future__ import annotations

import errno
import re
import socket
from typing import Any, cast

from twisted.internet import unix
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory

from ncps.errors import Refused

BACKLOG = 1024
_ANY_V6 = re.compile(r"interface=\\:\\:(?=:|\Z)")


async def listen(reactor: Any, description: str, factory: IProtocolFactory) -> IListeningPort:
    """Listen; Refused names the endpoint and what is wrong with it.

    "All interfaces" means IPv4 alone on a host without IPv6.
    """
    if description.startswith("tcp:") and "backlog=" not in description:
        description += f":backlog={BACKLOG}"
    try:
        return await _listen(reactor, description, factory)
    except CannotListenError as error:
        no_v6 = getattr(error.socketError, "errno", None) in {
            errno.EAFNOSUPPORT,
            errno.EADDRNOTAVAIL,
        }
        if no_v6 and _ANY_V6.search(description):
            return await listen(reactor, _ANY_V6.sub("interface=0.0.0.0", description), factory)
        reason = getattr(error.socketError, "strerror", None) or str(error.socketError)
        raise Refused(f"cannot listen on {description}: {reason}") from error
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise Refused(f"cannot listen on {description}: {error}") from error


async def _listen(reactor: Any, description: str, factory: IProtocolFactory) -> IListeningPort:
    endpoint = serverFromString(reactor, description)
    return cast("IListeningPort", await endpoint.listen(factory))


class _InheritedPort(unix.Port):
    """A listening UNIX socket that belongs to another process.

    Stock would set its mode anew, and at the end shut it down for all and remove its name. The
    private names are Twisted's; a test fails when they are others.
    """

    _shouldShutdown = False

    def __init__(self, reactor: Any, fd: int, factory: IProtocolFactory, backlog: int) -> None:
        # A name that is not of the file system is neither given a mode nor removed.
        super().__init__(b"\0inherited", factory, backlog, reactor=reactor)
        self._preexistingSocket = socket.fromfd(fd, socket.AF_UNIX, socket.SOCK_STREAM)


def inherited(
    reactor: Any, fd: int, family: int, factory: IProtocolFactory, backlog: int = BACKLOG
) -> IListeningPort:
    """Listen at a socket that other processes listen at, too, and leave it to them at the end.

    The descriptor stays the caller's; it must not block. OSError.
    """
    if family == socket.AF_UNIX:
        port = _InheritedPort(reactor, fd, factory, backlog)
        port.startListening()
        return port
    return cast("IListeningPort", reactor.adoptStreamPort(fd, family, factory))
