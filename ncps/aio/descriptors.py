"""The number of descriptors that this process may have, and of connections that these allow.

systemd and containers start a process with a soft limit of 1,024, which is for programs that use
`select()`; the hard limit is what the machine grants. A process that runs out of descriptors fails
anywhere, so connections of clients are bounded by what is left beside everything else.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Final

MOST: Final = 1024 * 1024
"""No process needs more than this, and some kernels have no other bound."""
OWN: Final = 128
"""Of the process itself: database, log, listening sockets, threads, files read in passing."""
LEAST: Final = 16
"""Connections of clients that are always let in."""
EACH: Final = 2
"""Beside its connection an answer may have a file, open twice."""


def raise_limit(
    get: Callable[[int], tuple[int, int]] = resource.getrlimit,
    put: Callable[[int, tuple[int, int]], None] = resource.setrlimit,
) -> int:
    """Raise the soft limit to the hard one; return how many descriptors there may be."""
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
    """Return how many connections of clients fit, `connections` at most.

    :param limit: descriptors of this process.
    :param requests: answers under way, at most.
    :param others: descriptors of downloads and of connections to upstreams and databases, at most.
    """
    room = limit - OWN - others
    all_answer = room // (1 + EACH)
    fits = all_answer if all_answer <= requests else room - EACH * requests
    return min(connections, max(LEAST, fits))
