"""ncps, which notes how long each turn of its reactor computes.

    python -m tests.machines.turns FILE ARGUMENTS-OF-NCPS...

The file has the longest turn since it was last emptied, in seconds of processor time of the
reactor's thread: how busy the machine is has no say.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any


def longest_turn_s(file: Path) -> float:
    """Read the longest turn since the last call, and begin anew."""
    text = file.read_text() if file.exists() else ""
    file.unlink(missing_ok=True)
    return float(text or 0.0)


class _Watched:
    """The poller of the reactor, which is asked once a turn."""

    def __init__(self, poller: Any, file: Path) -> None:
        self._poller = poller
        self._file = file
        self._began = time.thread_time()
        self._longest = 0.0

    def poll(self, *how: Any) -> Any:
        took = time.thread_time() - self._began
        if not self._file.exists():
            self._longest = 0.0
        if took > self._longest:
            self._longest = took
            self._file.write_text(str(took))
        found = self._poller.poll(*how)
        self._began = time.thread_time()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)


def _watch(file: Path) -> None:
    from ncps.aio.reactor import chosen_reactor

    reactor = chosen_reactor()
    reactor._poller = _Watched(reactor._poller, file)


if __name__ == "__main__":
    _watch(Path(sys.argv.pop(1)))
    from ncps.__main__ import main

    sys.exit(main())
