"""Settings of several processes on one machine (D10)."""

from __future__ import annotations

from ncps.settings.setting import Setting
from ncps.settings.values import integer

ROWS = (
    Setting(
        flag="workers",
        environment="SERVER_WORKERS",
        key="server.workers",
        kind=integer(at_least=1, at_most=256),
        default="1",
        group="Server",
        help="Processes that serve, on one port and one store; with more than one, another process "
        "looks after them. More than there are processor cores is of no use. What the other limits "
        "grant to all clients together is divided among them. Linux only, and not under twistd.",
    ),
)
