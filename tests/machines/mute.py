"""ncps without an answering name server: `python -m tests.machines.mute serve`.

A look-up of a name takes longer than any test; IP addresses and `localhost` need no time.
"""

from __future__ import annotations

import socket
import sys
import time
from ipaddress import ip_address
from typing import Any

_right = socket.getaddrinfo


def _hang(host: Any, *rest: Any, **more: Any) -> Any:
    try:
        ip_address(host)
    except ValueError:
        if host not in ("localhost", b"localhost"):
            time.sleep(600)
    return _right(host, *rest, **more)


if __name__ == "__main__":
    socket.getaddrinfo = _hang  # before Twisted imports it

    from ncps.__main__ import main

    sys.exit(main())
