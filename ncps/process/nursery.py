"""The nursery: a process that forks the workers, so that they share the memory of imports.

    supervisor --asks--> nursery --forks--> a process that ends at once --forks--> worker

The supervisor forks the nursery before it starts a reactor. The nursery has imported the program,
and has no reactor, no thread, and no file but its end of a socket. A worker that it forks imports
nothing, and the kernel copies a page of memory only when one of the two processes writes to it.

The process in between ends immediately, so the worker becomes a child of the supervisor, which is
its subreaper (prctl(2)). So the supervisor waits for its workers as for any other child, and no
worker is lost if the nursery ends. From then on the supervisor starts workers as programs.

A question is a packet: the plan of a worker, with the descriptors that the worker inherits, in the
order of their numbers. The answer is the process id of the worker, or the negative errno of a fork
that failed. The nursery ends when no process has the other end of the socket any more.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from errno import EAGAIN, EMFILE
from pathlib import Path
from typing import Final

from ncps.aio.imports import named
from ncps.cli import WORKER
from ncps.settings.schema.tree import Settings

NAME: Final = "ncps nursery"
ANSWER_S: Final = 10.0
"""Seconds that the supervisor waits for a fork; it does nothing else in that time."""
MOST_DESCRIPTORS: Final = 253
"""Descriptors in one packet, at most (unix(7), SCM_RIGHTS)."""
_PR_SET_CHILD_SUBREAPER: Final = 36
_LONGEST: Final = 128 * 1024
_SOCKET: Final = 3
_BLOCKED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that a terminal or systemd may send to all processes at the same time.

Only the supervisor acts on them. The nursery does not ignore but block them, so a signal from the
supervisor waits until the new worker can handle it.
"""
_OF_SYSTEMD: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_OF_SOCKETS: Final = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


class NoNursery(Exception):
    """There is no nursery, or it has ended, or it gave no answer in time."""


class Nursery:
    """The nursery as the supervisor sees it.

    :param connection: the socket to the nursery; None if there is no nursery.
    :ivar pid: process id of the nursery; 0 if there is none.
    """

    def __init__(self, connection: socket.socket | None = None, pid: int = 0) -> None:
        self.pid = pid
        self._connection = connection
        if connection is not None:
            connection.settimeout(ANSWER_S)

    @property
    def is_open(self) -> bool:
        """Whether there is a nursery that can fork."""
        return self._connection is not None

    def fork(self, plan: str, fds: Sequence[int]) -> int:
        """Make the nursery fork a worker; return its process id. It is a child of this process.

        Raises NoNursery if the nursery does not answer, OSError if the fork fails.

        :param fds: the descriptors of the worker, from 0 on.
        """
        if self._connection is None or len(fds) > MOST_DESCRIPTORS:
            raise NoNursery
        try:
            socket.send_fds(self._connection, [plan.encode()], fds)
            answer = int(self._connection.recv(_LONGEST))
        except (OSError, ValueError) as error:
            self.close()  # a late answer would count as the answer to the next question
            raise NoNursery from error
        if answer <= 0:
            raise OSError(-answer, os.strerror(-answer))
        return answer

    def close(self) -> None:
        """Let the nursery end; idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def adapters_of(settings: Settings) -> list[str]:
    """Return the names of modules that workers with these settings import."""
    cache = settings.cache
    found = []
    if cache.storage.local is None:
        found.append("ncps.assembly.bucket")
    if not cache.database_url.is_file:
        found.append("ncps.assembly.database_servers")
        found.append("pymysql" if cache.database_url.dialect == "mysql" else "psycopg")
    if cache.lock.backend != "local":
        found.append("ncps.assembly.lease_backends")
    if settings.auth.oidc.issuers:
        found.append("ncps.assembly.oidc")
    return found


def import_adapters(settings: Settings) -> None:
    """Import these modules before the fork; the checks at the start report missing packages."""
    for name in adapters_of(settings):
        with suppress(ImportError):
            named(name)


def begin() -> Nursery | None:
    """Fork a nursery; return it in this process, and None in each worker that is forked from it.

    This process must have neither a second thread nor a reactor. If it cannot fork, or cannot be a
    subreaper, the returned nursery raises NoNursery for each fork.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is None or prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        return Nursery()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()  # else each worker would write the buffered text again
    us = os.getpid()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    try:
        pid = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        return Nursery()
    finally:
        if os.getpid() == us:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if pid:
        theirs.close()
        return Nursery(ours, pid)
    ours.close()
    try:
        _fork_workers(theirs)
        _unblock(mask)
    except BaseException:  # noqa: BLE001 - a copy of the supervisor must never run on
        os._exit(1)
    return None


