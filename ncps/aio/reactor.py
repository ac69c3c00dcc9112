"""The reactor of a process of ncps: the lean one where there is epoll."""

from __future__ import annotations

import sys
from typing import Any, Final

SWITCH_S: Final = 0.001
"""Seconds that another thread may compute while the reactor's thread waits for the interpreter.

An answer has about eight such waits, so with Python's default of 5 ms they would take 40 ms.
"""


def chosen_reactor() -> Any:
    """Return the reactor of this process: the lean one, unless another is installed already.

    Also have threads that compute yield to it within `SWITCH_S`.
    """
    sys.setswitchinterval(SWITCH_S)
    if sys.platform == "linux" and "twisted.internet.reactor" not in sys.modules:
        from ncps.aio.epoll import install  # noqa: PLC0415 - epoll, which others do not have

        install()
    from twisted.internet import reactor  # noqa: PLC0415 - only here, so that it can be chosen

    return reactor
