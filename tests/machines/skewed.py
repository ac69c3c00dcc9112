"""ncps on a machine whose clock is wrong: `python -m tests.machines.skewed SECONDS serve`.

A container has the clock of its machine. So the wrong clock is inside the process: both functions
for the time of day are replaced before other modules import them.
"""

from __future__ import annotations

import datetime as module
import sys
import time
from typing import Any


def skew(seconds: float) -> None:
    """Set the clock forward for modules that import it from now on."""
    right = time.time

    class Kind(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, original)

    original = module.datetime

    class Skewed(original, metaclass=Kind):  # type: ignore[misc, valid-type]
        @classmethod
        def now(cls, tz: module.tzinfo | None = None) -> Any:
            return cls.fromtimestamp(time.time(), tz)

        @classmethod
        def utcnow(cls) -> Any:
            return cls.now(module.UTC).replace(tzinfo=None)

    time.time = lambda: right() + seconds
    module.datetime = Skewed  # type: ignore[misc]


if __name__ == "__main__":
    skew(float(sys.argv[1]))
    sys.argv[1:] = sys.argv[2:]
    from ncps.__main__ import main

    sys.exit(main())
