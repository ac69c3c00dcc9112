"""Paths: the store paths of the URLs that clients got."""

from __future__ import annotations

from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from ncps.cache.narinfo import state
from ncps.nix.narurl import NarKey

KEYS = [NarKey(f"{n:052d}", "xz") for n in range(3)]


class PathsTests(SynchronousTestCase):
    def test_noted_keys_are_known_and_the_oldest_go(self) -> None:
        """The number of held keys is bounded; noting a key again keeps it."""
        with patch.object(state, "MAX_KEYS", 2):
            known = state.Paths()
            for key, digest in zip([*KEYS[:2], KEYS[0], KEYS[2]], "abcd", strict=True):
                known.note(key, digest)
        self.assertEqual([{"c"}, set(), {"d"}], [known.of(key) for key in KEYS])
