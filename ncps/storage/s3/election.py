"""The creation of an object exactly once, also if the server ignores `If-None-Match: *`.

Without that condition a process cannot write only if no object exists, and plain reads and writes
cannot make several processes agree. So they hold an election, by the time that the server gives
each object. Every process writes a candidate, waits until all candidates with an earlier time are
visible, and lists them. The earliest time wins (of two equal times, the smaller key), so all
processes find the same winner. They copy its value to the final key. Every process reads this key
first, so there is only one election. The winning candidate stays for processes that look late.

Two conditions must hold. A candidate is visible within `SETTLE_S` of its time, with differences
between the clocks of several gateways. A listing shows each object that was written before it, as
on all current servers. AWS, Ceph, MinIO and others honour `If-None-Match` and need no election.
"""

from __future__ import annotations

from typing import Final
from uuid import uuid4

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ncps.aio.waiting import sleep
from ncps.errors import Conflict, Refused, Unavailable
from ncps.storage import keys
from ncps.storage.blobs import Blob
from ncps.storage.s3.bucket import Bucket
from ncps.storage.s3.requests import BucketRequests

SETTLE_S: Final = 10.0
_ATTEMPTS: Final = 5
_CANDIDATES: Final = ".candidates/"
_log = Logger()


async def create(clock: IReactorTime, requests: BucketRequests, key: str, value: bytes) -> bytes:
    """Create a small object unless it exists; return its bytes.

    Raises StorageFull if nothing may be written, Unavailable if it fails now.

    :param clock: for an election.
    """
    created = await requests.run(_create_blocking, requests.bucket, key, value)
    if created is not None:
        return created
    return await _elect(clock, requests, key, value)


def _create_blocking(bucket: Bucket, key: str, value: bytes) -> bytes | None:
    """Write unless the object exists, else read it; None if the server ignores the condition.

    A server may refuse two requests at the same time, so that neither succeeds. Then try again.
    """
    existing = bucket.read(key)
    if existing is not None:
        return existing
    if not _honours_conditions_blocking(bucket, keys.probe_key(uuid4().hex)):
        return None
    for _ in range(_ATTEMPTS):
        try:
            bucket.write(key, value, create=True)
        except Conflict:
            winner = bucket.read(key)
            if winner is not None:
                return winner
        else:
            return value
    raise Unavailable(f"{bucket.name(key)} cannot be created: other processes try at the same time")


def _honours_conditions_blocking(bucket: Bucket, scratch: str) -> bool:
    """Return whether the server honours `If-None-Match: *`.

    Raises StorageFull if nothing may be written, Unavailable if it fails now.

    :param scratch: a key that no other object has.
    """
    bucket.write(scratch, b"first")
    try:
        bucket.write(scratch, b"second", create=True)
    except (Conflict, Refused) as error:
        return isinstance(error, Conflict)
    finally:
        bucket.delete(scratch)
    return False


async def _elect(clock: IReactorTime, requests: BucketRequests, key: str, value: bytes) -> bytes:
    """Take part in the election; return the winner's value.

    Raises StorageFull if nothing may be written, Unavailable if it fails now.
    """
    _log.warn(
        "the S3 server does not honour If-None-Match: {key} is chosen by election, in {seconds} s",
        key=key,
        seconds=SETTLE_S,
    )
    mine = f"{key}{_CANDIDATES}{uuid4().hex}"
    await requests.run(requests.bucket.write, mine, value)
    await sleep(clock, SETTLE_S)
    return await requests.run(_count_blocking, requests.bucket, key, mine)


def _count_blocking(bucket: Bucket, key: str, mine: str) -> bytes:
    """Copy the winner to the final key unless that exists; remove `mine` if it has lost."""
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


def _candidates(bucket: Bucket, key: str) -> list[Blob]:
    """Return all candidates, the winner first."""
    found: list[Blob] = []
    after = ""
    while True:
        page, after = bucket.page(key + _CANDIDATES, after)
        found += page
        if not after:
            return sorted(found, key=lambda candidate: (candidate.modified, candidate.key))
