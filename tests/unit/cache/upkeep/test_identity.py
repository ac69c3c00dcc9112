"""Identity: one key, made once, never damaged or replaced unnoticed."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.logger import LogEvent, LogLevel, globalLogPublisher

from ncps.cache.upkeep.identity import CLUSTER, NAME, CacheIdentity, KeyWish, cluster_uuid, identify
from ncps.errors import Corrupt, Refused, StorageFull, Unavailable
from ncps.nix.keys import SecretKey
from ncps.ports import Replica
from tests.fakes.replicas import MemoryReplicas
from tests.fakes.samples import OWN_KEY
from tests.fakes.stores import MemoryConfigStore
from tests.unit.cache.rig import CoreCase

HERE = KeyWish(hostname="here")
ACCEPTING = KeyWish(hostname="here", accepts_new=True)
OWN = Replica(id="own", host="a", pid=1, url="http://a")
OTHER = Replica(id="other", host="b", pid=2, url="http://b")
ELSE_KEY = SecretKey.generate("else")


class IdentityCase(CoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.config = MemoryConfigStore()
        self.replicas = MemoryReplicas()
        self.former: set[str] = set()
        self.lines: list[LogEvent] = []
        observer: Any = self.lines.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def deciding(self, wish: KeyWish = HERE, own: Replica | None = OWN) -> Any:
        return identify(
            self.config, self.replicas, wish, own, lambda replica: replica.id in self.former
        )

    def identity(self, wish: KeyWish = HERE, own: Replica | None = OWN) -> CacheIdentity:
        found: CacheIdentity = self.get(self.deciding(wish, own))
        return found

    def refusal(self, wish: KeyWish = HERE, own: Replica | None = OWN) -> str:
        """Check that nothing was written; return the message of the refusal."""
        before = dict(self.config.values), self.replicas.key, dict(self.replicas.rows)
        found = self.failureResultOf(self.start(self.deciding(wish, own)), Refused)
        self.assertEqual(
            before, (dict(self.config.values), self.replicas.key, dict(self.replicas.rows))
        )
        return str(found.value)

    def keep(self, key: SecretKey) -> None:
        self.config.values[NAME] = key.export().encode()

    def live(self, key: SecretKey, replica: Replica = OTHER) -> None:
        self.replicas.tell(evolve(replica, public_key=str(key.public)))

    @property
    def warnings(self) -> list[str]:
        return [
            line["log_format"].format(**line)
            for line in self.lines
            if line["log_level"] is LogLevel.warn
        ]


class IdentityTests(IdentityCase):
    def test_key_is_made_once(self) -> None:
        """The first start makes the key, which stays, and the catalog knows it."""
        first = self.identity()
        self.assertEqual("here", first.key.public.name)
        self.assertEqual(first.key.public, self.identity().key.public)
        self.assertEqual(str(first.key.public), self.replicas.key)
        self.assertEqual([], self.warnings)
        (seen,) = self.replicas.rows.values()
        self.assertEqual(
            (str(first.key.public), first.cluster),
            (
                seen.replica.public_key,
                seen.replica.cluster,
            ),
        )

    def test_imported_key_counts_and_is_kept(self) -> None:
        """A key from a file is used, and stored unless there is one."""
        self.assertEqual(OWN_KEY.public, self.identity(evolve(HERE, imported=OWN_KEY)).key.public)
        self.assertEqual(OWN_KEY.public, self.identity().key.public)
        self.assertEqual([], self.warnings)

    def test_the_operators_key_takes_the_place_of_the_known_one(self) -> None:
        """Another imported key is used, with one log line; then the catalog knows it."""
        self.identity()
        former = self.replicas.key
        self.former = {OWN.id}
        wish = evolve(HERE, imported=OWN_KEY)
        identity = self.identity(wish, evolve(OWN, id="next"))
        self.assertEqual(OWN_KEY.public, identity.key.public)
        self.assertNotEqual(OWN_KEY.public, identity.kept)
        self.assertEqual(str(OWN_KEY.public), self.replicas.key)
        (line,) = self.warnings
        for part in (str(OWN_KEY.public), former, "cache-secret-key-path"):
            self.assertIn(part, line)
        self.lines.clear()
        self.identity(wish, evolve(OWN, id="third"))
        (line,) = self.warnings
        self.assertIn("although the store keeps", line)

    def test_replicas_at_once_agree(self) -> None:
        """If two first starts happen at the same time, one key wins."""
        made = self.config.create

        async def racing(name: str, value: bytes) -> bytes:
            if name == NAME:
                await made(name, OWN_KEY.export().encode())
                self.replicas.key = str(OWN_KEY.public)
                self.live(OWN_KEY)
            return await made(name, value)

        self.patch(self.config, "create", racing)
        self.assertEqual(OWN_KEY.public, self.identity().key.public)

    def test_another_that_is_quicker_is_seen(self) -> None:
        """If the catalog gets a key while we decide, the decision uses that key."""
        claim = self.replicas.claim

        async def late(*args: Any, **kwargs: Any) -> bool | None:
            self.patch(self.replicas, "claim", claim)
            self.replicas.key = str(OWN_KEY.public)
            self.live(OWN_KEY)
            return await claim(*args, **kwargs)

        self.keep(ELSE_KEY)
        self.patch(self.replicas, "claim", late)
        failed = self.failureResultOf(self.start(self.deciding()), Refused)
        self.assertIn(str(OWN_KEY.public), str(failed.value))

    def test_others_that_never_end_changing_it(self) -> None:
        """The start gives up after some attempts."""

        async def never(*_args: Any, **_kwargs: Any) -> None:
            return None

        self.patch(self.replicas, "claim", never)
        self.refused(self.deciding(), Unavailable)

    def test_garbage_is_corrupt(self) -> None:
        """A damaged key is an error, never replaced."""
        for value in (b"garbage", b"\xff\xfe"):
            self.config.values[NAME] = value
            for wish in (HERE, ACCEPTING):
                self.refused(self.deciding(wish), Corrupt)
            self.assertEqual(value, self.config.values[NAME])

    def test_cluster_is_named_once(self) -> None:
        """All processes that share a store have the same name for the cache."""
        first = self.get(cluster_uuid(self.config))
        self.assertEqual(first, self.get(cluster_uuid(self.config)))
        self.assertEqual(36, len(first))
        other = MemoryConfigStore()
        self.get(other.create(CLUSTER, b"nonsense"))
        self.refused(cluster_uuid(other), Corrupt)

    def test_a_catalog_that_knows_none(self) -> None:
        """A new database gets the store's key without a log line."""
        self.keep(OWN_KEY)
        self.assertEqual(OWN_KEY.public, self.identity().key.public)
        self.assertEqual(str(OWN_KEY.public), self.replicas.key)
        self.assertEqual([], self.warnings)

    def test_a_command_enters_no_replica(self) -> None:
        """A rebuild decides on the key in the same way, but is no replica."""
        identity = self.identity(own=None)
        self.assertIsNone(identity.replica)
        self.assertEqual({}, self.replicas.rows)
        self.assertEqual(str(identity.key.public), self.replicas.key)
        del self.config.values[NAME]
        self.assertIn("accept-new-key", self.refusal(own=None))

    def test_a_catalog_that_cannot_be_written(self) -> None:
        """A start with the known key, or the first start, continues; with another key it fails."""
        self.replicas.failing_writes = StorageFull("full")
        made = self.identity().key.public
        self.assertIsNone(self.replicas.key)
        self.replicas.key = str(made)
        self.assertEqual(made, self.identity().key.public)
        self.refused(self.deciding(evolve(HERE, imported=OWN_KEY)), StorageFull)


