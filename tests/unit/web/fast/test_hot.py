"""Narinfos whose answers are ready: bounded, and dropped on request."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ncps.web.fast.hot import HotNarInfo, HotNarInfos


def answer(digest: str) -> HotNarInfo:
    return HotNarInfo(
        digest=digest,
        path=f"/{digest}.narinfo",
        route="/{hash}.narinfo",
        head=b"X-Cache: hit\r\n\r\n",
        text=b"StorePath: x\n",
        may_repeat=lambda: True,
        cache="hit",
        upstream="up",
    )


class HotNarInfosTests(SynchronousTestCase):
    def test_found_by_the_first_bytes_of_a_request(self) -> None:
        """Exact method and target."""
        hot = HotNarInfos(10_000)
        one = answer("0" * 32)
        hot.put(one)
        self.assertIs(hot.find(b"GET /%b.narinfo" % (b"0" * 32)), one)
        for other in (b"HEAD /%b.narinfo", b"GET /%b.narinfo?", b"GET  /%b.narinfo"):
            self.assertIsNone(hot.find(other % (b"0" * 32)))

    def test_bounded_in_bytes_oldest_first(self) -> None:
        """The memory has a limit for any number of narinfos."""
        hot = HotNarInfos(10_000)
        for number in range(1000):
            hot.put(answer(f"{number:032d}"))
        self.assertLess(len(hot), 15)
        self.assertIsNotNone(hot.find(b"GET /%032d.narinfo" % 999))
        for number in range(1000):
            hot.drop(f"{number:032d}")
        self.assertEqual(len(hot), 0)
        hot.put(answer("0" * 32))
        self.assertEqual(len(hot), 1)

    def test_replaced_is_not_counted_twice(self) -> None:
        """A narinfo that is put repeatedly takes no more memory."""
        hot = HotNarInfos(2_000)
        hot.put(answer("1" * 32))
        for _ in range(100):
            hot.put(answer("0" * 32))
        self.assertEqual(len(hot), 2)

    def test_nothing_is_held_when_switched_off_or_closed(self) -> None:
        """Without memory, and during a stop, the page answers."""
        hot = HotNarInfos(0)
        hot.put(answer("0" * 32))
        self.assertEqual(len(hot), 0)
        hot = HotNarInfos(10_000)
        hot.put(answer("0" * 32))
        hot.close()
        hot.put(answer("1" * 32))
        self.assertEqual(len(hot), 0)
