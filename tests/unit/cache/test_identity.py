"""Identity: one signing key for ever."""

from __future__ import annotations

from ncps.cache.identity import CLUSTER, NAME, cluster_uuid, signing_key
from ncps.errors import Corrupt, Malformed
from ncps.nix.keys import SecretKey
from tests.fakes.samples import OWN_KEY
from tests.fakes.stores import MemoryConfigStore
from tests.unit.cache.rig import CoreCase


class IdentityTests(CoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.config = MemoryConfigStore()

    def key(self, imported: str | None = None) -> SecretKey:
        return self.get(signing_key(self.config, "here", imported))

    def test_key_is_made_once(self) -> None:
        """The key made at the first start is the key for ever."""
        first = self.key()
        self.assertEqual("here", first.public.name)
        self.assertEqual(first.public, self.key().public)

    def test_imported_key_counts_and_is_kept(self) -> None:
        """A key from a file is used, and kept unless there is one."""
        self.assertEqual(OWN_KEY.public, self.key(OWN_KEY.export()).public)
        self.assertEqual(OWN_KEY.public, self.key().public)
        other = SecretKey.generate("other")
        self.assertEqual(other.public, self.key(other.export()).public)
        self.assertEqual(OWN_KEY.public, self.key().public)

    def test_replicas_at_once_agree(self) -> None:
        """Of two first starts at once one key wins."""
        made = self.config.create

        async def racing(name: str, value: bytes) -> bytes:
            await made(name, OWN_KEY.export().encode())
            return await made(name, value)

        self.patch(self.config, "create", racing)
        self.assertEqual(OWN_KEY.public, self.key().public)

    def test_garbage_is_corrupt(self) -> None:
        """A damaged key is an error, never replaced."""
        for value in (b"garbage", b"\xff\xfe"):
            self.config.values[NAME] = value
            self.refused(signing_key(self.config, "here"), Corrupt)
        self.refused(signing_key(self.config, "here", "garbage"), Malformed)

    def test_cluster_is_named_once(self) -> None:
        """All who share a store call themselves the same."""
        first = self.get(cluster_uuid(self.config))
        self.assertEqual(first, self.get(cluster_uuid(self.config)))
        self.assertEqual(36, len(first))
        other = MemoryConfigStore()
        self.get(other.create(CLUSTER, b"nonsense"))
        self.refused(cluster_uuid(other), Corrupt)
