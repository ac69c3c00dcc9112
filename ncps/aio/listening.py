"""Listening where an endpoint string says, with an error that says why not."""

from __future__ import annotations

import errno
import re
import socket
from pathlib import Path
from typing import Any, Final, cast

from twisted.internet import unix
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory

from ncps.errors import Refused

BACKLOG = 1024
_SEPARATOR = re.compile(r"(?<!\\):")
_ESCAPE = re.compile(r"\\(.)")
_ANYWHERE = {"", "::"}
_FIRST_FREE_PORT = 1024
_LOCKED = "Cannot acquire lock"  # says `unix.Port`
_ANY_V6 = re.compile(r"interface=\\:\\:(?=:|\Z)")


def shown_address(description: str) -> str:
    """Write an endpoint string as people write an address, without what we have added to it."""
    kind, *arguments = (_ESCAPE.sub(r"\1", part) for part in _SEPARATOR.split(description))
    named = dict(part.split("=", 1) for part in arguments if "=" in part)
    first = arguments[0] if arguments and "=" not in arguments[0] else ""
    if kind == "unix":
        return f"unix:{first or named.get('address', '')}"
    if kind != "tcp":
        return description
    host, port = named.get("interface", ""), first or named.get("port", "")
    if host in _ANYWHERE:
        return f":{port}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def listen(reactor: Any, description: str, factory: IProtocolFactory) -> IListeningPort:
    """Listen; Refused names the address and what is wrong with it.

    "All interfaces" means IPv4 alone on a host without IPv6.
    """
    address = shown_address(description)
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
        reason = _reason(address, error.socketError)
        raise Refused(f"cannot listen on {address}: {reason}") from error
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise Refused(f"cannot listen on {address}: {_reason(address, error)}") from error


def _reason(address: str, error: object) -> str:
    """What is wrong, and what would be right where that is known.

    :param error: what Twisted gives as the cause: an error or a text.
    """
    code = getattr(error, "errno", None)
    reason = getattr(error, "strerror", None) or str(error)
    if address.startswith("unix:"):
        directory = Path(address.removeprefix("unix:")).parent
        if reason == _LOCKED:
            return "another process listens there"
        if code == errno.ENOENT:
            return f"the directory {directory} does not exist"
        if code == errno.EACCES:
            return f"this user may not make a socket in {directory}"
        return reason
    port = address.rpartition(":")[2]
    if code == errno.EACCES and port.isdigit() and int(port) < _FIRST_FREE_PORT:
        return f"{reason}; ports below {_FIRST_FREE_PORT} need CAP_NET_BIND_SERVICE"
    if code == errno.EADDRNOTAVAIL:
        return f"{reason}; it should be an address of this machine"
    return reason


async def _listen(reactor: Any, description: str, factory: IProtocolFactory) -> IListeningPort:
    endpoint = serverFromString(reactor, description)
    return cast("IListeningPort", await endpoint.listen(factory))


BORROWED: Final = (
    "twisted.internet.tcp.Port._preexistingSocket",
    "twisted.internet.tcp.Port._shouldShutdown",
)
"""Private names of the library that this module uses; see `tests/structure/test_borrowed.py`."""


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
