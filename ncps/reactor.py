"""Which reactor runs a process of ours: the lean one where there is epoll."""

from __future__ import annotations

import sys
from typing import Any


def chosen_reactor() -> Any:
    """Return the reactor of this process; the lean one, unless another was chosen before."""
    if sys.platform == "linux" and "twisted.internet.reactor" not in sys.modules:
        from ncps.epoll import install  # noqa: PLC0415 - epoll, which others do not have

        install()
    from twisted.internet import reactor  # noqa: PLC0415 - only here, so that it can be chosen

    return reactor
