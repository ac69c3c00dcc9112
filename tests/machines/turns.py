"""ncps that records the CPU time of each turn of its reactor.

    python -m tests.machines.turns FILE ARGUMENTS-OF-NCPS...

FILE has the turns since it was last removed, by CPU time of the reactor's thread, which does not
depend on the load of the machine. FILE.stacks has the stacks of the first turns that computed for
more than `LONG_S`, as another thread saw them.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

VARIABLE = "NCPS_TURNS"
LONG_S = 0.02
LOOK_S = 0.005
MOST_STACKS = 200
WRITE_S = 0.25
"""Seconds between two writes of the file; a new longest turn is written immediately."""
STEP_S = 0.0005
"""Width of a class of turns."""


@frozen
class Turns:
    """Turns of the reactor by their CPU time.

    :param longest_s: seconds.
    :param classes: number of turns in each class, by multiples of `STEP_S`.
    """

    longest_s: float = 0.0
    classes: Mapping[int, int] = field(factory=dict)

    def quantile_s(self, part: float) -> float:
        """Return the seconds that this share of all turns did not exceed, rounded up to a class."""
        left = part * sum(self.classes.values())
        for number in sorted(self.classes):
            left -= self.classes[number]
            if left <= 0:
                return min(self.longest_s, (number + 1) * STEP_S)
        return self.longest_s


def take_turns(file: Path) -> Turns:
    """Return the turns since the last call, and start a new count."""
    text = file.read_text() if file.exists() else ""
    file.unlink(missing_ok=True)
    if not text:
        return Turns()
    found = json.loads(text)
    return Turns(found["longest"], {int(key): count for key, count in found["classes"].items()})


def longest_turn_s(file: Path) -> float:
    """Return the longest turn since the last call, and start a new count."""
    return take_turns(file).longest_s


class _Watched:
    """The poller of the reactor, which polls once in each turn."""

    def __init__(self, poller: Any, file: Path) -> None:
        self._poller = poller
        self._file = file
        self._longest = 0.0
        self._classes: Counter[int] = Counter()
        self._written = 0.0
        self._number = 0
        self.began = time.thread_time()

    @property
    def number(self) -> int:
        """Number of the current turn; 0 between two turns."""
        return self._number if self.began else 0

    def poll(self, *how: Any) -> Any:
        took = time.thread_time() - self.began
        self.began = 0.0
        if not self._file.exists():
            self._longest = 0.0
            self._classes.clear()
        self._classes[int(took / STEP_S)] += 1
        now = time.monotonic()
        if took > self._longest or now - self._written > WRITE_S:
            self._longest, self._written = max(took, self._longest), now
            unfinished = self._file.with_suffix(".new")
            unfinished.write_text(json.dumps({"longest": self._longest, "classes": self._classes}))
            unfinished.rename(self._file)
        found = self._poller.poll(*how)
        self._number += 1
        self.began = time.thread_time()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)


class _Looker(threading.Thread):
    """Writes the stacks of long turns."""

    def __init__(self, watched: _Watched, file: Path) -> None:
        super().__init__(daemon=True)
        self._watched = watched
        self._file = file
        self._thread = threading.get_ident()
        self._clock = time.pthread_getcpuclockid(self._thread)
        self._seen = 0
        self._count = 0

    def run(self) -> None:
        """See `threading.Thread`."""
        while self._count < MOST_STACKS:
            time.sleep(LOOK_S)
            began, number = self._watched.began, self._watched.number
            if not began or number == self._seen:
                continue
            spent = time.clock_gettime(self._clock) - began
            frame = sys._current_frames().get(self._thread)
            if spent > LONG_S and frame is not None and self._watched.number == number:
                self._seen = number
                self._count += 1
                with self._file.open("a") as out:
                    lines = "".join(traceback.format_stack(frame))
                    out.write(f"turn {number}, after {spent * 1000:.1f} ms\n{lines}\n")


def _watch(file: Path) -> None:
    from ncps.aio.reactor import chosen_reactor

    reactor = chosen_reactor()
    reactor._poller = watched = _Watched(reactor._poller, file)
    _Looker(watched, Path(f"{file}.stacks")).start()


def main() -> int:
    """Run ncps; the variable `VARIABLE` names the file, also for a forked process."""
    _watch(Path(os.environ[VARIABLE]))
    from ncps.__main__ import main as serve

    return serve()


if __name__ == "__main__":
    os.environ[VARIABLE] = sys.argv.pop(1)
    sys.exit(main())
