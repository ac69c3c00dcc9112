"""Copies of pins and blocked paths in the store, so that a lost database loses neither."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from attrs import evolve, fields

from ncps.cache.closures.pin_backup import NAME, Copy
from ncps.cache.closures.pinning import PinWish
from ncps.errors import Malformed, StorageFull
from ncps.ports import Pin
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

    def test_an_object_of_another_version_is_read(self) -> None:
        """A field that is missing has its default; one that this version lacks is dropped."""
        pin = {"hash": self.libc.digest, "created": 1000, "colour": "red"}
        text = json.dumps({"catalog": 1, "pins": [pin], "blocked": []}).encode()
        found = Pin(digest=self.libc.digest, created_at=datetime.fromtimestamp(1, UTC))
        self.assertEqual([found], list(Copy.parse(text).pins))

    def test_each_field_is_copied_or_found_again(self) -> None:
        """So a pin that comes back after the loss of the database is the same pin."""
        at = datetime(2026, 1, 2, tzinfo=UTC)
        pin = Pin(
            digest=self.libc.digest, label="ü", created_at=at, expires_at=at, is_fetching=True
        )
        seen = evolve(pin, paths=3, missing=1, size=5, looked_at=at)
        for field in fields(Pin):
            self.assertNotEqual(field.default, getattr(seen, field.name), field.name)
        self.assertEqual([pin], list(Copy.parse(Copy(catalog=1, pins=[seen]).render()).pins))

    def test_a_malformed_object_is_written_again(self) -> None:
        """The log says so, and clients can still pin."""
        for text in (b"", b"[]", b'{"catalog": 1, "pins": [{"hash": "x"}], "blocked": []}'):
            with self.assertRaises(Malformed):
                Copy.parse(text)
        label = ({"label": 5}, {"label": "\ud800"}, {"label": "\0"}, {"label": "x" * 201})
        moment = ({"expires": "never"}, {"created": None}, {"created": True})
        for wrong in ({"fetch": "yes"}, *label, *moment):
            pin = {"hash": self.libc.digest, "created": 1} | wrong
            with self.assertRaises(Malformed, msg=str(wrong)):
                Copy.parse(json.dumps({"catalog": 1, "pins": [pin], "blocked": []}).encode())
        block = {"hash": self.libc.digest, "name": "\ud800", "at": 1, "files": []}
        with self.assertRaises(Malformed):
            Copy.parse(json.dumps({"catalog": 1, "pins": [], "blocked": [block]}).encode())
        with self.assertRaises(Malformed):
            Copy.parse(b"[" * 100_000 + b"]" * 100_000)
        self.config.values[NAME] = b"{"
        self.store_all(self.libc)
        self.pin(self.libc)
        self.assertEqual(len(Copy.parse(self.config.values[NAME]).pins), 1)