class LostKeyTests(IdentityCase):
    """The catalog has another key than the store."""

    def setUp(self) -> None:
        super().setUp()
        self.replicas.key = str(OWN_KEY.public)

    def test_lost(self) -> None:
        """The start is refused and says what to do; no other key is made."""
        said = self.refusal()
        for part in (
            str(OWN_KEY.public),
            "no signing key",
            "restore config/cache.key",
            "--cache-secret-key-path",
            "--accept-new-key",
        ):
            self.assertIn(part, said)

    def test_remade(self) -> None:
        """The same for another key with the same name; the message has both keys in full."""
        remade = SecretKey.generate(OWN_KEY.public.name)
        self.keep(remade)
        said = self.refusal()
        for part in (str(OWN_KEY.public), str(remade.public), "--accept-new-key"):
            self.assertIn(part, said)

    def test_the_old_key_is_given(self) -> None:
        """The known key is stored again."""
        self.identity(evolve(HERE, imported=OWN_KEY))
        self.assertEqual(OWN_KEY.export().encode(), self.config.values[NAME])
        self.assertEqual([], self.warnings)

    def test_accepted(self) -> None:
        """If the operator accepts that, another key signs from now on; one log line says both."""
        key = self.identity(ACCEPTING).key.public
        self.assertEqual((str(key), "here"), (self.replicas.key, key.name))
        told, hint = self.warnings
        for part in (str(key), str(OWN_KEY.public), "accept-new-key"):
            self.assertIn(part, told)
        self.assertIn("leave it out", hint)
        self.lines.clear()
        self.identity(HERE)
        self.assertEqual([], self.warnings)

    def test_the_remade_one_is_accepted(self) -> None:
        """The key in the store is accepted."""
        self.keep(ELSE_KEY)
        self.assertEqual(ELSE_KEY.public, self.identity(ACCEPTING).key.public)
        self.assertEqual(str(ELSE_KEY.public), self.replicas.key)

    def test_nothing_to_accept(self) -> None:
        """If the setting is left on by accident, each start warns about it."""
        self.keep(OWN_KEY)
        for life in ("1", "2"):
            self.lines.clear()
            self.identity(ACCEPTING, evolve(OWN, id=life))
            (line,) = self.warnings
            self.assertIn("there was no new key to accept", line)


