"""ncps as often as tests want it, loaded once: each daemon is a fork of this process.

    python -m tests.machines.warm DESCRIPTOR

The descriptor is a Unix socket of packets, of which `tests.e2e.forked` has the other end. A packet
is JSON: `{"arguments": …, "environment": …, "directory": …}`, with the descriptor of the log,
forks a daemon and is answered with its process id; `{"ended": PID}` is answered with the daemon's
exit code, as `subprocess` counts it, or null while it runs. The end of the socket ends this
process, but no daemon.

A daemon differs from one that `python -m ncps` starts by its name among the processes, and by what
it saves: a second of loading.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
from importlib import import_module
from typing import Any

from ncps.__main__ import main

LONGEST = 1_000_000

LOADED = (
    "ncps.process.crew",
    "ncps.assembly.service",
    "ncps.assembly.bucket",
    "ncps.assembly.database_servers",
    "ncps.assembly.leases_of_servers",
    "psycopg",
    "pymysql",
)
"""What one daemon or another imports."""


def become(wanted: dict[str, Any], log: int) -> None:
    """Be the daemon that is wanted, in a session of its own."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((nothing, log, log)):
        os.dup2(descriptor, number)
    os.closerange(3, max(nothing, log, 100) + 1)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["directory"])
    sys.argv[1:] = wanted["arguments"]
    sys.orig_argv[1:] = ["-m", "ncps", *wanted["arguments"]]  # by which it starts workers


def ended(pid: int, codes: dict[int, int]) -> int | None:
    """Return the exit code of a daemon; None while it runs.

    :param codes: of those that are known to have ended; several threads may ask for one.
    """
    if pid not in codes:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            codes[pid] = os.waitstatus_to_exitcode(status)
    return codes.get(pid)


def serve(door: socket.socket) -> bool:
    """Answer until the other end closes; True in a process that is to be a daemon."""
    codes: dict[int, int] = {}
    while True:
        packet, descriptors, _, _ = socket.recv_fds(door, LONGEST, 1)
        if not packet:
            return False
        wanted = json.loads(packet)
        if "ended" in wanted:
            answer = ended(wanted["ended"], codes)
        else:
            (log,) = descriptors
            answer = os.fork()
            codes.pop(answer, None)  # of an earlier daemon with this number
            if answer == 0:
                door.close()
                become(wanted, log)
                return True
            os.close(log)
        door.send(json.dumps(answer).encode())


if __name__ == "__main__":
    for name in LOADED:
        import_module(name)
    gc.collect()
    gc.freeze()
    if serve(socket.socket(fileno=int(sys.argv[1]))):
        gc.unfreeze()
        sys.exit(main())
