"""Rules: which narinfos and NARs are fetched ahead, and how many of them."""

from __future__ import annotations

from typing import Final

from attrs import frozen

OFF: Final = "off"
NARINFO: Final = "narinfo"
SMALL: Final = "small"
ALL: Final = "all"


@frozen(kw_only=True)
class AheadRules:
    """The decisions of an operator about fetching ahead.

    :param policy: `OFF`, `NARINFO`, `SMALL` or `ALL`.
    :param small_size: with `SMALL`, the largest NAR that is fetched, in bytes.
    :param at_once: narinfos that are fetched at the same time, at most; the same bound for NARs.
    :param max_queue: paths that wait, at most; the same bound for NARs.
    :param questions: narinfos that are asked for in a minute, at most.
    :param size: bytes of NARs that are fetched in a minute, at most.
    :param most_stored: no NAR is fetched while the store has more bytes than this; 0: no limit.
    """

    policy: str = OFF
    small_size: int = 0
    at_once: int = 16
    max_queue: int = 10_000
    questions: int = 20_000
    size: int = 512 * 1024 * 1024
    most_stored: int = 0

    def wants_nar(self, size: int | None) -> bool:
        """Return whether a NAR of this size is fetched ahead; not if its size is unknown."""
        if size is None:
            return False
        return self.policy == ALL or (self.policy == SMALL and size <= self.small_size)


NOTHING_AHEAD: Final = AheadRules()
