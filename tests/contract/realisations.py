"""The contracts of Realisations and of RealisationStore."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import gatherResults

from ncps.errors import Malformed
from ncps.nix.keys import Signature
from ncps.nix.realisation import Realisation, RealisationKey
from ncps.ports import RealisationEntry, Realisations, RealisationStore
from tests.contract.running import Contract, start
from tests.contract.samples import EARLY, UPSTREAM, hash_of, later, path_of


def realisation_key(number: int) -> RealisationKey:
    """Return the numbered key; even numbers belong to the older family."""
    if number % 2:
        return RealisationKey(f"{path_of(number).base}.drv", "out")
    return RealisationKey(f"sha256:{hash_of(f'derivation {number}').hex}", "dev")


def realisation(number: int, **changes: Any) -> Realisation:
    """Return the numbered realisation."""
    key = realisation_key(number)
    dependencies = ((realisation_key(number + 2).id, path_of(9).base),) if key.is_old else ()
    signatures = (Signature("upstream-1", bytes(64)),)
    plain = Realisation(key, path_of(number), signatures, dependencies)
    return evolve(plain, **changes)


def realisation_entry(number: int, **changes: Any) -> RealisationEntry:
    """Return the numbered realisation as an upstream sent it."""
    plain = RealisationEntry(
        realisation=realisation(number),
        upstream=UPSTREAM,
        verified_by="upstream-1:key",
        signed_by="own-1:key",
        fetched_at=EARLY,
        last_used_at=EARLY,
    )
    return evolve(plain, **changes)


class RealisationsContract(Contract):
    realisations: Realisations

    async def put(self, *entries: RealisationEntry) -> None:
        for entry in entries:
            self.assertTrue(await self.realisations.put(entry, None))

    async def found(self, number: int) -> RealisationEntry:
        entry = await self.realisations.find(realisation_key(number))
        assert entry is not None
        return entry

    async def test_nothing_is_known_at_first(self) -> None:
        """An unknown key is absent for every method; dropping it is no error."""
        self.assertIsNone(await self.realisations.find(realisation_key(1)))
        self.assertFalse(await self.realisations.forget(realisation_key(1)))
        await self.realisations.touch({realisation_key(1): EARLY})
        self.assertIsNone(await self.realisations.find(realisation_key(1)))
        self.assertEqual(0, await self.realisations.forget_unused(later(1), 0, 10))

    async def test_an_entry_comes_back_as_it_was(self) -> None:
        """Every field of both families is kept, also if it is missing, and if it is long."""
        many = tuple((realisation_key(2 * n).id, path_of(n).base) for n in range(500))
        signatures = tuple(Signature(f"key-{n}", bytes([n]) * 64) for n in range(32))
        for entry in (
            realisation_entry(1),
            realisation_entry(2),
            realisation_entry(3, upstream="", is_uploaded=True, verified_by="", signed_by=""),
            realisation_entry(4, realisation=realisation(4, signatures=(), dependencies=())),
            realisation_entry(
                6,
                upstream=f"{UPSTREAM}/{'x' * 4000}",
                realisation=realisation(6, signatures=signatures, dependencies=sorted(many)),
            ),
        ):
            entry = evolve(  # lists become what is read
                entry,
                realisation=Realisation.parse(entry.realisation.render(), entry.key),
            )
            await self.put(entry)
            self.assertEqual(entry, await self.realisations.find(entry.key))

    async def test_keys_that_differ_little_are_different(self) -> None:
        """Keys that differ only in case or in the output are different."""
        base = f"{path_of(1).base}.drv"
        keys = [RealisationKey(base, output) for output in ("out", "Out", "out1")]
        for number, key in enumerate(keys):
            told = Realisation(key, path_of(number))
            await self.put(realisation_entry(1, realisation=told))
        for number, key in enumerate(keys):
            entry = await self.realisations.find(key)
            assert entry is not None
            self.assertEqual(path_of(number), entry.realisation.out_path)

    async def test_an_entry_is_replaced_only_in_place_of_the_one_that_was_seen(self) -> None:
        """A writer that has seen an older state, or none, writes nothing."""
        one, two, three = (
            realisation_entry(1, realisation=realisation(1, out_path=path_of(number)))
            for number in (10, 11, 12)
        )
        self.assertFalse(await self.realisations.put(one, two))
        self.assertIsNone(await self.realisations.find(one.key))
        await self.put(one)
        self.assertFalse(await self.realisations.put(two, None))
        self.assertFalse(await self.realisations.put(two, three))
        self.assertEqual(one, await self.found(1))
        self.assertTrue(await self.realisations.put(two, one))
        self.assertEqual(two, await self.found(1))

    async def test_to_put_an_entry_twice_is_harmless(self) -> None:
        """A second put happens after a commit whose answer was lost."""
        one = realisation_entry(1)
        two = evolve(one, verified_by="other-1:key", is_uploaded=True)
        await self.put(one, one)
        for _ in range(2):
            self.assertTrue(await self.realisations.put(two, one))
        self.assertEqual(two, await self.found(1))

    async def test_of_many_writers_one_wins(self) -> None:
        """Each writer learns whether its own entry was written."""
        entries = [
            realisation_entry(1, realisation=realisation(1, out_path=path_of(number)))
            for number in range(8)
        ]
        won = await gatherResults(
            [start(self.realisations.put(entry, None)) for entry in entries], consumeErrors=True
        )
        self.assertEqual(1, won.count(True))
        self.assertEqual(entries[won.index(True)], await self.found(1))

    async def test_the_last_use_is_kept_and_never_goes_back(self) -> None:
        """The last use is kept also if the entry is replaced."""
        one = realisation_entry(1)
        await self.put(one)
        await self.realisations.touch({one.key: later(50), realisation_key(2): later(50)})
        await self.realisations.touch({one.key: later(40)})
        self.assertEqual(later(50), (await self.found(1)).last_used_at)
        again = evolve(one, verified_by="other-1:key", last_used_at=later(60))
        self.assertTrue(await self.realisations.put(again, one))
        self.assertEqual(later(50), (await self.found(1)).last_used_at)

    async def test_forgetting_takes_one_only(self) -> None:
        """All other realisations stay."""
        await self.put(realisation_entry(1), realisation_entry(2))
        self.assertTrue(await self.realisations.forget(realisation_key(1)))
        self.assertFalse(await self.realisations.forget(realisation_key(1)))
        self.assertEqual(realisation_entry(2), await self.found(2))

    async def test_uploads_are_counted(self) -> None:
        """Only uploads are counted, and the characters of their texts."""
        self.assertEqual((0, 0), await self.realisations.uploaded())
        uploads = [realisation_entry(number, is_uploaded=True) for number in (1, 2)]
        await self.put(realisation_entry(3), *uploads)
        size = sum(len(entry.realisation.render()) for entry in uploads)
        self.assertEqual((2, size), await self.realisations.uploaded())

    async def left(self) -> list[int]:
        return [n for n in range(10) if await self.realisations.find(realisation_key(n))]

    async def test_unused_ones_are_forgotten_unless_they_were_uploaded(self) -> None:
        """Entries that are too old or too many are dropped, the oldest first, up to a limit."""
        for number in range(10):
            await self.put(
                realisation_entry(
                    number, last_used_at=later(number), is_uploaded=number in {0, 1, 9}
                )
            )
        self.assertEqual(0, await self.realisations.forget_unused(later(2), 100, 10))
        self.assertEqual(1, await self.realisations.forget_unused(later(4), 100, 1))
        self.assertEqual([0, 1, 3, 4, 5, 6, 7, 8, 9], await self.left())
        self.assertEqual(1, await self.realisations.forget_unused(later(4), 100, 10))
        self.assertEqual([0, 1, 4, 5, 6, 7, 8, 9], await self.left())
        self.assertEqual(3, await self.realisations.forget_unused(EARLY, 2, 10))
        self.assertEqual([0, 1, 7, 8, 9], await self.left())


class RealisationStoreContract(Contract):
    store: RealisationStore

    async def walked(self) -> list[str]:
        return sorted([digest async for digest in self.store.walk()])

    async def test_an_unknown_realisation_is_absent(self) -> None:
        """An unknown realisation has no text."""
        digest = realisation_key(1).digest
        self.assertIsNone(await self.store.get(digest))
        self.assertFalse(await self.store.delete(digest))
        self.assertEqual(await self.walked(), [])

    async def test_a_text_comes_back_and_can_be_replaced(self) -> None:
        """The last text put is returned; deleting it leaves the others."""
        one, two = realisation_key(1).digest, realisation_key(2).digest
        await self.store.put(two, b"other")
        for text in (b"text", b"", b"long" * 100_000):
            await self.store.put(one, text)
            self.assertEqual(await self.store.get(one), text)
        self.assertEqual(await self.walked(), sorted([one, two]))
        self.assertTrue(await self.store.delete(one))
        self.assertEqual(await self.walked(), [two])

    async def test_only_digests_are_accepted(self) -> None:
        """Only a digest can become part of an object's name."""
        for name in ("", "../../config/cache.key", "0" * 51, "e" * 52, "0" * 51 + "/", "A" * 52):
            await self.assert_raises(Malformed, self.store.put(name, b"text"))
            await self.assert_raises(Malformed, self.store.get(name))
            await self.assert_raises(Malformed, self.store.delete(name))
