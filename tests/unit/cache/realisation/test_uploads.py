"""Realisations that clients upload: which ones they replace, and how they are restored."""

from __future__ import annotations

import json
import re

from attrs import evolve

from ncps.cache.answers import Outcome, RealisationUpload
from ncps.cache.realisation import room
from ncps.cache.realisation.record import ATTEMPTS, parse_copy
from ncps.cache.upkeep.realisations import Copies, restore
from ncps.errors import Conflict, Malformed, Refused, StorageFull, Unavailable
from ncps.nix.keys import SecretKey
from ncps.nix.realisation import Realisation, RealisationKey
from ncps.ports import Notice, RealisationEntry
from tests.contract.realisations import realisation, realisation_key
from tests.contract.samples import path_of
from tests.fakes.samples import OWN_KEY, UPSTREAM_KEY, sample
from tests.unit.cache.realisation.rig import (
    BUILDER_KEY,
    STRANGER_KEY,
    WRITER,
    RealisationsCase,
    signed,
    unsigned,
)


class UploadTests(RealisationsCase):
    def test_uploads_of_both_families_are_served_at_once(self) -> None:
        """With our signature, and without a question, although an absence was remembered."""
        for number in (1, 2):
            key = realisation_key(number)
            self.assertEqual(Outcome.MISS, self.absent(key))
            self.assertEqual(RealisationUpload.CREATED, self.upload(unsigned(number)))
            self.assertNotIn(key, self.negatives)
            self.assertEqual(Outcome.HIT, self.served(key).outcome)
            told = self.told(key)
            self.assertTrue(told.says_as(realisation(number)))
            self.assertTrue(self.is_ours(told))
            self.assertEqual(realisation(number).dependencies, told.dependencies)
            self.assertIn(Notice("realisation", key.path), self.notices.published)

    def test_others_forget_the_absence(self) -> None:
        """This covers a notice of another process, and an invalid notice."""
        key = realisation_key(1)
        self.absent(key)
        self.notices.tell(Notice("realisation", "nonsense"))
        self.assertIn(key, self.negatives)
        self.notices.tell(Notice("realisation", key.path))
        self.assertNotIn(key, self.negatives)

    def test_a_nar_of_another_process_is_served_immediately(self) -> None:
        """Also before its notice arrives: a kept realisation counts before a remembered absence."""
        key = realisation_key(1)
        self.absent(key)
        self.upload(unsigned(1))
        self.negatives.add(key)
        self.assertEqual(Outcome.HIT, self.served(key).outcome)

    def test_the_same_again_changes_nothing(self) -> None:
        """The signatures of both are kept; ours appears once for each text."""
        made = realisation(2)
        self.upload(signed(made, BUILDER_KEY))
        self.assertEqual(RealisationUpload.SAME, self.upload(unsigned(2)))
        self.assertEqual(RealisationUpload.SAME, self.upload(signed(made, STRANGER_KEY)))
        names = sorted(s.name for s in self.told(made.key).signatures)
        expected = [BUILDER_KEY.public.name, *2 * [OWN_KEY.public.name], STRANGER_KEY.public.name]
        self.assertEqual(sorted(expected), names)
        before = dict(self.rows.entries)  # our own signature, sent back, vouches for nothing
        self.assertEqual(RealisationUpload.SAME, self.upload(self.told(made.key)))
        self.assertEqual(before, self.rows.entries)

    def test_another_key_in_the_text_is_refused(self) -> None:
        """All other texts are refused, too; nothing is kept."""
        for text in (b"", b"{}", b"[]", realisation(4).render()):
            self.refused(self.realisations.accept(realisation_key(2), text, WRITER), Malformed)
        told = json.loads(unsigned(3).render())
        key = realisation_key(1)
        keyed = {"key": {"drvPath": realisation_key(3).derivation, "outputName": "out"}}
        text = json.dumps({**keyed, "value": told}).encode()
        self.refused(self.realisations.accept(key, text, WRITER), Malformed)
        self.assertEqual(({}, {}), (self.rows.entries, self.copies.texts))

    def test_a_trusted_signature_may_be_required(self) -> None:
        """Keys of upstreams do not count; without the right signature nothing is kept."""
        self.realisations = self.with_keys(BUILDER_KEY, requires_key=True)
        made = realisation(1)
        other = signed(realisation(1, out_path=path_of(8)), BUILDER_KEY)
        for wrong in (
            unsigned(1),
            signed(made, STRANGER_KEY, UPSTREAM_KEY),
            evolve(made, signatures=other.signatures),
        ):
            self.refused(self.realisations.accept(made.key, wrong.render(), WRITER), Refused)
        self.assertEqual({}, self.rows.entries)
        self.assertEqual(
            RealisationUpload.CREATED, self.upload(signed(made, STRANGER_KEY, BUILDER_KEY))
        )
        self.assertEqual(str(BUILDER_KEY.public), self.rows.entries[made.key].verified_by)

    def test_many_signatures_are_cut(self) -> None:
        """No client can fill the database with signatures; those by known keys stay."""
        made = signed(realisation(1), BUILDER_KEY)
        many = [evolve(made.signatures[0], name=f"a-{number}") for number in range(500)]
        self.realisations = self.with_keys(BUILDER_KEY)
        self.upload(evolve(made, signatures=(*many, *made.signatures)))
        told = self.told(made.key)
        self.assertEqual(33, len(told.signatures))
        self.assertIn(made.signatures[0], told.signatures)

    def test_a_client_for_some_paths_writes_no_others(self) -> None:
        """Its paths are those that the realisations name, under derivations of the same name."""
        one, two = unsigned(1), unsigned(2)
        only = evolve(WRITER, paths=re.compile(f".*-{path_of(1).name}|.*-{path_of(2).name}"))
        drv = RealisationKey(f"{path_of(1).base}.drv", "lib")
        other = evolve(unsigned(1, out_path=path_of(3)), key=one.key)
        for wrong in (other, evolve(one, key=drv), evolve(one, key=realisation_key(3))):
            self.refused(self.realisations.accept(wrong.key, wrong.render(), only), Refused)
        for made in (one, two):
            self.get(self.realisations.accept(made.key, made.render(), only))
        self.upload(unsigned(3))
        self.refused(self.realisations.forget(realisation_key(3), only), Refused)
        self.assertTrue(self.get(self.realisations.forget(one.key, only)))

    def test_a_client_for_some_paths_removes_no_copy_of_others(self) -> None:
        """After a lost database only the copy names the path."""
        only = evolve(WRITER, paths=re.compile(f".*-{path_of(1).name}"))
        for number in (1, 3):
            self.upload(unsigned(number))
        self.rows.entries.clear()
        self.refused(self.realisations.forget(realisation_key(3), only), Refused)
        self.assertTrue(self.get(self.realisations.forget(realisation_key(1), only)))
        self.copies.texts[realisation_key(1).digest] = b"garbage"
        self.refused(self.realisations.forget(realisation_key(1), only), Refused)
        for number in (1, 3):
            self.assertTrue(self.get(self.realisations.forget(realisation_key(number), WRITER)))
        self.assertEqual({}, self.copies.texts)


