"""The process that transcodes one NAR: reads it from its standard input, writes an open file.

It runs when nobody else wants the processor, has a bound on its memory, and ends with the process
that has started it: the kernel kills it then, and its input ends besides. Its standard output is
one line of JSON: the facts, or an error and its kind.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import Any, Final

from ncps.codec import zstd
from ncps.errors import Corrupt, StorageFull, Unavailable
from ncps.nix.transcode import pieces_of, prove, transcode
from ncps.storage.os_errors import writing

MEMORY: Final = 1 << 30
"""Bytes of address space: of Python, one decoder, and one encoder of the highest level."""
MEMORY_OF_THREAD: Final = 256 << 20
"""The same for each thread that compresses."""
LOWEST: Final = 19
"""The niceness of that."""
_PR_SET_PDEATHSIG: Final = 1


def be_humble(nice: int) -> None:
    """Take a priority; the lowest one runs only when nobody else wants the processor."""
    with suppress(OSError):
        os.nice(nice)
    if nice >= LOWEST:
        with suppress(OSError, AttributeError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def be_bounded(threads: int) -> None:
    """Bound the memory, and end with the parent."""
    parent = os.getppid()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    most = MEMORY + threads * MEMORY_OF_THREAD
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run(compression: str, target: int, nar_size: int, level: int, threads: int) -> dict[str, Any]:
    """Transcode; return the facts. Raises Corrupt, StorageFull or Unavailable if that fails.

    :param target: descriptor of the file that is written.
    """
    with writing("the new file"), open(target, "r+b", closefd=False) as new:
        read = transcode(
            pieces_of(sys.stdin.buffer),
            compression,
            zstd.encoder(level, threads=threads),
            new.write,
            max_size=nar_size,
        )
        new.flush()
        os.fsync(target)
        new.seek(0)
        file_hash, file_size = prove(pieces_of(new), read.nar_hash)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "read_hash": str(read.file_hash),
        "nar_hash": str(read.nar_hash),
        "nar_size": read.nar_size,
        "file_hash": str(file_hash),
        "file_size": file_size,
        "cpu_s": usage.ru_utime + usage.ru_stime,
    }


def main() -> int:
    """Do it as the arguments say.

    They are: compression, descriptor of the new file, bytes of the NAR, level, threads, niceness.
    """
    compression, *numbers = sys.argv[1:]
    target, nar_size, level, threads, nice = map(int, numbers)
    be_bounded(threads)
    be_humble(nice)
    try:
        told = run(compression, target, nar_size, level, threads)
    except Corrupt as error:
        told = {"error": "corrupt", "reason": str(error)}
    except StorageFull as error:
        told = {"error": "full", "reason": str(error)}
    except Unavailable as error:
        told = {"error": "unavailable", "reason": str(error)}
    except MemoryError:
        told = {"error": "memory", "reason": "it takes more memory than it may have"}
    sys.stdout.write(json.dumps(told))
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
