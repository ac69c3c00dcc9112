"""ncps that asks a test before each system call that changes something outside of its memory.

    NCPS_STEPS=SOCKET python -m tests.machines.stepped ARGUMENTS-OF-NCPS...

At its start it sends a test a descriptor that reports these calls (seccomp_unotify(2)), over the
Unix socket SOCKET. `Steps` is the test's side. It lets every call continue, or kills the process in
place of the call that the test has chosen by its number. So the test needs no knowledge of the
program, and covers each step, also those of SQLite. A request to a server that the test has named
is a step, too; its name is the first line of the request.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Final

VARIABLE: Final = "NCPS_STEPS"

X86_64: Final = {
    "write": 1,
    "pwrite64": 18,
    "writev": 20,
    "sendto": 44,
    "sendmsg": 46,
    "fsync": 74,
    "fdatasync": 75,
    "ftruncate": 77,
    "rename": 82,
    "mkdir": 83,
    "rmdir": 84,
    "link": 86,
    "unlink": 87,
    "unlinkat": 263,
    "renameat": 264,
    "linkat": 265,
    "fallocate": 285,
    "renameat2": 316,
    "copy_file_range": 326,
}
AARCH64: Final = {
    "unlinkat": 35,
    "linkat": 37,
    "renameat": 38,
    "ftruncate": 46,
    "fallocate": 47,
    "write": 64,
    "writev": 66,
    "pwrite64": 68,
    "fsync": 82,
    "fdatasync": 83,
    "sendto": 206,
    "sendmsg": 211,
    "renameat2": 276,
    "copy_file_range": 285,
}
"""System calls by name and number, as of include/uapi/asm-generic/unistd.h of Linux."""

NUMBERS: Final = {"x86_64": X86_64, "aarch64": AARCH64}.get(platform.machine(), {})
_NAMES: Final = {number: name for name, number in NUMBERS.items()}

_ON_DESCRIPTORS: Final = frozenset(NUMBERS) - {
    *("rename", "renameat", "renameat2", "mkdir", "rmdir", "link", "linkat", "unlink", "unlinkat")
}

_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}
_PR_SET_NO_NEW_PRIVS: Final = 38
_SET_MODE_FILTER, _NEW_LISTENER = 1, 1 << 3
_ALLOW, _ASK = 0x7FFF0000, 0x7FC00000
S3: Final = "S3"
"""The name of a server that speaks HTTP."""

_METHODS: Final = (b"GET ", b"HEAD ", b"PUT ", b"POST ", b"DELETE ")
_LONGEST: Final = 160
"""Bytes of a message that are kept for its name."""

_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_RECEIVE, _SEND, _GO_ON = 0xC0502100, 0xC0182101, 1
_CALL: Final = struct.Struct("=QIIiIQ6Q")
_REPLY: Final = struct.Struct("QqiI")


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _filter() -> bytes:
    """Return the kernel's filter for our calls: one comparison for each number."""
    numbers = sorted(_NAMES)
    code = [struct.pack("HBBI", _LOAD, 0, 0, 0)]
    for at, number in enumerate(numbers):
        code.append(struct.pack("HBBI", _JUMP_IF_EQUAL, len(numbers) - at, 0, number))
    code.append(struct.pack("HBBI", _RETURN, 0, 0, _ALLOW))
    code.append(struct.pack("HBBI", _RETURN, 0, 0, _ASK))
    return b"".join(code)


