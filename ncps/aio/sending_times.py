"""Sending times: how long a TCP connection has been sending, and waiting for its reader."""

from __future__ import annotations

import socket
import struct
from typing import Any, Final

_TIMES: Final = struct.Struct("168x2Q")
"""`tcpi_busy_time` and `tcpi_rwnd_limited` of `struct tcp_info` (Linux 4.10), microseconds."""


def sending_times(transport: Any) -> tuple[float, float] | None:
    """Return the seconds in which a connection had bytes to send, and those of a full reader.

    Both count from the start of the connection, over all its answers.
    A full reader has read so little that its window was closed: it is slower than the network.
    None for a transport that is no TCP socket, and for systems that do not tell this.
    """
    below = getattr(transport, "transport", transport)  # that of TLS
    try:
        found = below.getHandle().getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TIMES.size)
        busy, full = _TIMES.unpack(found)
    except (AttributeError, OSError, struct.error):
        return None
    return busy / 1e6, full / 1e6