class OtherResultTests(RealisationsCase):
    """A derivation was built again, and its output has another path."""

    def test_the_first_result_stands(self) -> None:
        """An upload with an equal voucher gets no error, so that `nix copy` continues."""
        one, two = unsigned(1), unsigned(1, out_path=path_of(50))
        self.upload(one)
        self.assertEqual(RealisationUpload.LEFT, self.upload(two))
        self.assertTrue(self.told(one.key).says_as(one))

    def test_a_path_that_is_gone_is_replaced(self) -> None:
        """If this cache knows the new path and not the old one, the new one is more useful."""
        known = sample("known", 100)
        self.origin.add(known)
        self.learn(known)
        one, two = unsigned(1), unsigned(1, out_path=known.narinfo.store_path)
        self.upload(one)
        self.assertEqual(RealisationUpload.REPLACED, self.upload(two))
        self.assertTrue(self.told(one.key).says_as(two))
        self.assertEqual(RealisationUpload.LEFT, self.upload(one))
        self.assertTrue(parse_copy(self.copies.texts[one.key.digest]).says_as(two))

    def test_nothing_that_a_key_vouches_for_is_replaced_by_less(self) -> None:
        """An upload without a trusted signature does not replace it: 409."""
        self.have(1)
        key = realisation_key(1)
        self.served(key)
        other = unsigned(1, out_path=path_of(50))
        for wrong in (other, signed(other, STRANGER_KEY)):
            self.refused(self.realisations.accept(key, wrong.render(), WRITER), Conflict)
        self.assertTrue(self.told(key).says_as(realisation(1)))
        self.realisations = self.with_keys(BUILDER_KEY)
        self.assertEqual(RealisationUpload.LEFT, self.upload(signed(other, BUILDER_KEY)))

    def test_a_key_holds_against_the_right_to_upload(self) -> None:
        """A realisation with a trusted signature replaces one without any."""
        self.realisations = self.with_keys(BUILDER_KEY)
        one, two = unsigned(1), unsigned(1, out_path=path_of(50))
        self.upload(one)
        self.assertEqual(RealisationUpload.REPLACED, self.upload(signed(two, BUILDER_KEY)))
        self.assertTrue(self.told(one.key).says_as(two))
        self.assertTrue(parse_copy(self.copies.texts[one.key.digest]).says_as(two))

    def test_dependencies_come_from_the_one_with_more_behind_it(self) -> None:
        """An upload cannot get our signature for other dependencies."""
        self.have(2)
        made = realisation(2)
        self.served(made.key)
        false = ((made.dependencies[0][0], path_of(66).base),)
        self.assertEqual(
            RealisationUpload.SAME, self.upload(evolve(made, dependencies=false, signatures=()))
        )
        self.assertEqual(made.dependencies, self.told(made.key).dependencies)


