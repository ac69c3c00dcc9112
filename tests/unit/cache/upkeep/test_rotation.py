"""Rotation: another key for the store, also if a step fails or is interrupted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from ncps.cache.upkeep.identity import FORMER, NAME, former_keys, parse_key
from ncps.cache.upkeep.rotation import Rotation, rotate
from ncps.errors import Corrupt, NcpsError, Refused, StorageFull
from ncps.nix.keyring import MAX_FORMER
from ncps.nix.keys import SecretKey
from tests.fakes.samples import OWN_KEY
from tests.unit.cache.upkeep.test_identity import ACCEPTING, HERE, OTHER, OWN, IdentityCase

MONTH = timedelta(days=30)


class RotationCase(IdentityCase):
    def setUp(self) -> None:
        super().setUp()
        self.time = datetime(2026, 1, 1, tzinfo=UTC)
        self.keep(OWN_KEY)

    def rotating(self, **words: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(rotate(self.config, Rotation(**words), self.time))

    def rotate(self, **words: Any) -> str:
        """Rotate; return the new key."""
        new, _ = self.successResultOf(self.rotating(**words))
        return str(new)

    def refused_rotation(
        self, *saying: str, error: type[NcpsError] = Refused, **words: Any
    ) -> None:
        """Check that nothing changes, and that the message has these parts."""
        before = dict(self.config.values)
        failed = self.failureResultOf(self.rotating(**words), error)
        for part in saying:
            self.assertIn(part, str(failed.value))
        self.assertEqual(before, self.config.values)

    @property
    def kept(self) -> SecretKey:
        return parse_key(self.config.values[NAME])

    @property
    def replaced(self) -> dict[str, datetime]:
        """Return the former keys in the store, each with its end."""
        found = self.successResultOf(Deferred.fromCoroutine(former_keys(self.config)))
        return {each.public: each.until for each in found}


class RotationTests(RotationCase):
    def test_a_new_key(self) -> None:
        """It has another name, and the former one has an end."""
        new = self.rotate()
        self.assertEqual(new, str(self.kept.public))
        self.assertEqual(f"{OWN_KEY.name}-2", self.kept.name)
        self.assertEqual({str(OWN_KEY.public): self.time + MONTH}, self.replaced)

    def test_a_given_key(self) -> None:
        """It is used as it is, with an overlap of the operator's choice."""
        given = SecretKey.generate("given")
        self.assertEqual(str(given.public), self.rotate(successor=given, overlap=timedelta(0)))
        self.assertEqual({str(OWN_KEY.public): self.time}, self.replaced)

    def test_mistakes(self) -> None:
        """No key yet, the same key, a second rotation on one day: each changes nothing."""
        self.refused_rotation("already", successor=OWN_KEY)
        first = self.rotate()
        self.time += timedelta(hours=23)
        self.refused_rotation("2026-01-01 00:00 UTC", "--again")
        self.assertEqual(first, str(self.kept.public))
        self.rotate(again=True)
        self.time += timedelta(days=1)
        self.rotate()
        self.assertEqual(3, len(self.replaced))
        self.assertTrue(self.kept.name.endswith("-4"))
        del self.config.values[NAME]
        self.refused_rotation("no key yet")

    def test_back_to_a_former_key(self) -> None:
        """It is the present key again, and another rotation makes a new key."""
        first = self.rotate()
        self.rotate(successor=OWN_KEY, again=True)
        self.assertEqual(OWN_KEY.public, self.kept.public)
        self.assertEqual({first}, set(self.replaced))
        third = self.rotate(again=True)
        self.assertNotIn(third, {first, str(OWN_KEY.public)})
        self.assertEqual({first, str(OWN_KEY.public)}, set(self.replaced))

    def test_many(self) -> None:
        """The oldest ended key is forgotten; keys that still sign are not."""
        for _ in range(MAX_FORMER):
            self.rotate(again=True)
        self.refused_rotation("former keys still sign", "2026-01-31", again=True)
        self.time += MONTH
        self.rotate()
        self.assertEqual(MAX_FORMER, len(self.replaced))
        self.assertNotIn(str(OWN_KEY.public), self.replaced)

    def test_damage(self) -> None:
        """A damaged list is reported, and not overwritten."""
        self.config.values[FORMER] = b"garbage"
        self.refused_rotation("cache.key.former is damaged", error=Corrupt)

    def test_cut_off(self) -> None:
        """After an interruption at any step, daemons start, and the next call finishes it."""
        replace = self.config.replace
        for attempts in range(3):
            self.config.values.clear()
            self.replicas.key = None
            self.replicas.rows.clear()
            self.keep(OWN_KEY)
            self.identity()
            left = [attempts]

            async def failing(name: str, value: bytes, left: list[int] = left) -> None:
                left[0] -= 1
                if left[0] < 0:
                    raise StorageFull("no room")
                await replace(name, value)

            self.patch(self.config, "replace", failing)
            rotating = self.rotating()
            self.patch(self.config, "replace", replace)
            if attempts < 2:
                self.failureResultOf(rotating, StorageFull)
                self.assertEqual(OWN_KEY.public, self.identity().key.public)
                self.rotate()
            else:
                self.successResultOf(rotating)
            self.assertEqual({str(OWN_KEY.public)}, set(self.replaced))
            self.assertEqual(f"{OWN_KEY.name}-2", self.identity().key.name)

    def test_two_at_once(self) -> None:
        """Both find the same new key, as if only one of them had rotated."""
        replace = self.config.replace
        others: list[str] = []

        async def between(name: str, value: bytes) -> None:
            self.patch(self.config, "replace", replace)
            await replace(name, value)
            others.append(str((await rotate(self.config, Rotation(again=True), self.time))[0]))

        self.patch(self.config, "replace", between)
        self.refused_rotation_by_the_other()
        self.assertEqual([str(self.kept.public)], others)
        self.assertEqual({str(OWN_KEY.public)}, set(self.replaced))

    def refused_rotation_by_the_other(self) -> None:
        failed = self.failureResultOf(self.rotating(), Refused)
        self.assertIn("another rotation has just ended", str(failed.value))


