"""Copies of pins and blocked paths in the store, so that a lost database loses neither."""

from __future__ import annotations

from datetime import UTC, datetime

from ncps.cache.closures.pin_backup import NAME, Copy
from ncps.cache.closures.pinning import PinWish
from ncps.errors import Malformed, StorageFull
from tests.fakes.catalog import MemoryCatalog
from tests.unit.cache.closures.rig import ClosuresCase


class PinBackupTests(ClosuresCase):
    def lose_the_database(self) -> None:
        self.catalog = MemoryCatalog()
        self.catalog.made_at = datetime(2021, 1, 1, tzinfo=UTC)
        self.restart()

    def test_a_lost_database_loses_no_pin_and_no_block(self) -> None:
        """Label and end come back; paths are blocked before anything is recorded."""
        self.store_all(*self.closure, self.tool)
        self.pin(self.app, PinWish(label="bücher", expires_s=1e6, fetch=True))
        self.remove(self.tool, never_again=True)
        (pin,), (block,) = self.get(self.pinning.pins()), self.get(self.removing.blocked())
        self.lose_the_database()
        self.get(self.backup.restore())
        (again,) = self.get(self.pinning.pins())
        self.assertEqual(
            (again.digest, again.label, again.expires_at, again.is_fetching),
            (pin.digest, pin.label, pin.expires_at, True),
        )
        self.assertEqual(self.get(self.removing.blocked()), [block])

    def test_upkeep_takes_them_over_and_looks_at_once(self) -> None:
        """Also without a rebuild."""
        self.store_all(*self.closure)
        self.pin(self.app)
        self.lose_the_database()
        self.get(self.pinning.look_after())
        self.get(self.pinning.look_after())
        (pin,) = self.get(self.pinning.pins())
        self.assertEqual((pin.paths, pin.missing), (1, 1))

    def test_the_database_of_the_object_decides(self) -> None:
        """A pin that was removed while the store accepted no writes stays removed."""
        self.store_all(self.libc)
        self.pin(self.libc)
        self.config.failing = StorageFull("read-only")
        self.get(self.pinning.unpin(self.libc.digest))
        self.config.failing = None
        self.get(self.pinning.look_after())
        self.assertEqual(self.get(self.pinning.pins()), [])
        self.assertEqual(list(Copy.parse(self.config.values[NAME]).pins), [])

    def test_a_store_without_pins_has_no_object(self) -> None:
        """Upkeep writes none."""
        self.get(self.pinning.look_after())
        self.assertEqual(self.config.values, {})

    def test_a_malformed_object_is_written_again(self) -> None:
        """The log says so, and clients can still pin."""
        for text in (b"", b"[]", b'{"catalog": 1, "pins": [{"hash": "x"}], "blocked": []}'):
            with self.assertRaises(Malformed):
                Copy.parse(text)
        self.config.values[NAME] = b"{"
        self.store_all(self.libc)
        self.pin(self.libc)
        self.assertEqual(len(Copy.parse(self.config.values[NAME]).pins), 1)