class FaultTests(RealisationsCase):
    def test_nothing_is_accepted_that_is_not_kept(self) -> None:
        """A full database or store is an error; the same upload succeeds later."""
        made = unsigned(1)
        for part, error in (
            (self.rows, StorageFull("full")),
            (self.rows, Unavailable("away")),
            (self.copies, StorageFull("full")),
            (self.copies, Unavailable("away")),
        ):
            part.failing_writes = error
            self.refused(self.realisations.accept(made.key, made.render(), WRITER), type(error))
            part.failing_writes = None
        self.assertIn(self.upload(made), {RealisationUpload.CREATED, RealisationUpload.SAME})
        self.assertTrue(parse_copy(self.copies.texts[made.key.digest]).says_as(made))

    def test_a_write_that_another_process_overtakes_begins_again(self) -> None:
        """Its signature is not lost; if that happens too often, the client gets an error."""
        made = realisation(1)
        put, calls = self.rows.put, 0

        async def overtaken(entry: RealisationEntry, before: RealisationEntry | None) -> bool:
            nonlocal calls
            calls += 1
            self.rows.entries[entry.key] = evolve(
                entry, realisation=signed(made, STRANGER_KEY), upstream=f"http://{calls}"
            )
            if calls == 1 or is_endless:
                return False
            self.rows.entries[entry.key] = before or entry
            return await put(entry, before)

        self.rows.put = overtaken  # type: ignore[method-assign]
        is_endless = False
        self.upload(signed(made, BUILDER_KEY))
        names = {s.name for s in self.told(made.key).signatures}
        self.assertLessEqual({BUILDER_KEY.public.name, STRANGER_KEY.public.name}, names)
        is_endless, calls = True, 1
        new = signed(made, UPSTREAM_KEY)
        self.refused(self.realisations.accept(made.key, new.render(), WRITER), Unavailable)
        self.assertEqual(1 + ATTEMPTS, calls)

    def test_forgetting_takes_row_and_copy(self) -> None:
        """After that it is absent, and another one may be uploaded."""
        made = unsigned(1)
        self.upload(made)
        self.assertTrue(self.get(self.realisations.forget(made.key, WRITER)))
        self.assertFalse(self.get(self.realisations.forget(made.key, WRITER)))
        self.assertEqual(({}, {}), (self.rows.entries, self.copies.texts))
        self.assertEqual(RealisationUpload.CREATED, self.upload(unsigned(1, out_path=path_of(50))))

    def test_a_deletion_that_dies_does_not_come_back(self) -> None:
        """The copy is deleted before the row: a rebuild finds nothing of it."""
        made = unsigned(1)
        self.upload(made)
        self.rows.failing_writes = Unavailable("the process dies here")
        self.refused(self.realisations.forget(made.key, WRITER), Unavailable)
        self.assertEqual({}, self.copies.texts)
        self.assertEqual(Outcome.HIT, self.served(made.key).outcome)
        self.rows.failing_writes = None
        self.assertTrue(self.get(self.realisations.forget(made.key, WRITER)))
        self.assertEqual(Copies(), self.get(restore(self.world, self.realisations)))
        self.assertEqual({}, self.rows.entries)

    def test_an_upload_while_one_is_deleted(self) -> None:
        """Its copy does not outlive its row."""
        made = unsigned(1)
        self.upload(made)
        copy = dict(self.copies.texts)
        forget = self.rows.forget

        async def overtaken(key: RealisationKey) -> bool:
            self.copies.texts.update(copy)
            return await forget(key)

        self.rows.forget = overtaken  # type: ignore[method-assign]
        self.assertTrue(self.get(self.realisations.forget(made.key, WRITER)))
        self.assertEqual(({}, {}), (self.rows.entries, self.copies.texts))

    def test_an_upload_before_the_last_copy_goes(self) -> None:
        """It was acknowledged, so it has its copy, also if the deletion removes that first."""
        made = unsigned(1)
        self.upload(made)
        delete, told = self.copies.delete, list[RealisationUpload]()

        async def overtaken(digest: str) -> bool:
            if self.rows.entries or told:
                return await delete(digest)
            told.append(await self.realisations.accept(made.key, made.render(), WRITER))
            return await delete(digest)

        self.copies.delete = overtaken  # type: ignore[method-assign]
        self.assertTrue(self.get(self.realisations.forget(made.key, WRITER)))
        self.assertEqual([RealisationUpload.CREATED], told)
        self.assertEqual(Outcome.HIT, self.served(made.key).outcome)
        self.assertEqual([made.key.digest], list(self.copies.texts))


