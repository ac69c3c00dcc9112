"""A client that fetches many cold paths on several connections, in a process of its own.

    python -m benchmarks.cold_client PORT CONNECTIONS < PAIRS

A pair is a line: the path of a narinfo, and the path of its NAR. Each connection takes the next
pair once it has a whole NAR, so a fast connection fetches more. Prints one line of JSON.
"""

from __future__ import annotations

import json
import select
import sys
import time
from collections.abc import Iterator

from benchmarks.sink import Fetch


def fetch_all(port: int, connections: int, pairs: Iterator[tuple[str, str]]) -> dict[str, float]:
    """Fetch all pairs; `p50_ms` and `p99_ms` are from the first request to the last byte."""
    poll = select.epoll()
    fetches: dict[int, Fetch] = {}
    began: dict[int, float] = {}
    following: dict[int, str] = {}
    times: list[float] = []

    def begin(fetch: Fetch) -> None:
        number = fetch.socket.fileno()
        pair = next(pairs, None)
        if pair is None:
            poll.unregister(number)
            del fetches[number]
            fetch.socket.close()
            return
        narinfo, following[number] = pair
        began[number] = time.monotonic()
        fetch.ask(narinfo)

    for _ in range(connections):
        fetch = Fetch(port, "")
        fetches[fetch.socket.fileno()] = fetch
        poll.register(fetch.socket, select.EPOLLIN)
    start = time.monotonic()
    for fetch in list(fetches.values()):
        begin(fetch)
    while fetches:
        for number, _ in poll.poll(60):
            fetch = fetches[number]
            if not fetch.take():
                continue
            nar = following.pop(number, "")
            if nar:
                fetch.ask(nar)
            else:
                times.append(time.monotonic() - began[number])
                begin(fetch)
    seconds = time.monotonic() - start
    times.sort()
    return {
        "seconds": seconds,
        "paths": len(times),
        "p50_ms": times[len(times) // 2] * 1000,
        "p99_ms": times[int(len(times) * 0.99)] * 1000,
    }


if __name__ == "__main__":
    lines = [line.split() for line in sys.stdin]
    known = iter([(narinfo, nar) for narinfo, nar in lines])
    print(json.dumps(fetch_all(int(sys.argv[1]), int(sys.argv[2]), known)))
