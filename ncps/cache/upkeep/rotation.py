"""Rotation: gives the store another key; the present key also signs for a time.

The list of former keys is written before the new key. So the next rotation finishes one that was
interrupted in between, and each process that finds the new key also finds its predecessor. The
successor of a key is created exactly once, so that replicas that rotate at the same time agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from attrs import frozen

from ncps.cache.upkeep.identity import FORMER, NAME, former_keys, parse_key
from ncps.errors import Refused
from ncps.nix.keyring import MAX_FORMER, FormerKey, next_name, render_former
from ncps.nix.keys import PublicKey, SecretKey
from ncps.ports import ConfigStore

SOON: Final = timedelta(days=1)
"""A second rotation within this time is refused as a mistake, unless the operator repeats it."""


@frozen(kw_only=True)
class Rotation:
    """The wishes of the operator about a rotation.

    :param successor: the key that follows; None for a new one.
    :param overlap: the time for which the present key still signs.
    :param again: whether to rotate although the last rotation was less than `SOON` ago.
    """

    successor: SecretKey | None = None
    overlap: timedelta = timedelta(days=30)
    again: bool = False


async def rotate(config: ConfigStore, wish: Rotation, now: datetime) -> tuple[PublicKey, FormerKey]:
    """Replace the store's key; return the new one and the former one.

    Raises Refused if there is no key to replace or the wish is invalid, Corrupt if the keys in the
    store are damaged, StorageFull or Unavailable if they cannot be written. In the last two cases,
    the same call again finishes the rotation.
    """
    kept = await config.get(NAME)
    if kept is None:
        raise Refused("the store keeps no key yet: `ncps keys generate` or the first start make it")
    present = parse_key(kept)
    if wish.successor is not None and wish.successor.public == present.public:
        raise Refused(f"the store signs with {present.public} already")
    former = [each for each in await former_keys(config) if each.public != str(present.public)]
    _check_last(former, wish, now)
    remembered = _remembered(former, now)
    new = await _successor(config, present, wish.successor, former)
    rest = [each for each in remembered if each.public != str(new.public)]
    replaced = FormerKey(key=present, since=now, until=now + wish.overlap)
    await config.replace(FORMER, render_former([*rest, replaced]))
    if await config.get(NAME) != kept:
        raise Refused("another rotation has just ended: `ncps keys show` says which key signs")
    await config.replace(NAME, new.export().encode())
    return new.public, replaced


def _check_last(former: list[FormerKey], wish: Rotation, now: datetime) -> None:
    last = max((each.since for each in former), default=None)
    if last is not None and now - last < SOON and not wish.again:
        raise Refused(
            f"the key was rotated at {last:%Y-%m-%d %H:%M} UTC, less than a day ago: give --again"
            " to rotate once more"
        )


async def _successor(
    config: ConfigStore, present: SecretKey, wished: SecretKey | None, former: list[FormerKey]
) -> SecretKey:
    """Return the key that follows the present one, the same for all concurrent callers."""
    wanted = wished or SecretKey.generate(next_name(present.name))
    known = {each.public for each in former}
    for name in _names(present):
        found = parse_key(await config.create(name, wanted.export().encode()))
        if wished is not None and found.public != wished.public:
            if str(found.public) in known:
                continue  # the name is from an earlier rotation of the same key
            raise Refused(
                f"a rotation to {found.public} has begun before: finish it by `ncps keys rotate`,"
                " without --to"
            )
        if wished is not None or str(found.public) not in known:
            return found
    raise Refused(f"{present.public} was replaced too often: make another key by --to")


def _names(present: SecretKey) -> Iterator[str]:
    digest = hashlib.sha256(str(present.public).encode()).hexdigest()[:16]
    for number in range(1, MAX_FORMER + 2):
        yield f"{NAME}.after-{digest}-{number}"


def _remembered(former: list[FormerKey], now: datetime) -> list[FormerKey]:
    """Return the former keys to keep, with room for one more. Raises Refused if all still sign."""
    if len(former) < MAX_FORMER:
        return former
    ended = [each for each in former if each.until <= now]
    if not ended:
        raise Refused(
            f"{MAX_FORMER} former keys still sign: wait until the first of them ends"
            f" ({min(each.until for each in former):%Y-%m-%d %H:%M} UTC)"
        )
    oldest = min(ended, key=lambda each: each.until)
    return [each for each in former if each is not oldest]
