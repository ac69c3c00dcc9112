"""The contract of every ExtraStore."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ncps.errors import Malformed, NotFound
from ncps.nix.hashes import sha256_of
from ncps.ports import ExtraKey, ExtraKind, ExtraStore
from tests.contract.body import content
from tests.contract.running import Contract
from tests.contract.samples import digest_of

BUILD_ID = "0123456789abcdef0123456789abcdef01234567"
KEYS = (
    ExtraKey("log", f"{digest_of(1)}-a+b=c?d._-.drv"),
    ExtraKey("log", f"{digest_of(1)}-{'n' * 207}.drv"),
    ExtraKey("debuginfo", BUILD_ID),
    ExtraKey("listing", sha256_of(b"").nix32),
)
UPLOADED = tuple(ExtraKey(key.kind, key.name, True) for key in KEYS)


class ExtraStoreContract(Contract):
    store: ExtraStore

    async def walked(self, kind: ExtraKind, *, is_uploaded: bool) -> list[tuple[ExtraKey, int]]:
        found = [
            (stat.key, stat.size) async for stat in self.store.walk(kind, is_uploaded=is_uploaded)
        ]
        return sorted(found, key=lambda one: one[0].name)

    async def test_unknown_extra_is_surely_absent(self) -> None:
        """An extra that was never put is absent."""
        for key in (*KEYS, *UPLOADED):
            self.assertIsNone(await self.store.read(key))
            await self.assert_raises(NotFound, self.store.open(key))
            self.assertFalse(await self.store.delete(key))
            self.assertEqual([], await self.walked(key.kind, is_uploaded=key.is_uploaded))

    async def test_extra_comes_back_and_can_be_replaced(self) -> None:
        """The last bytes put are returned, read whole or in pieces."""
        for data in (b"", b"short", b"long" * 100_000, b"short again"):
            for key in KEYS:
                await self.store.put(key, data)
                self.assertEqual(data, await self.store.read(key))
                body = await self.store.open(key)
                self.assertEqual(len(data), body.size)
                self.assertEqual(data, await content(body))

    async def test_uploaded_extras_are_kept_apart(self) -> None:
        """An uploaded extra and a fetched one of the same name are two objects."""
        for key, uploaded in zip(KEYS, UPLOADED, strict=True):
            await self.store.put(key, b"fetched")
            await self.store.put(uploaded, b"uploaded")
            self.assertEqual(b"fetched", await self.store.read(key))
            self.assertTrue(await self.store.delete(key))
            self.assertIsNone(await self.store.read(key))
            self.assertEqual(b"uploaded", await self.store.read(uploaded))

    async def test_walking_sees_one_kind(self) -> None:
        """A walk returns name, size and time of each extra of its kind, and of no other."""
        for number, key in enumerate((*KEYS, *UPLOADED)):
            await self.store.put(key, b"x" * number)
        self.assertEqual([(KEYS[0], 0), (KEYS[1], 1)], await self.walked("log", is_uploaded=False))
        self.assertEqual([(KEYS[2], 2)], await self.walked("debuginfo", is_uploaded=False))
        self.assertEqual([(UPLOADED[3], 7)], await self.walked("listing", is_uploaded=True))
        async for stat in self.store.walk("listing", is_uploaded=False):
            self.assertLess(abs(datetime.now(UTC) - stat.modified), timedelta(seconds=60))

    async def test_names_that_could_climb_are_refused(self) -> None:
        """Only a name of its kind can become part of an object's name."""
        names: tuple[tuple[ExtraKind, str], ...] = (
            ("log", ""),
            ("log", "../../config/cache.key"),
            ("log", f"{digest_of(1)}-x"),
            ("log", f"{digest_of(1)}-../x.drv"),
            ("log", f"{digest_of(1)}-{'n' * 208}.drv"),
            ("log", f"{digest_of(1)}-x.drv\n"),
            ("debuginfo", BUILD_ID.upper()),
            ("debuginfo", BUILD_ID + "/"),
            ("listing", digest_of(1)),
            ("listing", "e" * 52),
        )
        for kind, name in names:
            self.assertRaises(Malformed, ExtraKey, kind, name)
