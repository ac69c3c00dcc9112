"""A process that has imported ncps: each daemon or command of the tests is a fork of it.

    python -m tests.machines.warm DESCRIPTOR

The descriptor is a Unix socket of packets; `tests.e2e.forked` has the other end. Packets are JSON.
`{"program": …, "arguments": …, "environment": …, "directory": …, "constants": …}`, with a
descriptor for each output or one for both, forks a daemon; the answer is its process id. With
`"has_input": true` the first descriptor is its input. The answer to `{"ended": PID}` is the
daemon's exit code, as `subprocess` counts it, or null while it runs. The end of the socket ends
this process, but no daemon. `program` is a module with a function `main`; `"is_command": true` says
that it ends by itself. `constants` are values for this daemon by the name of module and variable:
`{"ncps.assembly.tickers.REPLICAS_S": 1.0}`.

Such a daemon has another process name than one of `python -m ncps`, and starts a second faster.
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
    "ncps.assembly.lease_backends",
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
"""Modules of which each daemon imports some."""


def become(wanted: dict[str, Any], descriptors: Sequence[int]) -> Callable[[], int]:
    """Turn a fork into the requested daemon, in a session of its own; return its program."""
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
    sys.orig_argv[1:] = ["-m", "ncps", *wanted["arguments"]]  # it starts workers by this name
    return partial(end, program) if wanted["is_command"] else partial(stay, program)


def stay(program: Callable[[], int]) -> int:
    """Run a daemon and free its heap at the end, as any other process does."""
    gc.unfreeze()
    return program()


def end(program: Callable[[], int]) -> int:
    """Run a command, and end without freeing the imported modules, which would take 0.3 s."""
    try:
        code = program()
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise
        code = ended.code or 0
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    gc.collect()  # for warnings about objects that were not closed
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def change(name: str, value: float) -> None:
    """Change a constant of the program. Raises AttributeError if it does not exist."""
    module, _, constant = name.rpartition(".")
    place = import_module(module)
    getattr(place, constant)
    setattr(place, constant, value)


def ended(pid: int, codes: dict[int, int]) -> int | None:
    """Return the exit code of a daemon; None while it runs.

    :param codes: of the daemons that have ended; several threads may ask for one.
    """
    if pid not in codes:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            codes[pid] = os.waitstatus_to_exitcode(status)
    return codes.get(pid)


def serve(channel: socket.socket) -> Callable[[], int] | None:
    """Answer until the other end closes; in a fork, return the program to run."""
    codes: dict[int, int] = {}
    while True:
        packet, descriptors, _, _ = socket.recv_fds(channel, LONGEST, 3)
        if not packet:
            channel.close()
            return None
        wanted = json.loads(packet)
        if "ended" in wanted:
            answer = ended(wanted["ended"], codes)
        else:
            answer = os.fork()
            codes.pop(answer, None)  # of an earlier daemon with this number
            if answer == 0:
                channel.close()
                return become(wanted, descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
        channel.send(json.dumps(answer).encode())


if __name__ == "__main__":
    for name in LOADED:
        import_module(name)
    s3_models.read()
    gc.collect()
    gc.freeze()
    if program := serve(socket.socket(fileno=int(sys.argv[1]))):
        sys.exit(program())