class RoomTests(RealisationsCase):
    def test_uploads_have_a_bound(self) -> None:
        """The number and the size; known ones may be uploaded again, and a deletion frees room."""
        self.patch(room, "MOST", 2)
        for number in (1, 2):
            self.upload(unsigned(number))
        third = unsigned(3)
        error = self.refused(
            self.realisations.accept(third.key, third.render(), WRITER), StorageFull
        )
        self.assertIn("delete some", str(error))
        self.assertEqual(RealisationUpload.SAME, self.upload(unsigned(1)))
        self.assertTrue(self.get(self.realisations.forget(realisation_key(1), WRITER)))
        self.clock.advance(room.FULL_S + 1)
        self.assertEqual(RealisationUpload.CREATED, self.upload(third))
        self.patch(room, "MOST", 100)
        self.patch(room, "MOST_BYTES", 2 * len(third.render()))
        fourth = unsigned(4)
        self.refused(self.realisations.accept(fourth.key, fourth.render(), WRITER), StorageFull)

    def test_what_grows_or_was_fetched_needs_room_too(self) -> None:
        """A client cannot exceed the bound by small texts that it makes large later."""
        one, two = unsigned(1), unsigned(2)
        self.upload(one)
        self.have(2)
        self.served(two.key)
        self.patch(room, "MOST", 1)
        self.refused(self.realisations.accept(two.key, two.render(), WRITER), StorageFull)
        self.patch(room, "MOST", 100)
        self.patch(room, "MOST_BYTES", len(self.served(one.key).text))
        large = signed(one, *(SecretKey.generate(f"k-{number}") for number in range(9)))
        self.refused(self.realisations.accept(one.key, large.render(), WRITER), StorageFull)
        self.assertEqual(RealisationUpload.SAME, self.upload(one))

    def test_room_taken_by_others_counts(self) -> None:
        """The rows are counted again at intervals."""
        self.patch(room, "MOST", 2)
        self.upload(unsigned(1))
        entry = next(iter(self.rows.entries.values()))
        other = evolve(entry, realisation=unsigned(2))
        self.rows.entries[other.key] = other
        self.clock.advance(room.FRESH_S + 1)
        third = unsigned(3)
        self.refused(self.realisations.accept(third.key, third.render(), WRITER), StorageFull)


