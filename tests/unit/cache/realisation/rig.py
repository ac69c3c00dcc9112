"""A core with realisations, and clients of them."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from ncps.auth.principal import Principal, Scope
from ncps.cache.answers import Absent, Outcome, RealisationUpload, ServedRealisation
from ncps.cache.realisation.serve import PulledRealisations
from ncps.cache.realisation.verify import RealisationVerifier
from ncps.nix.keys import SecretKey, verify_any
from ncps.nix.realisation import Realisation, RealisationKey
from tests.contract.realisations import realisation
from tests.fakes.realisations import MemoryRealisations, MemoryRealisationStore
from tests.fakes.samples import OWN_KEY, UPSTREAM_KEY
from tests.unit.cache.rig import CoreCase

BUILDER_KEY = SecretKey.generate("builder-1")
WRITER = Principal(name="ci", scopes=frozenset({Scope.WRITE, Scope.DELETE}))
STRANGER_KEY = SecretKey.generate("stranger-1")


def signed(made: Realisation, *keys: SecretKey) -> Realisation:
    """Return the realisation, completely signed by these keys alone."""
    message = made.fingerprints[0]
    return evolve(made, signatures=tuple(key.sign(message) for key in keys))


def unsigned(number: int, **changes: Any) -> Realisation:
    """Return the numbered realisation, unsigned."""
    return realisation(number, signatures=(), **changes)


class RealisationsCase(CoreCase):
    def setUp(self) -> None:
        self.rows = MemoryRealisations()
        self.copies = MemoryRealisationStore()
        super().setUp()

    def restart(self) -> None:
        super().restart()
        self.world = evolve(self.world, realisations=self.rows, realisation_copies=self.copies)
        self.realisations = self.with_keys()

    def with_keys(self, *uploaders: SecretKey, requires_key: bool = False) -> PulledRealisations:
        """Return the part under test, with these keys for uploads."""
        public = [key.public for key in uploaders]
        verifier = RealisationVerifier(self.vetting, public, requires_key=requires_key)
        return PulledRealisations(self.world, self.core.state, verifier, is_absent_when_away=True)

    def served(self, key: RealisationKey, *, is_local: bool = False) -> ServedRealisation:
        return self.get(self.realisations.get(key, is_local=is_local))

    def told(self, key: RealisationKey) -> Realisation:
        """Return the answer to a client."""
        return Realisation.parse(self.served(key).text, key)

    def absent(self, key: RealisationKey, *, is_local: bool = False) -> Outcome:
        error = self.refused(self.realisations.get(key, is_local=is_local), Absent)
        outcome: Outcome = error.outcome
        return outcome

    def upload(self, made: Realisation) -> RealisationUpload:
        return self.get(self.realisations.accept(made.key, made.render(), WRITER))

    def asked(self) -> int:
        return sum(len(upstream.asked("realisation")) for upstream in self.scripted)

    def is_ours(self, made: Realisation) -> bool:
        """Whether each text that a client may check has our signature."""
        return all(
            verify_any([OWN_KEY.public], message, made.signatures) is not None
            for message in made.fingerprints
        )

    def have(self, *numbers: int) -> None:
        """Make an upstream that signs these."""
        for number in numbers:
            made = signed(realisation(number), UPSTREAM_KEY)
            self.origin.realisations[made.key] = made
