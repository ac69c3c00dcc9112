"""The access log: a line for each request that has ended, many written at a time.

To `twisted.logger` a batch is one event. Observers of ours write it as as many lines as if each
request had been an event of its own, with a template and fields; any other observer prints the
messages, one to a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import time

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ncps.observe.log_lines import Batch, harmless, human_head, quoted, stamp
from ncps.web.fast.ledger import Access

_log = Logger()


class AccessLog:
    """Logs batches.

    :param clock: that the accesses were timed by.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock

    def __call__(self, accesses: Sequence[Access]) -> None:
        """Log requests in the order they ended."""
        offset = time() - self._clock.seconds()
        _log.info("{log_batch}", log_batch=Requests(accesses, offset))


@frozen
class Requests(Batch):
    """Requests, as the lines of a log.

    :param offset: what makes seconds since the epoch of a clock's time.
    """

    accesses: Sequence[Access]
    offset: float

    def __str__(self) -> str:
        return "\n".join(map(_for_people, self.accesses))

    def human_lines(self, prefix: str) -> str:
        """See `log_lines.Batch`."""
        offset = self.offset
        return "".join(
            f"{prefix}{human_head(access.ended + offset, 'info')} {harmless(_for_people(access))}\n"
            for access in self.accesses
        )

    def json_lines(self, last: str = "}") -> str:
        """See `log_lines.Batch`."""
        end = f"{last}\n"
        return "".join([_json_line(access, self.offset, end) for access in self.accesses])


def _json_line(access: Access, offset: float, end: str) -> str:
    ended, _, method, path, status, size, elapsed, complete, cache, digest, upstream, client, _ = (
        access
    )
    verb, target, took = quoted(method), quoted(path), repr(round(elapsed * 1000, 1))
    # In the message the quotes between the method and the path are cut out, and those at the end.
    message = f"{verb[:-1]} {target[1:-1]} {status} {size} bytes in {took} ms"
    if cache:
        message = f"{message} {cache}"
    return (
        f'{{"time": "{stamp(ended + offset)}", "level": "info", "message": {message}",'
        f' "logger": "{_log.namespace}", "method": {verb}, "path": {target}, "status": {status},'
        f' "bytes": {size}, "duration_ms": {took}, "complete": {"true" if complete else "false"},'
        f' "cache": "{cache}", "hash": {quoted(digest)}, "upstream": {quoted(upstream)},'
        f' "client": {quoted(client)}{end}'
    )


def _for_people(access: Access) -> str:
    """The message, and what else is in fields of JSON: who asked, and which upstream had it."""
    took = round(access.elapsed * 1000, 1)
    cache = f" {access.cache}" if access.cache else ""
    upstream = f", by {access.upstream}" if access.upstream else ""
    return (
        f"{access.method} {access.path} {access.status} {access.size} bytes in {took} ms{cache}"
        f" from {access.client}{upstream}"
    )
