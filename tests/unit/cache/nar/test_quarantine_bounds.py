"""Bounds of the quarantine: the files that do not fit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ncps.cache.nar.quarantine import (
    QuarantineBounds,
    excess,
)
from ncps.ports import SetAside
from tests.contract.samples import key_of

HOUR = 3600.0
NOW = datetime(2026, 6, 10, tzinfo=UTC)
ANY = QuarantineBounds(count=1000, size=10**9, age_s=HOUR)


def aside(number: int, size: int = 10, ago_s: float = 0.0) -> SetAside:
    return SetAside(
        key=key_of(number),
        mark=f"{number}",
        size=size,
        since=NOW - timedelta(seconds=ago_s),
    )


def going(
    *found: SetAside, count: int = 1000, size: int = 10**9, age_s: float = HOUR
) -> list[tuple[str, str]]:
    """Marks of the files to discard, each with its bound."""
    bounds = QuarantineBounds(count=count, size=size, age_s=age_s)
    before = NOW - timedelta(seconds=age_s)
    return [(each.mark, bound) for each, bound in excess(found, bounds, before)]


class ExcessTests(SynchronousTestCase):
    """Files to discard."""

    def test_nothing_goes_that_is_within_the_bounds(self) -> None:
        """Files that reach a bound exactly, or are just younger than it, are within the bound."""
        found = [aside(1, 5, ago_s=HOUR - 1), aside(2, 5)]
        self.assertEqual(going(*found, count=2, size=10), [])
        self.assertEqual(going(count=0, size=0, age_s=0), [])

    def test_the_oldest_go_first_for_the_count(self) -> None:
        """The order in which they are found does not matter."""
        found = [aside(2, ago_s=20), aside(4, ago_s=40), aside(1, ago_s=10), aside(3, ago_s=30)]
        self.assertEqual(going(*found, count=2), [("4", "count"), ("3", "count")])

    def test_the_oldest_go_first_for_the_size(self) -> None:
        """A small file that would fit is discarded, too, if a younger one before it did not fit."""
        found = [aside(1, 6, ago_s=10), aside(2, 6, ago_s=20), aside(3, 1, ago_s=30)]
        self.assertEqual(going(*found, size=10), [("3", "size"), ("2", "size")])

    def test_too_old_files_go(self) -> None:
        """A file is discarded when it is as old as the bound."""
        found = [aside(1, ago_s=HOUR - 1), aside(2, ago_s=HOUR), aside(3, ago_s=9 * HOUR)]
        self.assertEqual(going(*found), [("3", "age"), ("2", "age")])

    def test_one_that_is_too_large_alone_drives_out_no_other(self) -> None:
        """Only the file that is too large is discarded."""
        found = [aside(1, 11), aside(2, 5, ago_s=10), aside(3, 5, ago_s=20)]
        self.assertEqual(going(*found, size=10), [("1", "size")])

    def test_nought_of_anything_keeps_nothing(self) -> None:
        """Not even an empty file is kept."""
        found = [aside(1, 0), aside(2, 5)]
        for name in ("count", "size", "age"):
            bounds: dict[str, Any] = {"age_s" if name == "age" else name: 0}
            self.assertEqual(going(*found, **bounds), [("1", name), ("2", name)])

    @given(
        st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2 * int(HOUR))), max_size=30),
        st.integers(0, 10),
        st.integers(0, 100),
    )
    def test_kept_files_are_within_the_bounds(
        self, found: list[tuple[int, int]], count: int, size: int
    ) -> None:
        """No discarded file is younger than a kept one, except a file that is too large alone."""
        files = [aside(n, size, ago_s) for n, (size, ago_s) in enumerate(found)]
        gone = {mark for mark, _ in going(*files, count=count, size=size)}
        stay = [each for each in files if each.mark not in gone]
        self.assertLessEqual(len(stay), count)
        self.assertLessEqual(sum(each.size for each in stay), size)
        self.assertTrue(all(NOW - each.since < timedelta(seconds=HOUR) for each in stay))
        fitting = [each for each in files if each.mark in gone and each.size <= size]
        for each in stay:
            self.assertTrue(all(other.since <= each.since for other in fitting))
