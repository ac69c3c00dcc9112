"""Listening at the address of an endpoint string, with errors that tell users the remedy."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

from attrs import frozen
from twisted.internet import endpoints, unix
from twisted.internet.address import UNIXAddress
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.logger import Logger

from ncps.errors import Refused

BACKLOG = 1024
_SEPARATOR = re.compile(r"(?<!\\):")
_ESCAPE = re.compile(r"\\(.)")
_ANYWHERE = {"", "::"}
_FIRST_FREE_PORT = 1024
_LOCKED = "Cannot acquire lock"  # the text of `unix.Port`
_log = Logger()
_ANY_V6 = re.compile(r"interface=\\:\\:(?=:|\Z)")


def shown_address(description: str) -> str:
    """Return the address in an endpoint string as people write it."""
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
    """Listen. Raises Refused, which names the address and the reason, if that fails.

    "All interfaces" means only IPv4 on a host without IPv6.
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
        reason = why_not(address, error.socketError)
        raise Refused(f"cannot listen on {address}: {reason}") from error
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise Refused(f"cannot listen on {address}: {why_not(address, error)}") from error


def why_not(address: str, error: object) -> str:
    """Say why listening failed, and what would be right if that is known.

    :param error: the cause that Twisted gives: an error or a text.
    """
    code = getattr(error, "errno", None)
    reason = getattr(error, "strerror", None) or str(error)
    if address.startswith("unix:"):
        directory = Path(address.removeprefix("unix:")).parent
        if reason == _LOCKED:
            return "another process listens there: stop it, or name another socket by server-addr"
        if code == errno.ENOENT:
            return f"the directory {directory} does not exist"
        if code == errno.EACCES:
            return f"this user may not make a socket in {directory}"
        return reason
    if isinstance(error, LookupError) and address.startswith("systemd:"):
        names = os.environ.get("LISTEN_FDNAMES", "")
        passed = f"only {names.replace(':', ', ')}" if names else "none at all"
        return f"systemd has passed no such socket, {passed}; name it in FileDescriptorName="
    if code == errno.EBADF and address.startswith("systemd:"):
        return "another server-addr names the same socket; name each socket once"
    port = address.rpartition(":")[2]
    if code == errno.EACCES and port.isdigit() and int(port) < _FIRST_FREE_PORT:
        return f"{reason}; ports below {_FIRST_FREE_PORT} need CAP_NET_BIND_SERVICE"
    if code == errno.EADDRINUSE:
        for one in passed_sockets():
            if port == str(one.port):
                return f"{reason} by a socket that systemd has passed; write {one.address} instead"
        return (
            f"{reason}; stop the program that listens at port {port}, which may be another ncps"
            f" (`ss -ltnp sport = :{port}` names it), or choose another port by server-addr"
        )
    if code == errno.EADDRNOTAVAIL:
        return f"{reason}; it should be an address of this machine"
    return reason


async def _listen(reactor: Any, description: str, factory: IProtocolFactory) -> IListeningPort:
    endpoint = serverFromString(reactor, description)
    return cast("IListeningPort", await endpoint.listen(factory))


BORROWED: Final = (
    "twisted.internet.endpoints._SystemdParser",
    "twisted.internet.endpoints._SystemdParser._sddaemon",
    "twisted.internet.tcp.Port._preexistingSocket",
    "twisted.internet.tcp.Port._shouldShutdown",
)
"""Private names of the library that this module uses; see `tests/structure/test_borrowed.py`."""


class _InheritedPort(unix.Port):
    """A listening UNIX socket that belongs to another process.

    Twisted's own class would change the mode of the socket. At the end it would shut the socket
    down for all processes and remove its name.
    """

    _shouldShutdown = False

    def __init__(self, reactor: Any, fd: int, factory: IProtocolFactory, backlog: int) -> None:
        # Twisted neither changes nor removes a name that is not in the file system.
        super().__init__(b"\0inherited", factory, backlog, reactor=reactor)
        self._preexistingSocket = socket.fromfd(fd, socket.AF_UNIX, socket.SOCK_STREAM)

    def getHost(self) -> UNIXAddress:
        """See `IListeningPort`: return the true name."""
        return UNIXAddress(self.socket.getsockname())


def inherited(
    reactor: Any, fd: int, family: int, factory: IProtocolFactory, backlog: int = BACKLOG
) -> IListeningPort:
    """Listen at a socket where other processes listen as well; they keep it when this port closes.

    The caller closes the descriptor, which must not block. Raises OSError if it cannot listen.
    """
    if family == socket.AF_UNIX:
        port = _InheritedPort(reactor, fd, factory, backlog)
        port.startListening()
        return port
    return cast("IListeningPort", reactor.adoptStreamPort(fd, family, factory))


def check_passed(fd: int, family: int) -> None:
    """Check a socket of the service manager. Raises ValueError if it is of another kind or domain.

    The error says what would be right.
    """
    with socket.socket(fileno=os.dup(fd)) as found:
        if not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ValueError("the socket takes no connections; it should be a ListenStream=")
        if found.family != family:
            domain = socket.AddressFamily(found.family).name.removeprefix("AF_")
            raise ValueError(f"the socket has another domain: write domain={domain}")


@frozen(kw_only=True)
class Passed:
    """A socket of the service manager, and its address.

    :ivar port: 0 for a UNIX socket.
    """

    index: int
    name: str
    fd: int
    family: int
    port: int

    @property
    def address(self) -> str:
        """The value that names the socket in server-addr."""
        domain = socket.AddressFamily(self.family).name.removeprefix("AF_")
        return f"systemd:domain={domain}:index={self.index}"


def passed_sockets() -> list[Passed]:
    """Return the sockets of the service manager that no endpoint has listened at yet.

    An endpoint of Twisted closes the descriptor that it has listened at.
    """
    manager = endpoints._SystemdParser._sddaemon
    names = {fd: name for name, fd in manager.inheritedNamedDescriptors().items()}
    found = []
    for index, fd in enumerate(manager.inheritedDescriptors()):
        with suppress(OSError), socket.socket(fileno=os.dup(fd)) as one:
            where = one.getsockname()
            port = where[1] if isinstance(where, tuple) else 0
            name = names.get(fd, "")
            found.append(Passed(index=index, name=name, fd=fd, family=one.family, port=port))
    return found


def warn_of_unused(passed: Iterable[Passed], descriptions: Iterable[str]) -> None:
    """Log a line for each socket of the service manager that no endpoint string names.

    The kernel accepts its clients, and they would wait for an answer for ever.
    """
    named = {
        _ESCAPE.sub(r"\1", part)
        for description in descriptions
        if description.startswith("systemd:")
        for part in _SEPARATOR.split(description)
    }
    for one in passed:
        if f"index={one.index}" in named or (one.name and f"name={one.name}" in named):
            continue
        _log.warn(
            "systemd has passed a socket{name}{port} that no server-addr names, and nobody answers"
            " its clients: add {address} to server-addr, or stop the unit of the socket",
            name=f" {one.name}" if one.name else "",
            port=f" at port {one.port}" if one.port else "",
            address=one.address,
        )


@frozen
class Inheriting:
    """A reactor for endpoints that listen at a socket of the service manager.

    The manager listens at the socket again when this process has ended, so its name must stay.
    """

    reactor: Any

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: IProtocolFactory
    ) -> IListeningPort:
        """See `IReactorSocket`."""
        check_passed(fileDescriptor, addressFamily)
        return inherited(self.reactor, fileDescriptor, addressFamily, factory)