def ask_for_leave(where: str) -> None:
    """Make this thread and its children ask at a Unix socket. Raises OSError if it cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = _filter()
    program = _Program(len(code) // 8, code)
    made: SimpleQueue[int] = SimpleQueue()
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(where)
        # Sending the descriptor is such a call itself, so a thread does it that need not ask.
        courier = threading.Thread(target=lambda: socket.send_fds(line, [b"x"], [made.get()]))
        courier.start()
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        found = libc.syscall(
            _SECCOMP[platform.machine()], _SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(program)
        )
        if found < 0:
            raise OSError(ctypes.get_errno(), "seccomp")
        made.put(found)
        courier.join()
    os.close(found)


class Steps:
    """The calls of a daemon, as a test sees them, also after restarts of the daemon.

    Several writes to one file without another call in between are one call: the pages of a
    database, and the pieces of a body.

    :param servers: names of servers by their port. Each request or statement for one of them is a
        call, such as `S3 PUT /bucket/key HTTP/1.1`; the body of a request is not.
    :ivar taken: the calls since `kill_at`, such as `fsync tmp/spool-1`, in the order in which the
        daemon made them.
    :ivar is_over: whether the daemon was killed since then.
    """

    def __init__(self, directory: Path, servers: Mapping[int, str] | None = None) -> None:
        self.taken: list[str] = []
        self.is_over = False
        self._directory = directory
        self._servers = servers or {}
        self._ports: dict[str, int] = {}
        self._fatal = 0
        self._fatal_name = ""
        self._is_watched = False
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(directory / "steps"))
        self._socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """Variables for the daemon."""
        return {VARIABLE: str(self._directory / "steps")}

    def kill_at(self, number: int) -> None:
        """Kill the daemon in place of the call with this number, counted from 1; 0: never."""
        with self._lock:
            self.taken, self.is_over, self._fatal = [], False, number
            self._fatal_name = ""
            self._is_watched = True

    def kill_before(self, name: str) -> None:
        """Kill the daemon in place of the first call whose name contains this text."""
        with self._lock:
            self.taken, self.is_over, self._fatal = [], False, 0
            self._fatal_name = name
            self._is_watched = True

    def spare(self) -> bool:
        """Do not kill the daemon any more; return whether it lives."""
        with self._lock:
            self._fatal, self._fatal_name = 0, ""
            self._is_watched = False  # to name each call of a start takes longer than the start
            return not self.is_over

    def close(self) -> None:
        """Accept no further daemon."""
        self._socket.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                line, _ = self._socket.accept()
                with line:
                    _, (descriptor, *_), _, _ = socket.recv_fds(line, 1, 1)
                self._follow(descriptor)

    def _follow(self, descriptor: int) -> None:
        """Answer the calls of one process of the daemon."""
        ready = select.poll()
        ready.register(descriptor, select.POLLIN)
        try:
            while all(event == select.POLLIN for _, event in ready.poll()):
                call = bytearray(_CALL.size)
                try:
                    fcntl.ioctl(descriptor, _RECEIVE, call)
                    self._judge(descriptor, call)
                except OSError as error:
                    if error.errno != errno.ENOENT:  # the process has ended meanwhile
                        raise
        finally:
            os.close(descriptor)

    def _judge(self, descriptor: int, call: bytearray) -> None:
        identity, pid, _, number, _, _, *arguments = _CALL.unpack(call)
        step = self._name(pid, _NAMES[number], arguments) if self._is_watched else ""
        is_message = step.partition(" ")[0] in self._servers.values()
        with self._lock:
            is_new = not self.is_over and bool(step) and (is_message or self.taken[-1:] != [step])
            if is_new:
                self.taken.append(step)
            if is_new and self._is_fatal(step):
                self.is_over = True
                os.kill(pid, signal.SIGKILL)
                return
        reply = bytearray(_REPLY.pack(identity, 0, 0, _GO_ON))
        fcntl.ioctl(descriptor, _SEND, reply)

    def _is_fatal(self, step: str) -> bool:
        """Return whether the daemon dies at this step, the newest one."""
        if self._fatal_name:
            return self._fatal_name in step
        return len(self.taken) == self._fatal

    def _name(self, pid: int, name: str, arguments: list[int]) -> str:
        """Return the name of a call; empty if it writes to no file, client or named server."""
        if name not in _ON_DESCRIPTORS:
            return name
        target = str(Path(f"/proc/{pid}/fd/{arguments[0]}").readlink())
        if target.startswith("socket:"):
            server = self._server_of(pid, target)
            return _message(pid, server, arguments) if server else name
        place = Path(target.removesuffix(" (deleted)"))
        if not place.is_relative_to(self._directory) or place.name == "log":
            return ""
        return f"{name} {place.relative_to(self._directory)}"

    def _server_of(self, pid: int, target: str) -> str | None:
        """Return the name of the server at the other end of a socket; empty if it has none."""
        if not self._servers:
            return None
        if target not in self._ports:  # the kernel never uses a cookie again
            self._ports[target] = _remote_port(pid, target[8:-1])
        return self._servers.get(self._ports[target])


def _remote_port(pid: int, inode: str) -> int:
    """Return the port at the other end of a TCP connection; 0 if it is not over IPv4."""
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[9] == inode:
            return int(fields[2].rpartition(":")[2], 16)
    return 0


def _message(pid: int, server: str, arguments: list[int]) -> str:
    """Return the name of a message to a server; empty for a piece of a body."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        memory.seek(arguments[1])
        data = memory.read(min(arguments[2], _LONGEST))
    if server == S3:
        if not data.startswith(_METHODS):
            return ""
        data = data.partition(b"\r\n")[0]
    return f"{server} {''.join(chr(each) for each in data if 32 <= each < 127)}"


def main() -> int:
    """Run ncps."""
    from ncps.__main__ import main as program

    ask_for_leave(os.environ.pop(VARIABLE))
    return program()


if __name__ == "__main__":
    sys.exit(main())
