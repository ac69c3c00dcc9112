"""Creates an object once, by an election if the server ignores `If-None-Match: *` in a write.

Such a server has no way to write only if no object is there, and plain reads and writes alone
cannot make any number of processes agree. But the server stamps a time on each object. So every
process writes a candidate, waits until every candidate with an earlier stamp must be visible, and
lists the candidates: the earliest stamp wins (of two equal stamps, the smaller key), for every
process alike. The winner's value is then copied to its final key, which every process reads first,
so that an election is held once. The winning candidate stays for processes that look late.

This holds as long as a candidate is visible within `SETTLE_S` of its stamp, differences between the
clocks of several gateways included, and a listing shows each object that was written before it, as
those of every current server do. AWS, Ceph, MinIO and others honour the condition and need no
election.
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
    """Make a small object unless there is one; return the bytes that are there afterwards.

    Raises StorageFull if nothing may be written, Unavailable if it fails now.

    :param clock: for an election.
    """
    created = await requests.run(_create_blocking, requests.bucket, key, value)
    if created is not None:
        return created
    return await _elect(clock, requests, key, value)


def _create_blocking(bucket: Bucket, key: str, value: bytes) -> bytes | None:
    """Write unless there is an object, else read it; None if the server honours no condition.

    A server may answer that two have tried at once and neither succeeded. Then try again.
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
    """Return whether the server refuses to replace an object when it is told not to.

    Raises StorageFull if nothing may be written, Unavailable if it fails now.

    :param scratch: a key that nothing else uses.
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
    """Stand for election and return the winner's value.

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
    """Copy the winner to the final key unless it is there; remove our candidate if it has lost."""
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
    """Return every candidate, the winner first."""
    found: list[Blob] = []
    after = ""
    while True:
        page, after = bucket.page(key + _CANDIDATES, after)
        found += page
        if not after:
            return sorted(found, key=lambda candidate: (candidate.modified, candidate.key))