class RotatedIdentityTests(RotationCase):
    """Daemons that start after a rotation."""

    def setUp(self) -> None:
        super().setUp()
        self.identity()
        self.lines.clear()

    def test_a_start_after_it(self) -> None:
        """The new key signs, the former one is known, and one log line says so."""
        new = self.rotate()
        self.former = {OWN.id}
        identity = self.identity(own=evolve(OWN, id="next"))
        self.assertEqual(new, str(identity.key.public))
        self.assertEqual([str(OWN_KEY.public)], [each.public for each in identity.former])
        self.assertEqual(new, self.replicas.key)
        (line,) = self.warnings
        for part in (new, str(OWN_KEY.public), "2026-01-31 00:00 UTC", "rotated"):
            self.assertIn(part, line)
        self.lines.clear()
        self.identity()
        self.assertEqual([], self.warnings)

    def test_replicas_one_after_the_other(self) -> None:
        """A replica starts with the new key while another one still signs with the former."""
        self.live(OWN_KEY)
        new = self.rotate()
        self.assertEqual(new, str(self.identity().key.public))

    def test_a_worker_that_begins_again(self) -> None:
        """It uses the new key while its siblings still have the former one."""
        new = self.rotate()
        self.assertIn(OWN.id, self.replicas.rows)
        self.assertEqual(new, str(self.identity().key.public))

    def test_a_key_that_is_put_back(self) -> None:
        """After the catalog knows the new key, a store with the former one is refused."""
        self.rotate()
        self.identity()
        self.keep(OWN_KEY)
        self.assertIn("--accept-new-key", self.refusal(own=evolve(OTHER, id="next")))

    def test_a_store_that_lost_its_key(self) -> None:
        """A list of former keys does not permit another new key."""
        self.rotate()
        del self.config.values[NAME]
        self.assertIn("no signing key", self.refusal(own=evolve(OWN, id="next")))

    def test_a_key_of_its_own(self) -> None:
        """A daemon with the former key from a file contradicts the others."""
        self.rotate()
        self.identity()
        self.live(self.kept)
        wish = evolve(HERE, imported=OWN_KEY)
        self.assertIn("the replica", self.refusal(wish, evolve(OWN, id="next")))

    def test_an_accepted_key(self) -> None:
        """The setting for another key has no effect, and a log line says so."""
        new = self.rotate()
        self.assertEqual(new, str(self.identity(ACCEPTING).key.public))