class LostDatabaseTests(RealisationsCase):
    def restored(self) -> Copies:
        return self.get(restore(self.world, self.realisations))

    def test_uploads_come_back_from_the_store(self) -> None:
        """Text and voucher are as before; a second run changes nothing."""
        for number in (1, 2):
            self.upload(unsigned(number))
        before = {number: self.served(realisation_key(number)).text for number in (1, 2)}
        self.rows.entries.clear()
        self.assertEqual(Copies(restored=2), self.restored())
        kept = dict(self.rows.entries)
        self.assertEqual(Copies(restored=2), self.restored())
        self.assertEqual(kept, self.rows.entries)
        for number, text in before.items():
            self.assertEqual(text, self.served(realisation_key(number)).text)
            self.assertTrue(self.rows.entries[realisation_key(number)].is_uploaded)

    def test_the_store_is_not_believed(self) -> None:
        """A copy that is damaged, has another name or no known signature, is left alone."""
        self.upload(unsigned(1))
        self.upload(unsigned(3))
        texts = self.copies.texts
        one, three = (realisation_key(number).digest for number in (1, 3))
        forged = unsigned(5, out_path=path_of(50))
        texts[forged.key.digest] = forged.key.path.encode() + b"\n" + forged.render()
        texts[realisation_key(7).digest] = texts[three]
        texts[realisation_key(9).digest] = b"\xff"
        texts[one] = texts[one].replace(path_of(1).base.encode(), path_of(50).base.encode())
        self.rows.entries.clear()
        self.assertEqual(Copies(restored=1, refused=4), self.restored())
        self.assertEqual([realisation_key(3)], list(self.rows.entries))

    def test_a_row_holds_against_a_copy(self) -> None:
        """A copy may be older than the row."""
        self.upload(unsigned(1))
        self.rows.entries.clear()
        self.have(1)
        newer = signed(realisation(1, out_path=path_of(50)), UPSTREAM_KEY)
        self.origin.realisations[newer.key] = newer
        self.served(newer.key)
        self.assertEqual(Copies(restored=1), self.restored())
        self.assertTrue(self.told(newer.key).says_as(newer))

    def test_a_copy_is_a_text_for_people_too(self) -> None:
        """It has the path, and the realisation as it is served."""
        self.upload(unsigned(1))
        text = self.copies.texts[realisation_key(1).digest]
        path, body, rest = text.split(b"\n")
        self.assertEqual(realisation_key(1).path.encode(), path)
        self.assertEqual(self.served(realisation_key(1)).text, body)
        self.assertEqual(b"", rest)
        self.assertEqual(Realisation.parse(body, realisation_key(1)), parse_copy(text))
