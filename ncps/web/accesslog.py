"""The access log: a line for each request that has ended, written in batches.

For `twisted.logger` a batch is one event. Our observers write a line for each request, as if it
were an event of its own with a template and fields. Any other observer prints each message in a
line.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import time

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ncps.observe.log_lines import Batch, Paint, harmless, human_head, plain, quoted, stamp
from ncps.web.fast.ledger import Access

_log = Logger()


class AccessLog:
    """A logger of batches of accesses.

    :param clock: the clock that has timed the accesses.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock

    def __call__(self, accesses: Sequence[Access]) -> None:
        """Log requests in the order in which they ended."""
        offset = time() - self._clock.seconds()
        _log.info("{log_batch}", log_batch=Requests(accesses, offset))


@frozen
class Requests(Batch):
    """Requests as the lines of a log.

    :param offset: seconds to add to the clock's time to get seconds since the epoch.
    """

    accesses: Sequence[Access]
    offset: float

    def __str__(self) -> str:
        return "\n".join([_for_people(access, plain) for access in self.accesses])

    def human_lines(self, prefix: str, paint: Paint = plain) -> str:
        """See `log_lines.Batch`."""
        offset = self.offset
        return "".join(
            [
                f"{prefix}{human_head(access.ended + offset, 'info')}"
                f" {_for_people(access, paint)}\n"
                for access in self.accesses
            ]
        )

    def json_lines(self, last: str = "}") -> str:
        """See `log_lines.Batch`."""
        end = f"{last}\n"
        return "".join([_json_line(access, self.offset, end) for access in self.accesses])


def _json_line(access: Access, offset: float, end: str) -> str:
    """Write JSON by hand: an encoder takes twice as long, and there is a line for each request."""
    status, size = access.status, access.size
    verb, target = quoted(access.method), quoted(access.path)
    took = repr(round(access.elapsed * 1000, 1))
    complete = "true" if access.is_complete else "false"
    # The message has no quotes between method and path, and none at its end.
    message = f"{verb[:-1]} {target[1:-1]} {status} {size} bytes in {took} ms"
    if access.cache:
        message = f"{message} {access.cache}"
    if access.trace_id:
        end = f', "trace_id": {quoted(access.trace_id)}, "span_id": {quoted(access.span_id)}{end}'
    if access.user:
        end = f', "user": {quoted(access.user)}{end}'
    return (
        f'{{"time": "{stamp(access.ended + offset)}", "level": "info", "message": {message}",'
        f' "logger": "{_log.namespace}", "method": {verb}, "path": {target}, "status": {status},'
        f' "bytes": {size}, "duration_ms": {took}, "complete": {complete},'
        f' "cache": "{access.cache}", "hash": {quoted(access.digest)},'
        f' "upstream": {quoted(access.upstream)}, "client": {quoted(access.client)}{end}'
    )


def _for_people(access: Access, paint: Paint) -> str:
    """Return the message with further fields of the JSON line: client, upstream, hash."""
    took = round(access.elapsed * 1000, 1)
    cache = f" {access.cache}" if access.cache else ""
    user = f" as {access.user}" if access.user else ""
    upstream = f", by {access.upstream}" if access.upstream else ""
    what = f", hash {access.digest}" if access.digest not in access.path else ""
    what += f" trace={access.trace_id}" if access.trace_id else ""
    asked, status = f"{access.method} {access.path}", access.status
    rest = f"{access.size} bytes in {took} ms{cache} from {access.client}{user}{upstream}{what}"
    if status < 400 or paint is plain:
        return harmless(f"{asked} {status} {rest}").rstrip()
    shown = paint(str(status), "5xx" if status >= 500 else "4xx")
    return f"{harmless(asked)} {shown} {harmless(rest)}".rstrip()
