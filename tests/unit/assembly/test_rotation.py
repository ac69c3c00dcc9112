"""The signing keys of a running process, read again."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

from attrs import evolve
from twisted.internet.defer import Deferred

from ncps.assembly import rotation
from ncps.cache.cache import PullThrough
from ncps.cache.upkeep.agreement import Agreement
from ncps.cache.upkeep.identity import parse_key
from ncps.errors import Refused
from ncps.nix.keys import verify_any
from ncps.nix.narinfo import NarInfo
from tests.fakes.samples import OWN_KEY, sample
from tests.fakes.threads import InlineThreads
from tests.unit.cache.upkeep.test_identity import HERE, OWN
from tests.unit.cache.upkeep.test_rotation import RotationCase

SETTINGS: Any = Mock(cache=Mock(upstream=Mock(public_keys=())))


class ReloadTests(RotationCase):
    def setUp(self) -> None:
        super().setUp()
        identity = self.identity()
        self.agreement = Agreement(self.replicas, self.config, identity, is_alone=False)
        self.page = PullThrough(
            self.world, self.core, public_key=identity.key.public, config=self.config
        )
        self.sample = sample("p", 1000)
        self.origin.add(self.sample)
        self.failure: Exception | None = None
        self.patch(rotation, "key_wish", lambda settings: HERE)
        self.patch(rotation, "own_facts", lambda settings, role: OWN)
        self.patch(rotation, "identity_as", self.identified)

    async def identified(self, parts: Any, settings: Any, wish: Any, own: Any) -> Any:
        if self.failure is not None:
            raise self.failure
        return await self.deciding(wish, own)

    def reloading(self) -> Deferred[str]:
        base = Mock(parts=Mock(workers=InlineThreads()))
        working = Mock(
            cache=self.page, core=self.core, vetting=self.vetting, agreement=self.agreement
        )
        return Deferred.fromCoroutine(rotation.reload_keys(base, working, SETTINGS))

    def told(self) -> NarInfo:
        return NarInfo.parse(self.get(self.narinfos.get(self.sample.digest)).text)

    def test_the_new_key_signs_at_once(self) -> None:
        """Narinfos in memory are signed again, and the announced key is the new one."""
        self.assertFalse(self.has_signed(self.rotated_key()))
        key = self.successResultOf(self.reloading())
        self.assertEqual(key, str(parse_key(self.config.values["cache.key"]).public))
        self.assertEqual(key, self.page.public_key)
        self.assertEqual(key, self.replicas.rows[OWN.id].replica.public_key)
        self.assertTrue(self.has_signed(self.rotated_key()))
        self.assertTrue(self.has_signed(OWN_KEY.public))

    def rotated_key(self) -> Any:
        if len(self.replaced) == 0:
            self.told()
            self.rotate()
        return parse_key(self.config.values["cache.key"]).public

    def has_signed(self, key: Any) -> bool:
        told = self.told()
        return verify_any([key], told.fingerprint(), told.signatures) is not None

    def test_a_key_that_cannot_be_used(self) -> None:
        """Nothing changes."""
        self.failure = Refused("no")
        self.failureResultOf(self.reloading(), Refused)
        self.assertEqual(str(OWN_KEY.public), self.page.public_key)
        self.assertTrue(self.has_signed(OWN_KEY.public))

    def test_without_signing(self) -> None:
        """A process that does not sign does not begin to sign."""
        self.vetting = evolve(self.vetting, own=None)
        self.rotated_key()
        self.successResultOf(self.reloading())
        self.assertIsNone(self.vetting.own)
