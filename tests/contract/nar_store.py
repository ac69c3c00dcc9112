"""The contract of every NarStore."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from twisted.internet.defer import gatherResults

from ncps.errors import Corrupt, NcpsError, NotFound
from ncps.nix.hashes import sha256_of
from ncps.nix.narurl import NarKey
from ncps.ports import Body, NarStore, Reopen, Replaced
from tests.contract.body import BodyContract, content
from tests.contract.running import start
from tests.contract.samples import key_of, spooled


def read_again(reopen: Reopen) -> bytes | None:
    """Return the bytes of a small file that is opened again; None if it cannot be."""
    file = reopen()
    if file is None:
        return None
    buffer = memoryview(bytearray(100))
    try:
        return bytes(buffer[: file.read_into(buffer, 0)])
    finally:
        os.close(file.fd)


class NarStoreContract(BodyContract):
    store: NarStore
    sources: Path
    """A directory for finished files."""
    reopens = False
    """Whether its objects are files that are opened without waiting."""

    async def publish(self, key: NarKey, data: bytes) -> None:
        await self.store.publish(key, spooled(self.sources, data))

    async def read(self, key: NarKey) -> bytes:
        return await content(await self.store.open(key))

    async def open_body(self, data: bytes, start: int, stop: int | None) -> Body:
        await self.publish(key_of(99), data)
        return await self.store.open(key_of(99), start, stop)

    async def walked(self) -> list[tuple[str, int]]:
        return sorted([(stat.key.file_name, stat.size) async for stat in self.store.walk()])

    async def test_an_unknown_nar_is_absent(self) -> None:
        """An unknown key is absent for every method."""
        self.assertIsNone(await self.store.stat(key_of(1)))
        await self.assert_raises(NotFound, self.store.open(key_of(1)))
        self.assertFalse(await self.store.delete(key_of(1)))
        self.assertFalse(await self.store.quarantine(key_of(1)))
        self.assertEqual(await self.walked(), [])

    async def test_a_published_nar_is_there(self) -> None:
        """A published NAR has its size and time, and the source file is gone."""
        source = spooled(self.sources, b"some bytes")
        published = await self.store.publish(key_of(1), source)
        self.assertEqual((published.key, published.size), (key_of(1), 10))
        age = datetime.now(UTC) - published.modified
        self.assertTrue(timedelta(seconds=-5) < age < timedelta(minutes=5), age)
        self.assertEqual(await self.store.stat(key_of(1)), published)
        self.assertEqual(await self.read(key_of(1)), b"some bytes")
        self.assertFalse(source.path.exists())

    async def test_first_of_several(self) -> None:
        """Of several keys, the first one with an object is returned; None if none has one."""
        keys = [key_of(1), key_of(2), key_of(3)]
        self.assertIsNone(await self.store.first_of(keys))
        for key in keys[1:]:
            await self.publish(key, b"bytes")
        self.assertEqual(await self.store.stat(keys[1]), await self.store.first_of(keys))
        self.assertEqual(await self.store.stat(keys[2]), await self.store.first_of(keys[2:]))

    async def test_extensions_are_told_apart(self) -> None:
        """One name under several extensions belongs to several objects."""
        for extension in ("", "xz", "zst"):
            await self.publish(key_of(1, extension), extension.encode() + b"!")
        for extension in ("", "xz", "zst"):
            self.assertEqual(await self.read(key_of(1, extension)), extension.encode() + b"!")
        self.assertIsNone(await self.store.stat(key_of(1, "bz2")))

    async def test_publishing_again_changes_nothing(self) -> None:
        """Publishing the same bytes again is no error, and that source is gone, too."""
        await self.publish(key_of(1), b"some bytes")
        source = spooled(self.sources, b"some bytes")
        again = await self.store.publish(key_of(1), source)
        self.assertEqual(again.size, 10)
        self.assertFalse(source.path.exists())
        self.assertEqual(await self.read(key_of(1)), b"some bytes")

    async def test_an_object_with_other_bytes_is_replaced(self) -> None:
        """An object of any size under the key is replaced by the verified one."""
        for there in (b"some", b"SOME BYTES", b"some bytes and more"):
            await self.publish(key_of(1), there)
            await self.publish(key_of(1), b"some bytes")
            self.assertEqual(await self.read(key_of(1)), b"some bytes")
            self.assertEqual(await self.walked(), [(key_of(1).file_name, 10)])

    async def test_bytes_in_memory_are_stored_as_a_file_is(self) -> None:
        """Bytes in memory replace other bytes; equal bytes from a file do not replace them."""
        for data in (b"some", b"some bytes", b"some bytes"):
            stat = await self.store.put_small(key_of(1), data, sha256_of(data))
            self.assertEqual((stat.key, stat.size), (key_of(1), len(data)))
            self.assertEqual(await self.store.stat(key_of(1)), stat)
            self.assertEqual(await self.read(key_of(1)), data)
        asides = [aside async for aside in self.store.walk_quarantine()]
        self.assertEqual([(aside.key, aside.size) for aside in asides], [(key_of(1), 4)])
        await self.publish(key_of(1), b"some bytes")
        self.assertEqual(await self.read(key_of(1)), b"some bytes")

    async def test_a_tag_distinguishes_objects(self) -> None:
        """With its own tag an object is opened; with the tag of its predecessor it is not."""
        first = await self.store.publish(key_of(1), spooled(self.sources, b"some bytes"))
        self.assertEqual(await self.store.stat(key_of(1)), first)
        self.assertEqual([stat.tag async for stat in self.store.walk()], [first.tag])
        body = await self.store.open(key_of(1), size=10, tag=first.tag)
        self.assertEqual(await content(body), b"some bytes")
        second = await self.store.publish(key_of(1), spooled(self.sources, b"SOME BYTES"))
        self.assertNotIn("", {first.tag, second.tag})
        for first_byte, stop in ((0, None), (2, 5), (0, 0)):
            with self.subTest(first_byte=first_byte, stop=stop):
                opening = self.store.open(key_of(1), first_byte, stop, size=10, tag=first.tag)
                await self.assert_raises(Replaced, opening)
        body = await self.store.open(key_of(1), 2, 5, tag=second.tag)
        self.assertEqual(await content(body), b"ME ")

    async def test_an_object_is_opened_again_and_again(self) -> None:
        """An object is opened as long as it is the same, and read in its present state."""
        first = await self.store.publish(key_of(1), spooled(self.sources, b"some bytes"))
        reopen = self.store.reopener(key_of(1), size=10, tag=first.tag)
        self.assertEqual(self.reopens, reopen is not None)
        if reopen is None:
            return
        for _ in range(2):
            self.assertEqual(b"some bytes", read_again(reopen))
        for size, tag in ((9, first.tag), (10, "another"), (10, "")):
            other = self.store.reopener(key_of(1), size=size, tag=tag)
            assert other is not None
            self.assertIsNone(read_again(other))
        await self.store.publish(key_of(1), spooled(self.sources, b"SOME BYTES"))
        self.assertIsNone(read_again(reopen))
        await self.store.quarantine(key_of(1))
        self.assertIsNone(read_again(reopen))

    async def test_a_copy_has_the_bytes_and_a_tag(self) -> None:
        """A copy under a second key replaces what was there, and outlives the first object."""
        source = await self.store.publish(key_of(1), spooled(self.sources, b"some bytes"))
        await self.publish(key_of(2), b"others")
        for _ in range(2):
            copied = await self.store.copy(key_of(1), key_of(2), tag=source.tag)
        self.assertEqual((copied.key, copied.size), (key_of(2), 10))
        self.assertTrue(await self.store.delete(key_of(1)))
        body = await self.store.open(key_of(2), size=10, tag=copied.tag)
        self.assertEqual(await content(body), b"some bytes")
        self.assertEqual(await self.walked(), [(key_of(2).file_name, 10)])

    async def test_only_the_right_object_is_copied(self) -> None:
        """An object that was replaced or removed gets no second key."""
        first = await self.store.publish(key_of(1), spooled(self.sources, b"some bytes"))
        await self.publish(key_of(1), b"SOME BYTES")
        await self.assert_raises(Replaced, self.store.copy(key_of(1), key_of(2), tag=first.tag))
        await self.assert_raises(NotFound, self.store.copy(key_of(3), key_of(2), tag=first.tag))
        self.assertEqual(await self.walked(), [(key_of(1).file_name, 10)])

    async def test_many_may_publish_one_key_at_once(self) -> None:
        """Publishers of one NAR do not disturb each other."""
        await gatherResults(
            [start(self.publish(key_of(1), b"some bytes")) for _ in range(5)], consumeErrors=True
        )
        self.assertEqual(await self.read(key_of(1)), b"some bytes")
        self.assertEqual(await self.walked(), [(key_of(1).file_name, 10)])

    async def test_a_source_that_is_cut_is_not_published(self) -> None:
        """A spool that is shorter than its given size never gets a name."""
        source = spooled(self.sources, b"some bytes")
        source.path.write_bytes(b"some")
        await self.assert_raises(Corrupt, self.store.publish(key_of(1), source))
        self.assertIsNone(await self.store.stat(key_of(1)))

    async def test_a_source_that_is_gone_is_an_error(self) -> None:
        """A spool that disappeared raises one of our errors."""
        source = spooled(self.sources, b"some bytes")
        source.path.unlink()
        await self.assert_raises(NcpsError, self.store.publish(key_of(1), source))
        self.assertIsNone(await self.store.stat(key_of(1)))

    async def test_bytes_that_are_not_there_are_corrupt(self) -> None:
        """A range beyond the end, or another size than the recorded one, means a damaged object."""
        await self.publish(key_of(1), b"some bytes")
        await self.assert_raises(Corrupt, self.store.open(key_of(1), 0, 11))
        await self.assert_raises(Corrupt, self.store.open(key_of(1), 11))
        await self.assert_raises(Corrupt, self.store.open(key_of(1), size=11))
        body = await self.store.open(key_of(1), 5, size=10)
        self.assertEqual(await content(body), b"bytes")

    async def test_deleting_takes_one_object_only(self) -> None:
        """A deleted NAR is absent, the others are not, and it can be stored again."""
        neighbour = NarKey(key_of(1).name[:-1] + "0", "xz")
        await self.publish(key_of(1), b"some bytes")
        await self.publish(neighbour, b"others")
        self.assertTrue(await self.store.delete(key_of(1)))
        self.assertIsNone(await self.store.stat(key_of(1)))
        self.assertFalse(await self.store.delete(key_of(1)))
        self.assertEqual(await self.read(neighbour), b"others")
        await self.publish(key_of(1), b"some bytes")
        self.assertEqual(await self.read(key_of(1)), b"some bytes")

    async def test_quarantine_hides_an_object(self) -> None:
        """A quarantined object is absent; it may be stored again and quarantined again."""
        for _ in range(2):
            await self.publish(key_of(1), b"damaged")
            self.assertTrue(await self.store.quarantine(key_of(1)))
            self.assertIsNone(await self.store.stat(key_of(1)))
            await self.assert_raises(NotFound, self.store.open(key_of(1)))
            self.assertEqual(await self.walked(), [])

    async def set_aside(self) -> list[tuple[str, int]]:
        found = [(aside.key.file_name, aside.size) async for aside in self.store.walk_quarantine()]
        return sorted(found)

    async def test_quarantined_files_are_listed(self) -> None:
        """Each file is listed with its NAR, size and time, also several files of one NAR."""
        self.assertEqual(await self.set_aside(), [])
        for data in (b"one", b"three"):
            await self.publish(key_of(1), data)
            await self.store.quarantine(key_of(1))
        await self.publish(key_of(2, ""), b"seven!!")
        await self.store.quarantine(key_of(2, ""))
        name = key_of(1).file_name
        expected = [(name, 3), (name, 5), (key_of(2, "").file_name, 7)]
        self.assertEqual(await self.set_aside(), sorted(expected))
        async for aside in self.store.walk_quarantine():
            age = datetime.now(UTC) - aside.since
            self.assertTrue(timedelta(seconds=-5) < age < timedelta(minutes=5), age)

    async def test_a_replaced_object_is_reported_and_listed(self) -> None:
        """Publishing other bytes sets the old object aside; publishing the same bytes does not."""
        told: list[int] = []
        self.store.watch(lambda: told.append(1))
        await self.publish(key_of(1), b"wrong")
        self.assertEqual(([], []), (told, await self.set_aside()))
        for _ in range(2):
            await self.publish(key_of(1), b"right bytes")
            self.assertEqual(([1], [(key_of(1).file_name, 5)]), (told, await self.set_aside()))

    async def test_many_may_set_one_key_aside_at_once(self) -> None:
        """At least one of the callers does it, and none fails."""
        await self.publish(key_of(1), b"damaged")
        await gatherResults(
            [start(self.store.quarantine(key_of(1))) for _ in range(5)], consumeErrors=True
        )
        self.assertIn((key_of(1).file_name, 7), await self.set_aside())
        self.assertIsNone(await self.store.stat(key_of(1)))

    async def test_discarding_takes_one_file_only(self) -> None:
        """A discarded file is removed, doing it twice is no error, and every other file stays."""
        for data in (b"one", b"three"):
            await self.publish(key_of(1), data)
            await self.store.quarantine(key_of(1))
        await self.publish(key_of(1), b"right bytes")
        (victim,) = [a async for a in self.store.walk_quarantine() if a.size == 3]
        for _ in range(2):
            await self.store.discard(victim)
            self.assertEqual(await self.set_aside(), [(key_of(1).file_name, 5)])
        (last,) = [a async for a in self.store.walk_quarantine()]
        await self.store.discard(last)
        self.assertEqual(await self.set_aside(), [])
        self.assertEqual(await self.read(key_of(1)), b"right bytes")
        self.assertTrue(await self.store.quarantine(key_of(1)))
        self.assertEqual(await self.set_aside(), [(key_of(1).file_name, 11)])

    async def test_walking_sees_everything(self) -> None:
        """A walk returns every object with its size."""
        for number in range(40):
            await self.publish(key_of(number, "zst"), b"x" * number)
        expected = sorted((key_of(number, "zst").file_name, number) for number in range(40))
        self.assertEqual(await self.walked(), expected)

    async def test_hexadecimal_names_are_names(self) -> None:
        """NARs with hexadecimal names are stored like the others."""
        key = NarKey("0123456789abcdef" * 4, "")
        await self.publish(key, b"some bytes")
        self.assertEqual(await self.read(key), b"some bytes")
        self.assertEqual(await self.walked(), [(key.file_name, 10)])
