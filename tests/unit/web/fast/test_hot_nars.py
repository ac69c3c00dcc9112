"""Stored NARs whose answers are ready: bounded, and dropped on request."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ncps.nix.narurl import NarKey
from ncps.web.fast.hot_nars import HotNar, HotNars


def key(number: int, extension: str = "xz") -> NarKey:
    return NarKey(f"{number:052d}", extension)


def answer(of: NarKey) -> HotNar:
    return HotNar(
        key=of,
        path=f"/{of.url}",
        head=b"X-Cache: hit\r\n\r\n",
        size=10,
        reopen=lambda: None,
        cache="hit",
        upstream="up",
        go_on=lambda request, sent: None,
    )


class HotNarsTests(SynchronousTestCase):
    def test_found_by_the_first_bytes_of_a_request(self) -> None:
        """Exact method and target."""
        hot = HotNars(10_000)
        one = answer(key(1))
        hot.put(one)
        self.assertIs(one, hot.find(b"GET /nar/%052d.nar.xz" % 1))
        for other in (b"HEAD /nar/%052d.nar.xz", b"GET /nar/%052d.nar.xz?", b"GET /nar/%052d.nar"):
            self.assertIsNone(hot.find(other % 1))

    def test_bounded_in_bytes_oldest_first(self) -> None:
        """The memory has a limit for any number of NARs."""
        hot = HotNars(20_000)
        for number in range(1000):
            hot.put(answer(key(number)))
        self.assertLess(len(hot), 10)
        self.assertIsNotNone(hot.find(b"GET /nar/%052d.nar.xz" % 999))

    def test_dropped_after_a_notice(self) -> None:
        """One NAR, or all NARs."""
        hot = HotNars(20_000)
        for number in range(3):
            hot.put(answer(key(number)))
        hot.drop(key(1))
        hot.drop(key(1, ""))
        self.assertEqual(2, len(hot))
        hot.drop(None)
        self.assertEqual(0, len(hot))

    def test_nothing_is_held_when_switched_off_or_closed(self) -> None:
        """Without memory, and during a stop, the page answers."""
        hot = HotNars(0)
        hot.put(answer(key(1)))
        self.assertEqual(0, len(hot))
        hot = HotNars(10_000)
        hot.put(answer(key(1)))
        hot.close()
        hot.put(answer(key(2)))
        self.assertEqual(0, len(hot))
