"""The process that transcodes one NAR from its standard input into an open file.

It runs when no other process needs the processor, and its memory is limited. When the process that
started it ends, the kernel kills it, and its input ends as well. Its standard output is one line of
JSON: the facts, or an error and its kind.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

from ncps.codec import zstd
from ncps.errors import Corrupt, StorageFull, Unavailable
from ncps.nix.transcode import pieces_of, prove, transcode
from ncps.storage.os_errors import writing

MEMORY: Final = 1 << 30
"""Bytes of address space for Python, one decoder, and one encoder of the highest level."""
MEMORY_OF_THREAD: Final = 256 << 20
"""Further bytes for each thread that compresses."""
CREDIT_S: Final = 60.0
"""Seconds of waiting, at most, that let a process use more than its share later."""
LOWEST: Final = 19
"""The niceness of the lowest priority."""
_PR_SET_PDEATHSIG: Final = 1


def be_humble(nice: int) -> None:
    """Set the priority; the lowest one runs only when no other process needs the processor."""
    with suppress(OSError):
        os.nice(nice)
    if nice >= LOWEST:
        with suppress(OSError, AttributeError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def be_bounded(threads: int) -> None:
    """Limit the memory, and have the kernel kill this process when its parent ends."""
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


class ProcessorShare:
    """A bound for the processor time of this process, kept by sleeping.

    All threads of the process count. The bound holds for the average of the last minute, and of the
    whole time since the start. A single piece is never divided: after it the process sleeps longer.

    :param share: processors; 0 for no bound.
    :param used: seconds of a processor that this process has used since its start.
    """

    def __init__(
        self,
        share: float,
        *,
        used: Callable[[], float] = time.process_time,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._share = share
        self._used = used
        self._now = now
        self._sleep = sleep
        self._began = now()

    def keep(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Pass the pieces on, and after each one sleep until the average is low enough."""
        for piece in pieces:
            yield piece
            if self._share:
                due = self._used() / self._share - (self._now() - self._began)
                if due > 0:
                    self._sleep(due)
                else:
                    self._began += max(0.0, -due - CREDIT_S)


def run(
    compression: str, target: int, nar_size: int, level: int, threads: int, pace: ProcessorShare
) -> dict[str, Any]:
    """Transcode; return the facts. Raises Corrupt, StorageFull or Unavailable if that fails.

    :param target: descriptor of the new file.
    """
    with writing("the new file"), open(target, "r+b", closefd=False) as new:
        read = transcode(
            pace.keep(pieces_of(sys.stdin.buffer)),
            compression,
            zstd.encoder(level, threads=threads, size=nar_size),
            new.write,
            max_size=nar_size,
        )
        new.flush()
        os.fsync(target)
        new.seek(0)
        file_hash, file_size = prove(pace.keep(pieces_of(new)), read.nar_hash)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "nar_hash": str(read.nar_hash),
        "nar_size": read.nar_size,
        "file_hash": str(file_hash),
        "file_size": file_size,
        "cpu_s": usage.ru_utime + usage.ru_stime,
    }


def main() -> int:
    """Transcode as the arguments say, and print the result.

    They are: compression, descriptor of the new file, bytes of the NAR, level, threads, share of
    one processor in percent or 0, niceness.
    """
    compression, *numbers = sys.argv[1:]
    target, nar_size, level, threads, share, nice = map(int, numbers)
    be_bounded(threads)
    be_humble(nice)
    try:
        answer = run(compression, target, nar_size, level, threads, ProcessorShare(share / 100))
    except Corrupt as error:
        answer = {"error": "corrupt", "reason": str(error)}
    except StorageFull as error:
        answer = {"error": "full", "reason": str(error)}
    except Unavailable as error:
        answer = {"error": "unavailable", "reason": str(error)}
    except MemoryError:
        answer = {"error": "memory", "reason": "it needs more memory than it may use"}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
