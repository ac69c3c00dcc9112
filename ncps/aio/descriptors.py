"""The number of descriptors that this process may have, and of connections that they allow.

systemd and containers start a process with a soft limit of 1,024, for programs that use `select()`.
The process may raise it to the hard limit. A process without free descriptors fails anywhere, so
the connections of clients are limited to the number that everything else leaves.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Final

MOST: Final = 1024 * 1024
"""No process needs more descriptors than this, and some kernels have no other limit."""
OWN: Final = 128
"""Descriptors of the process itself: database, log, listening sockets, threads, short reads."""
LEAST: Final = 16
"""Connections of clients that are always allowed."""
EACH: Final = 2
"""Descriptors of an answer beside its connection: a file, open twice."""


def raise_limit(
    get: Callable[[int], tuple[int, int]] = resource.getrlimit,
    put: Callable[[int, tuple[int, int]], None] = resource.setrlimit,
) -> int:
    """Raise the soft limit to the hard one; return how many descriptors the process may have."""
    soft, hard = get(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MOST if soft == resource.RLIM_INFINITY else soft
    try:
        put(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        return soft
    return wanted


def fitting(limit: int, *, connections: int, requests: int, others: int) -> int:
    """Return how many connections of clients the limit allows, `connections` at most.

    :param limit: descriptors of this process.
    :param requests: answers at the same time, at most.
    :param others: descriptors of downloads and of connections to upstreams and databases, at most.
    """
    room = limit - OWN - others
    all_answer = room // (1 + EACH)
    fits = all_answer if all_answer <= requests else room - EACH * requests
    return min(connections, max(LEAST, fits))