def _fork_workers(theirs: socket.socket) -> None:
    """Run the loop of the nursery; return in each worker."""
    call_process(NAME)
    os.dup2(theirs.detach(), _SOCKET)
    os.closerange(_SOCKET + 1, _limit())
    connection = socket.socket(fileno=_SOCKET)
    while True:
        question, fds, flags, _ = socket.recv_fds(connection, _LONGEST, MOST_DESCRIPTORS)
        if not question:
            os._exit(0)
        if flags & socket.MSG_CTRUNC:  # a worker without a lock or a listener must not begin
            for fd in fds:
                os.close(fd)
            connection.send(str(-EMFILE).encode())
            continue
        read, write = os.pipe()
        answer = _forked(read, write)
        if answer is None:
            connection.detach()
            os.close(write)
            os.read(read, 1)  # until this process is a child of the supervisor
            _become_worker(question.decode(), fds)
            return
        for fd in (*fds, read, write):
            os.close(fd)
        connection.send(str(answer).encode())


def _forked(read: int, write: int) -> int | None:
    """Fork a process by way of another; return its process id, a negative errno, or None.

    None is returned in the new process.
    """
    told, tell = os.pipe()
    try:
        between = os.fork()
    except OSError as error:
        os.close(told)
        os.close(tell)
        return -(error.errno or EAGAIN)
    if between == 0:
        os.close(told)
        try:
            answer = os.fork()
        except OSError as error:
            answer = -(error.errno or EAGAIN)
        if answer == 0:
            os.close(tell)
            return None
        os.write(tell, str(answer).encode())
        os._exit(0)
    os.close(tell)
    os.waitpid(between, 0)
    with os.fdopen(told, "rb") as file:
        text = file.read()
    return int(text) if text else -EAGAIN


def _become_worker(plan: str, fds: Sequence[int]) -> None:
    """Set the descriptors and the environment as for a worker that was started as a program."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, len(fds) + _SOCKET) for fd in fds]
    for number, fd in enumerate(high):
        os.dup2(fd, number)
    os.closerange(len(fds), _limit())
    found = worker_environment(os.environ, plan)
    for name in set(os.environ) - set(found):
        del os.environ[name]
    os.environ.update(found)


def _unblock(mask: Iterable[int]) -> None:
    """Unblock the signals of a worker; a SIGTERM that came since the fork ends it.

    :param mask: the signals that were blocked before the nursery was made.
    """
    for number in _BLOCKED:
        is_ours = number == signal.SIGTERM  # the others are for the supervisor alone
        signal.signal(number, signal.SIG_DFL if is_ours else signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def worker_environment(environ: Mapping[str, str], plan: str) -> dict[str, str]:
    """Return the environment of a worker; variables of systemd are for the supervisor only."""
    found = {k: v for k, v in environ.items() if k not in {*_OF_SYSTEMD, *_OF_SOCKETS}}
    return found | {WORKER: plan}


def call_process(name: str) -> None:
    """Set the name of this process in process lists, at most 15 bytes, where Linux can."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name, encoding="ascii")


def _limit() -> int:
    """Return a number above all descriptors of this process."""
    try:
        return max(int(path.name) for path in Path("/proc/self/fd").iterdir()) + 1
    except (OSError, ValueError):
        return int(os.sysconf("SC_OPEN_MAX"))
