"""Rules: what is fetched ahead, and how much of it."""

from __future__ import annotations

from typing import Final

from attrs import frozen

OFF: Final = "off"
NARINFO: Final = "narinfo"
SMALL: Final = "small"
ALL: Final = "all"


@frozen(kw_only=True)
class AheadRules:
    """The decisions of an operator about what is fetched ahead.

    :param policy: `OFF`, `NARINFO`, `SMALL` or `ALL`.
    :param small_size: bytes of a NAR that `SMALL` fetches, at most.
    :param at_once: narinfos that are fetched at once, at most, and NARs likewise.
    :param max_queue: paths that wait, at most, and NARs likewise.
    :param questions: narinfos that are asked for in a minute, at most.
    :param size: bytes of NARs that are fetched in a minute, at most.
    :param most_stored: bytes in the store above which no NAR is fetched; 0: any number.
    """

    policy: str = OFF
    small_size: int = 0
    at_once: int = 16
    max_queue: int = 10_000
    questions: int = 20_000
    size: int = 512 * 1024 * 1024
    most_stored: int = 0

    def wants_nar(self, size: int | None) -> bool:
        """Whether a NAR of this size, if known, is fetched ahead."""
        if size is None:
            return False
        return self.policy == ALL or (self.policy == SMALL and size <= self.small_size)


NOTHING_AHEAD: Final = AheadRules()
