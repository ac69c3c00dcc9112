"""The contract of every adapter of blobs."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import gatherResults

from ncps.errors import Corrupt, NotFound
from ncps.nix.hashes import sha256_of
from ncps.ports import Replaced
from ncps.storage import keys
from ncps.storage.blobs import Blobs, Wanted
from tests.contract.body import content
from tests.contract.running import Contract, start
from tests.contract.samples import digest_of, key_of, spooled

KEY = keys.nar_key(key_of(1))
OTHER = keys.nar_key(key_of(2))
ASIDE = keys.quarantine_key(key_of(1), "17-0123456789abcdef")
SMALL = (keys.narinfo_key(digest_of(1)), keys.config_key("cache.key"))


class BlobsContract(Contract):
    sources: Path
    blobs: Blobs

    async def walked(self, base: str) -> list[str]:
        return sorted([blob.key async for blob in self.blobs.walk(base)])

    async def adopt(self, data: bytes, key: str = KEY) -> bool:
        blob, has_replaced = await self.blobs.adopt(key, spooled(self.sources, data), ASIDE)
        self.assertEqual((blob.key, blob.size), (key, len(data)))
        self.assertEqual(await self.blobs.stat(key), blob)
        return has_replaced

    async def test_an_absent_object(self) -> None:
        """Every method has a result for it, and removing it is no error."""
        for key in (KEY, ASIDE, *SMALL):
            self.assertIsNone(await self.blobs.stat(key))
            self.assertIsNone(await self.blobs.read(key))
            self.assertFalse(await self.blobs.delete(key))
            await self.blobs.discard(key)
        await self.assert_raises(NotFound, self.blobs.open(KEY, Wanted()))
        await self.assert_raises(NotFound, self.blobs.copy(KEY, OTHER, tag="tag"))
        self.assertFalse(await self.blobs.move(KEY, ASIDE))

    async def test_small_objects(self) -> None:
        """The first creator wins until the object is written or removed."""
        for key in SMALL:
            self.assertEqual(await self.blobs.create(key, b"first"), b"first")
            self.assertEqual(await self.blobs.create(key, b"second"), b"first")
            await self.blobs.write(key, b"third")
            self.assertEqual(await self.blobs.read(key), b"third")
            self.assertTrue(await self.blobs.delete(key))
            self.assertEqual(await self.blobs.create(key, b"fourth"), b"fourth")

    async def test_an_adopted_object_is_kept_aside_for_another(self) -> None:
        """Equal bytes replace nothing; an object with other bytes lies under the key aside."""
        self.assertFalse(await self.adopt(b"some bytes"))
        self.assertFalse(await self.adopt(b"some bytes"))
        self.assertTrue(await self.adopt(b"other bytes"))
        self.assertEqual(await content(await self.blobs.open(KEY, Wanted(size=11))), b"other bytes")
        self.assertEqual(await self.blobs.read(ASIDE), b"some bytes")
        self.assertEqual([ASIDE], await self.walked(keys.QUARANTINE))
        await self.blobs.discard(ASIDE)
        self.assertEqual([], await self.walked(keys.QUARANTINE))

    async def test_bytes_in_memory_become_an_object_as_a_file_does(self) -> None:
        """Equal bytes replace nothing; an object with other bytes lies under the key aside."""
        self.assertFalse(await self.adopt(b"some"))
        for data, has_replaced in ((b"some", False), (b"some", False), (b"other", True)):
            blob, replaced = await self.blobs.put(KEY, data, sha256_of(data), ASIDE)
            self.assertEqual((blob.key, blob.size, replaced), (KEY, len(data), has_replaced))
            self.assertEqual(await self.blobs.stat(KEY), blob)
            self.assertEqual(await content(await self.blobs.open(KEY, Wanted())), data)
        self.assertEqual(await self.blobs.read(ASIDE), b"some")

    async def test_many_objects_at_one_time(self) -> None:
        """Each object has its own bytes and its own tag."""
        data = {keys.nar_key(key_of(number)): b"%d" % number for number in range(100, 120)}
        puts = [start(self.blobs.put(key, d, sha256_of(d), ASIDE)) for key, d in data.items()]
        for (key, whole), (blob, _) in zip(data.items(), await gatherResults(puts), strict=True):
            self.assertEqual(blob.key, key)
            self.assertEqual(await self.blobs.stat(key), blob)
            self.assertEqual(await self.blobs.read(key), whole)

    async def test_only_the_wanted_object_is_opened_or_copied(self) -> None:
        """An object with another size raises Corrupt, and one with another tag raises Replaced."""
        await self.adopt(b"some bytes")
        blob = await self.blobs.stat(KEY)
        assert blob is not None
        await self.assert_raises(Corrupt, self.blobs.open(KEY, Wanted(size=9)))
        await self.assert_raises(Replaced, self.blobs.open(KEY, Wanted(tag="other")))
        await self.assert_raises(Replaced, self.blobs.copy(KEY, OTHER, tag="other"))
        body = await self.blobs.open(KEY, Wanted(5, 8, 10, blob.tag))
        self.assertEqual(await content(body), b"byt")
        self.assertEqual((await self.blobs.copy(KEY, OTHER, tag=blob.tag)).key, OTHER)
        self.assertEqual(sorted((KEY, OTHER)), await self.walked(keys.NARS))

    async def test_a_moved_object_has_its_new_key_only(self) -> None:
        """A walk finds it below the other base."""
        await self.adopt(b"some bytes")
        self.assertTrue(await self.blobs.move(KEY, ASIDE))
        self.assertEqual([], await self.walked(keys.NARS))
        self.assertEqual(await self.blobs.read(ASIDE), b"some bytes")
