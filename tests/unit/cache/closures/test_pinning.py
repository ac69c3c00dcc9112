"""Pins: the closure is recorded immediately; missing paths are named, and fetched if wanted."""

from __future__ import annotations

import gc
from collections.abc import Collection
from datetime import UTC, datetime

from attrs import evolve

from ncps.cache.closures import walk
from ncps.cache.closures.pinning import MISSING_S, WHOLE_S, PinWish
from ncps.errors import Conflict, Malformed, NotFound, Refused, Unavailable
from ncps.nix.narurl import NarKey
from ncps.ports import PathFacts, PinTotals
from tests.fakes.upstream import Script
from tests.unit.cache.closures.rig import ClosuresCase


class PinTests(ClosuresCase):
    def test_the_whole_closure_is_held(self) -> None:
        """The root and all paths that it needs, each once; nothing is missing."""
        self.store_all(*self.closure, self.tool)
        sight = self.pin(self.app, PinWish(label="release", expires_s=60.0))
        self.assertEqual(self.held(self.app), {each.digest for each in self.closure})
        self.assertEqual((sight.pin.paths, sight.pin.missing, sight.missing), (3, 0, ()))
        self.assertEqual(sight.pin.size, sum(len(each.file) for each in self.closure))
        self.assertEqual(sight.pin.label, "release")
        self.assertEqual(self.get(self.pinning.pins()), [sight.pin])
        totals = self.get(self.pins.totals())
        self.assertEqual(totals, PinTotals(1, 3, sight.pin.size, 0))

    def test_no_object_is_kept_for_a_path(self) -> None:
        """Python's garbage collector would visit each of 100,000 objects."""
        self.store_all(self.app)
        facts = self.get(self.world.graph.among([self.app.digest]))[self.app.digest]
        digests = [f"{number:032}" for number in range(2000)]
        counts: list[int] = []

        async def among(batch: Collection[str]) -> dict[str, PathFacts]:
            counts.append(sum(isinstance(each, NarKey) for each in gc.get_objects()))
            return {
                digest: evolve(
                    facts,
                    nar=NarKey(digest.ljust(52, "0"), ""),
                    references=tuple(digests) if digest == self.app.digest else (),
                )
                for digest in batch
            }

        self.patch(self.world.graph, "among", among)
        sight = self.pin(self.app)
        assert facts.stored_size is not None
        self.assertEqual(sight.pin.size, 2001 * facts.stored_size)
        self.assertLess(max(counts) - counts[0], 500)

    def test_a_narinfo_that_is_not_here_is_not_pinned(self) -> None:
        """Unless the client wants a fetch, no upstream is asked."""
        self.refused(self.pinning.pin(self.app.digest, PinWish()), NotFound)
        self.assertEqual(self.origin.asked("narinfo"), [])
        self.assertEqual(self.get(self.pinning.pins()), [])

    def test_missing_paths_are_named(self) -> None:
        """A narinfo that nobody asked for, and a NAR: both are held in case they come later."""
        self.store_all(self.app)
        self.learn(self.lib)
        sight = self.pin(self.app)
        self.assertEqual(sight.missing, tuple(sorted([self.lib.digest, self.libc.digest])))
        self.assertEqual((sight.pin.paths, sight.pin.missing), (3, 2))
        self.store_all(self.lib, self.libc)
        idle = self.get(self.catalog.idle(datetime(2100, 1, 1, tzinfo=UTC), 10))
        self.assertEqual(idle, [])

    def test_a_pinned_path_that_comes_later_brings_its_references(self) -> None:
        """Upkeep holds them as soon as their narinfo is known."""
        self.store_all(self.app)
        self.pin(self.app)
        self.assertEqual(self.held(self.app), {self.app.digest, self.lib.digest})
        self.store_all(self.lib)
        self.clock.advance(MISSING_S + 1)
        self.get(self.pinning.look_after())
        self.assertIn(self.libc.digest, self.held(self.app))

    def test_fetching_brings_the_whole_closure(self) -> None:
        """Narinfos level by level, then their NARs; the answer does not wait for them."""
        sight = self.pin(self.app, PinWish(fetch=True))
        self.assertEqual(sight.pin.missing, 2)
        self.clock.advance(0)
        (pin,) = self.get(self.pinning.pins())
        self.assertEqual((pin.paths, pin.missing), (3, 0))
        self.assertEqual(self.here(), ["app", "lib", "libc"])

    def test_a_path_that_cannot_be_fetched_stays_missing_and_is_tried_again(self) -> None:
        """An upstream that fails does no harm; upkeep asks again after a minute."""
        self.origin.scripts.extend([Script(error=Unavailable("away"))] * 2)
        self.mirror.narinfos[self.libc.digest] = Unavailable("away")
        self.pin(self.app, PinWish(fetch=True))
        self.clock.advance(0)
        (pin,) = self.get(self.pinning.pins())
        self.assertGreater(pin.missing, 0)
        for _ in range(5):
            self.clock.advance(MISSING_S + 1)
            self.get(self.pinning.look_after())
        (pin,) = self.get(self.pinning.pins())
        self.assertEqual(pin.missing, 0)

    def test_upkeep_looks_at_a_whole_pin_once_an_hour(self) -> None:
        """If bytes are lost, the pin says that they are missing."""
        self.store_all(*self.closure)
        self.pin(self.app)
        self.get(self.catalog.mark_missing(self.libc.key))
        self.clock.advance(WHOLE_S - 1)
        self.get(self.pinning.look_after())
        self.assertEqual(self.get(self.pinning.pins())[0].missing, 0)
        self.clock.advance(2)
        self.get(self.pinning.look_after())
        self.assertEqual(self.get(self.pinning.pins())[0].missing, 1)

    def test_a_pin_ends(self) -> None:
        """When it has expired, upkeep removes it and its holds."""
        self.store_all(*self.closure)
        self.pin(self.app, PinWish(expires_s=100.0))
        self.clock.advance(99)
        self.get(self.pinning.look_after())
        self.assertEqual(len(self.get(self.pinning.pins())), 1)
        self.clock.advance(2)
        self.get(self.pinning.look_after())
        self.assertEqual((self.get(self.pinning.pins()), self.catalog.pinned), ([], {}))

    def test_unpinning(self) -> None:
        """It says whether there was a pin."""
        self.store_all(*self.closure)
        self.pin(self.app)
        self.assertTrue(self.get(self.pinning.unpin(self.app.digest)))
        self.assertFalse(self.get(self.pinning.unpin(self.app.digest)))
        self.assertEqual(self.catalog.pinned, {})

    def test_senseless_wishes_are_refused(self) -> None:
        """A label of two lines, a label that is too long, an end in the past."""
        self.store_all(self.libc)
        for wish in (PinWish(label="a\nb"), PinWish(label="x" * 201), PinWish(expires_s=0.0)):
            self.refused(self.pinning.pin(self.libc.digest, wish), Malformed)
        self.assertEqual(self.get(self.pinning.pins()), [])

    def test_a_closure_that_is_too_large_is_refused(self) -> None:
        """The number of its paths has a limit."""
        self.patch(walk, "MAX_PATHS", 2)
        self.store_all(*self.closure)
        self.refused(self.pinning.pin(self.app.digest, PinWish()), Refused)

    def test_pinned_paths_are_not_deleted(self) -> None:
        """Neither the root nor one of its references, until the pin is gone or force is used."""
        self.store_all(*self.closure)
        self.pin(self.app)
        for work in (
            self.removing.delete_narinfo(self.libc.digest),
            self.removing.delete_nar(self.app.key),
        ):
            error = self.refused(work, Conflict)
            self.assertIn(f"pinned by {self.app.digest}", str(error))
        self.get(self.removing.delete_nar(self.app.key, force=True))
        self.get(self.pinning.unpin(self.app.digest))
        self.get(self.removing.delete_nar(self.libc.key))
