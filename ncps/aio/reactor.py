"""The reactor of a process of ours: the lean one where there is epoll."""

from __future__ import annotations

import sys
from typing import Any, Final

SWITCH_S: Final = 0.001
"""Seconds that a thread computes on while the reactor's thread wants to go on. One answer takes
about eight steps after each of which it has to wait so long, so Python's 5 ms make 40 of them."""


def chosen_reactor() -> Any:
    """Return the reactor of this process; the lean one, unless another was chosen before.

    Threads that compute hand over to it within `SWITCH_S`.
    """
    sys.setswitchinterval(SWITCH_S)
    if sys.platform == "linux" and "twisted.internet.reactor" not in sys.modules:
        from ncps.aio.epoll import install  # noqa: PLC0415 - epoll, which others do not have

        install()
    from twisted.internet import reactor  # noqa: PLC0415 - only here, so that it can be chosen

    return reactor