class OthersTests(IdentityCase):
    """Other replicas, and workers, that sign with another key."""

    def test_a_live_replica(self) -> None:
        """The message names the replica by its address; its key wins over all others."""
        self.replicas.key = str(OWN_KEY.public)
        self.live(OWN_KEY)
        imported = evolve(HERE, imported=ELSE_KEY)
        self.assertIn("--accept-new-key", said := self.refusal(imported))
        for part in ("http://b", "process 2 on b", str(OWN_KEY.public), str(ELSE_KEY.public)):
            self.assertIn(part, said)
        self.keep(ELSE_KEY)
        self.assertIn("http://b", self.refusal())
        self.replicas.key = str(ELSE_KEY.public)  # a third replica has accepted it
        self.assertIn("http://b", self.refusal())
        self.assertEqual(ELSE_KEY.public, self.identity(ACCEPTING).key.public)

    def test_changes_that_would_be_a_new_key(self) -> None:
        """A store without a key gets no other one while a replica has one."""
        self.live(OWN_KEY)
        self.assertIn("a new key", self.refusal())

    def test_imported_and_accepted(self) -> None:
        """The operator may use two keys for a while."""
        self.replicas.key = str(OWN_KEY.public)
        self.live(OWN_KEY)
        self.identity(evolve(ACCEPTING, imported=ELSE_KEY))
        self.assertEqual(str(ELSE_KEY.public), self.replicas.key)

    def test_ended_ones_do_not_count(self) -> None:
        """An earlier process of this daemon does not count, either, and leaves the roll."""
        self.keep(ELSE_KEY)
        self.live(OWN_KEY)
        self.replicas.advance(61)
        self.identity()
        self.live(OWN_KEY)
        self.former = {OTHER.id}
        self.identity(own=evolve(OWN, id="next"))
        self.assertNotIn(OTHER.id, self.replicas.rows)

    def test_workers_of_one_daemon(self) -> None:
        """All sign with one key, even if the store changes; one of them logs."""
        wish = evolve(ACCEPTING, hostname="later", is_named=True)
        self.keep(OWN_KEY)
        for _ in range(3):
            self.assertEqual(OWN_KEY.public, self.identity(wish).key.public)
        self.assertEqual(2, len(self.warnings))
        del self.config.values[NAME]
        said = self.refusal(wish)
        self.assertIn("workers of this daemon", said)
        self.assertIn(str(OWN_KEY.public), said)


class NameTests(IdentityCase):
    def test_another_host_name(self) -> None:
        """Each start says that a name given after the first start does not change the key."""
        self.identity()
        for life in ("1", "2"):
            self.lines.clear()
            wish = KeyWish(hostname="cache.lan", is_named=True)
            identity = self.identity(wish, evolve(OWN, id=life))
            self.assertEqual("here", identity.key.public.name)
            (line,) = self.warnings
            for part in ("called here", "cache-hostname=cache.lan", "cache-secret-key-path"):
                self.assertIn(part, line)

    def test_names_that_no_setting_gives(self) -> None:
        """A renamed machine, the same name, and the operator's own key are no mistakes."""
        self.identity()
        self.identity(KeyWish(hostname="renamed"), evolve(OWN, id="1"))
        self.identity(KeyWish(hostname="here", is_named=True), evolve(OWN, id="2"))
        self.assertEqual([], self.warnings)
        fresh = MemoryConfigStore()
        self.config, self.replicas.key, self.replicas.rows = fresh, None, {}
        self.identity(KeyWish(hostname="x", is_named=True, imported=OWN_KEY))
        self.assertEqual([], self.warnings)
