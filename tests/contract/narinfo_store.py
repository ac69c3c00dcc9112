"""The contract of every NarInfoStore."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ncps.errors import Malformed
from ncps.ports import NarInfoStore
from tests.contract.running import Contract
from tests.contract.samples import digest_of, narinfo


class NarInfoStoreContract(Contract):
    store: NarInfoStore

    async def walked(self) -> list[str]:
        return sorted([digest async for digest in self.store.walk()])

    async def test_an_unknown_path_is_absent(self) -> None:
        """An unknown path has no text."""
        self.assertIsNone(await self.store.get(digest_of(1)))
        self.assertFalse(await self.store.delete(digest_of(1)))
        self.assertEqual(await self.walked(), [])

    async def test_a_text_comes_back_and_can_be_replaced(self) -> None:
        """The last text put is returned."""
        for text in (narinfo(1).render(), b"", b"short", b"long" * 100_000):
            await self.store.put(digest_of(1), text)
            self.assertEqual(await self.store.get(digest_of(1)), text)
        self.assertEqual(await self.walked(), [digest_of(1)])

    async def test_deleting_takes_one_text_only(self) -> None:
        """A deleted text is absent; the others stay."""
        await self.store.put(digest_of(1), b"one")
        await self.store.put(digest_of(2), b"two")
        self.assertTrue(await self.store.delete(digest_of(1)))
        self.assertIsNone(await self.store.get(digest_of(1)))
        self.assertFalse(await self.store.delete(digest_of(1)))
        self.assertEqual(await self.store.get(digest_of(2)), b"two")
        self.assertEqual(await self.walked(), [digest_of(2)])

    async def test_the_time_of_writing_is_known(self) -> None:
        """The time of a present text is known, by a clock that may differ from ours."""
        self.assertIsNone(await self.store.written(digest_of(1)))
        await self.store.put(digest_of(1), b"text")
        written = await self.store.written(digest_of(1))
        assert written is not None
        self.assertLess(abs(datetime.now(UTC) - written), timedelta(seconds=60))

    async def test_walking_sees_every_path(self) -> None:
        """A walk returns the hash part of every path."""
        for number in range(40):
            await self.store.put(digest_of(number), b"text")
        self.assertEqual(await self.walked(), sorted(map(digest_of, range(40))))

    async def test_only_hash_parts_are_accepted(self) -> None:
        """Only a hash part can become part of an object's name."""
        for name in ("", "../../config/cache.key", "0" * 31, "e" * 32, "0" * 31 + "/", "A" * 32):
            await self.assert_raises(Malformed, self.store.put(name, b"text"))
            await self.assert_raises(Malformed, self.store.get(name))
            await self.assert_raises(Malformed, self.store.delete(name))
