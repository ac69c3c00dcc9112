"""Who comes first, on a server that does not honour `If-None-Match: *` when writing.

Such a server gives no way to write only if nothing is there, and from plain reads and writes alone
no protocol can make any number of processes agree. What it does give is the time that it stamps on
each object. So everybody writes a candidate, waits until every candidate with an earlier stamp
must have become visible, and lists them: the earliest stamp wins (the smaller key, where two are
equal), whoever looks. The winner's value is then copied to its final key, which everybody reads
first, so that an election is held once. The winning candidate stays for those who look late.

This holds as long as a candidate is visible within `SETTLE_S` of its stamp, differences between the
clocks of several gateways included, and listings show what was written before them, as those of
every current server do. AWS, Ceph, MinIO and others honour the condition and need none of this.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final
from uuid import uuid4

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ncps.errors import Conflict, Refused, Unavailable
from ncps.storage.s3.bucket import Bucket, Listed

SETTLE_S: Final = 10.0
_CANDIDATES: Final = ".candidates/"
_log = Logger()


def honours_conditions_blocking(bucket: Bucket, scratch: str) -> bool:
    """Whether the server refuses to replace an object where it was told not to.

    StorageFull, Unavailable.

    :param scratch: a key nobody else uses.
    """
    bucket.write(scratch, b"first")
    try:
        bucket.write(scratch, b"second", create=True)
    except (Conflict, Refused) as error:
        return isinstance(error, Conflict)
    finally:
        bucket.delete(scratch)
    return False


async def elect(
    clock: IReactorTime,
    run: Callable[..., Awaitable[Any]],
    bucket: Bucket,
    key: str,
    value: bytes,
) -> bytes:
    """Stand for election and return who has won; see the module. StorageFull, Unavailable.

    :param run: calls what blocks in a thread.
    """
    _log.warn(
        "the S3 server does not honour If-None-Match: {key} is chosen by election, in {seconds} s",
        key=key,
        seconds=SETTLE_S,
    )
    mine = f"{key}{_CANDIDATES}{uuid4().hex}"
    await run(bucket.write, mine, value)
    settled: Deferred[None] = Deferred()
    timer = clock.callLater(SETTLE_S, settled.callback, None)
    try:
        await settled
    finally:
        if timer.active():
            timer.cancel()
    winner: bytes = await run(_count_blocking, bucket, key, mine)
    return winner


def _count_blocking(bucket: Bucket, key: str, mine: str) -> bytes:
    """Copy the winner to the final key, unless that was done; take a losing candidate back."""
    candidates = _candidates(bucket, key)
    value = bucket.read(key)
    if value is None:
        value = bucket.read(candidates[0].key) if candidates else None
        if value is None:
            raise Unavailable(f"{bucket.name(key)}: the candidates disappear")
        bucket.write(key, value)
    if candidates and candidates[0].key != mine:
        bucket.delete(mine)
    return value


def _candidates(bucket: Bucket, key: str) -> list[Listed]:
    """Every candidate, the winner first."""
    found: list[Listed] = []
    after = ""
    while True:
        page, after = bucket.page(key + _CANDIDATES, after)
        found += page
        if not after:
            return sorted(found, key=lambda candidate: (candidate.modified, candidate.key))
