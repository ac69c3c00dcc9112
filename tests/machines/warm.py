"""ncps as often as tests want it, loaded once: each daemon or command is a fork of this process.

    python -m tests.machines.warm DESCRIPTOR

The descriptor is a Unix socket of packets, of which `tests.e2e.forked` has the other end. A packet
is JSON: `{"program": …, "arguments": …, "environment": …, "directory": …, "constants": …}`, with a
descriptor for each output or one for both, forks a daemon and is answered with its process id; with
`"has_input": true` the first descriptor is its input. `{"ended": PID}` is answered with the
daemon's exit code, as `subprocess` counts it, or null while it runs. The end of the socket ends
this process, but no daemon. `program` is a module with a function `main`; `"is_command": true` says
that it ends by itself. `constants` are values of this daemon by name of module and variable:
`{"ncps.assembly.tickers.REPLICAS_S": 1.0}`.

A daemon differs from one that `python -m ncps` starts by its name among the processes, and by what
it saves: a second of loading.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from tests import s3_models

LONGEST = 1_000_000

LOADED = (
    "ncps.__main__",
    "ncps.dbmate",
    "ncps.process.crew",
    "ncps.assembly.service",
    "ncps.assembly.bucket",
    "ncps.assembly.database_servers",
    "ncps.assembly.leases_of_servers",
    "psycopg",
    "pymysql",
    "automat",
    "encodings.ascii",
    "importlib.resources.readers",
    "ncps.aio.epoll",
    *(f"ncps.codec.{name}" for name in ("br", "bzip2", "gzip", "identity", "lz4", "xz", "zstd")),
    "ncps.commandline.former",
    "platformdirs.unix",
    "twisted.application.internet",
)
"""Modules that daemons import, each daemon some of them."""


def become(wanted: dict[str, Any], descriptors: Sequence[int]) -> Callable[[], int]:
    """Be the daemon that is wanted, in a session of its own; return its program."""
    os.setsid()
    if not wanted["has_input"]:
        descriptors = (os.open(os.devnull, os.O_RDONLY), *descriptors)
    for number, descriptor in enumerate((*descriptors[:2], descriptors[-1])):
        os.dup2(descriptor, number)
    os.closerange(3, max(*descriptors, 100) + 1)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["directory"])
    for name, value in wanted["constants"].items():
        change(name, value)
    program: Callable[[], int] = import_module(wanted["program"]).main
    sys.argv[1:] = wanted["arguments"]
    sys.orig_argv[1:] = ["-m", "ncps", *wanted["arguments"]]  # by which it starts workers
    return partial(end, program) if wanted["is_command"] else partial(stay, program)


def stay(program: Callable[[], int]) -> int:
    """Be a daemon, which has a heap like any other's to the very end."""
    gc.unfreeze()
    return program()


def end(program: Callable[[], int]) -> int:
    """Be a command, and end without taking down all that was loaded, which would take 0.3 s."""
    try:
        code = program()
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise
        code = ended.code or 0
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    gc.collect()  # for complaints about what nobody closed
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def change(name: str, value: float) -> None:
    """Give a constant of the program another value. Raises AttributeError if there is none."""
    module, _, constant = name.rpartition(".")
    place = import_module(module)
    getattr(place, constant)
    setattr(place, constant, value)


def ended(pid: int, codes: dict[int, int]) -> int | None:
    """Return the exit code of a daemon; None while it runs.

    :param codes: of those that are known to have ended; several threads may ask for one.
    """
    if pid not in codes:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            codes[pid] = os.waitstatus_to_exitcode(status)
    return codes.get(pid)


def serve(door: socket.socket) -> Callable[[], int] | None:
    """Answer until the other end closes; return the program in a process that is to be a daemon."""
    codes: dict[int, int] = {}
    while True:
        packet, descriptors, _, _ = socket.recv_fds(door, LONGEST, 3)
        if not packet:
            door.close()
            return None
        wanted = json.loads(packet)
        if "ended" in wanted:
            answer = ended(wanted["ended"], codes)
        else:
            answer = os.fork()
            codes.pop(answer, None)  # of an earlier daemon with this number
            if answer == 0:
                door.close()
                return become(wanted, descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
        door.send(json.dumps(answer).encode())


if __name__ == "__main__":
    for name in LOADED:
        import_module(name)
    s3_models.read()
    gc.collect()
    gc.freeze()
    if program := serve(socket.socket(fileno=int(sys.argv[1]))):
        sys.exit(program())
