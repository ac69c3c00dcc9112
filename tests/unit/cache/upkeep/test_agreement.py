"""Agreement: only replicas that contradict each other report that."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from ncps.cache.upkeep.agreement import SHOWN, Agreement
from ncps.cache.upkeep.identity import FORMER, NAME, CacheIdentity, parse_key
from ncps.cache.upkeep.rotation import Rotation, rotate
from ncps.errors import Unavailable
from ncps.nix.keys import SecretKey
from ncps.ports import Replica
from tests.fakes.replicas import MemoryReplicas
from tests.fakes.samples import OWN_KEY
from tests.fakes.stores import MemoryConfigStore

KEY = str(OWN_KEY.public)
HERE = Replica(
    id="here",
    host="a",
    pid=1,
    url="http://a:1",
    store="bucket/",
    store_at="http://s3",
    cluster="uuid",
    public_key=KEY,
    trusted="0123: cache.nixos.org-1",
    locks="redis",
    redis="redis:6379",
    prefix="0 ncps:",
    secret="cafe",
)
THERE = evolve(HERE, id="there", host="b", pid=2, url="http://b:2")


class AgreementCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.replicas = MemoryReplicas()
        self.replicas.key = KEY
        self.config = MemoryConfigStore()
        self.config.values[NAME] = OWN_KEY.export().encode()
        self.agreement = self.agreement_of(HERE)
        self.lines: list[LogEvent] = []
        observer: Any = lambda event: self.lines.append(event)  # noqa: E731 - the list changes
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def agreement_of(self, replica: Replica, *, is_alone: bool = False) -> Agreement:
        identity = CacheIdentity(
            key=OWN_KEY,
            kept=OWN_KEY.public,
            cluster=replica.cluster,
            replica=replica,
            since=self.replicas.now,
        )
        return Agreement(self.replicas, self.config, identity, is_alone=is_alone)

    def look(self, *others: Replica) -> str:
        """Let 15 s pass in which all renew their entries; return the trouble of this replica."""
        self.replicas.advance(15)
        for other in others:
            self.replicas.tell(other)
        self.successResultOf(Deferred.fromCoroutine(self.agreement.look()))
        return self.agreement.trouble

    def said(self, level: LogLevel) -> list[str]:
        found = [
            line["log_format"].format(**line) for line in self.lines if line["log_level"] is level
        ]
        self.lines = [line for line in self.lines if line["log_level"] is not level]
        return found


class AgreementTests(AgreementCase):
    def test_replicas_that_agree(self) -> None:
        """Replicas may differ in facts of their own."""
        for _ in range(3):
            self.assertEqual("", self.look(THERE))
        self.assertEqual("", self.agreement.difference)
        self.assertEqual([], self.lines)
        self.assertEqual({"here", "there"}, set(self.replicas.rows))

    def test_begins_and_ends(self) -> None:
        """One log line at its begin, one at its end, and readiness in between."""
        wrong = evolve(THERE, secret="f00d")
        for _ in range(3):
            self.assertIn("cluster-secret", self.look(wrong))
        (line,) = self.said(LogLevel.error)
        for part in ("http://a:1", "http://b:2", "process 1 on a", "process 2 on b"):
            self.assertIn(part, line)
        self.assertEqual("", self.look(THERE))
        (line,) = self.said(LogLevel.info)
        self.assertIn("resolved", line)
        self.assertEqual([], self.lines)

    def test_the_other_is_gone(self) -> None:
        """A stopped replica no longer counts; a killed one counts for a minute."""
        wrong = evolve(THERE, secret="f00d")
        self.look(wrong)
        del self.replicas.rows["there"]
        self.assertEqual("", self.look())
        self.look(wrong)
        for _ in range(4):
            self.assertNotEqual("", self.look())
        self.assertEqual("", self.look())

    def test_a_former_life(self) -> None:
        """An entry from before this replica began causes no alarm; a later one does."""
        former = evolve(THERE, url=HERE.url, secret="f00d")
        self.replicas.tell(former)
        self.agreement = self.agreement_of(HERE)
        self.assertEqual("", self.look())
        self.assertIn("cluster-advertise-url", self.look(former))

    def test_a_database_that_is_away(self) -> None:
        """Then nothing changes: no trouble begins or ends."""
        wrong = evolve(THERE, secret="f00d")
        self.replicas.failing = Unavailable("away")
        self.assertEqual("", self.look(wrong))
        self.replicas.failing = None
        self.look(wrong)
        self.replicas.failing = self.config.failing = Unavailable("away")
        self.assertNotEqual("", self.look())
        self.assertEqual([], self.said(LogLevel.info))

    def test_many_others(self) -> None:
        """Readiness stays short, even if many replicas are wrong."""
        wrong = [evolve(THERE, id=f"there{n}", secret="f00d") for n in range(SHOWN + 3)]
        self.assertTrue(self.look(*wrong).endswith("; and 3 more"))
        self.assertEqual(SHOWN + 3, len(self.said(LogLevel.error)))

    def test_leaves(self) -> None:
        """A replica that stops leaves the roll; a database that is away does not delay it."""
        self.look()
        self.successResultOf(Deferred.fromCoroutine(self.agreement.leave()))
        self.assertEqual({}, self.replicas.rows)
        self.replicas.failing = Unavailable("away")
        self.successResultOf(Deferred.fromCoroutine(self.agreement.leave()))

    def test_alone(self) -> None:
        """A daemon that shares its database with no other writes nothing on the roll."""
        self.agreement = self.agreement_of(HERE, is_alone=True)
        self.look(evolve(THERE, secret=HERE.secret))
        self.assertNotIn("here", self.replicas.rows)
        del self.config.values[NAME]
        self.assertIn("no signing key", self.look())

    def test_a_catalog_that_forgot_the_key(self) -> None:
        """The catalog learns the key again, as after a start on a full disk."""
        self.replicas.key = None
        self.look()
        self.assertEqual(KEY, self.replicas.key)


class KeyTests(AgreementCase):
    def test_two_keys(self) -> None:
        """The line names two replicas with different keys, and both keys."""
        other = str(SecretKey.generate("x").public)
        trouble = self.look(evolve(THERE, public_key=other))
        for part in (KEY, other, "http://b:2", "config/cache.key", "cache-secret-key-path"):
            self.assertIn(part, trouble)

    def test_the_catalog_knows_another(self) -> None:
        """A replica accepted a key and ended: the others learn of its key, too."""
        self.replicas.key = str(SecretKey.generate("x").public)
        trouble = self.look()
        for part in (KEY, self.replicas.key, "restart"):
            self.assertIn(part, trouble)
        self.replicas.key = KEY
        self.assertEqual("", self.look())

    def test_the_store_lost_it(self) -> None:
        """An emptied or changed store is reported while its key can still be restored."""
        kept = self.config.values.pop(NAME)
        self.assertIn("no signing key", self.look())
        other = SecretKey.generate("x")
        self.config.values[NAME] = other.export().encode()
        self.assertIn(str(other.public), self.look())
        self.config.values[NAME] = b"nonsense"
        self.assertIn("damaged", self.look())
        self.assertEqual(3, len(self.said(LogLevel.error)))
        self.config.values[NAME] = kept
        self.assertEqual("", self.look())


class RotationTests(AgreementCase):
    """A rotation is reported, and is no contradiction while replicas take the new key in turn."""

    def setUp(self) -> None:
        super().setUp()
        rotating = rotate(self.config, Rotation(), self.replicas.now)
        new, former = self.successResultOf(Deferred.fromCoroutine(rotating))
        self.new, self.former = parse_key(self.config.values[NAME]), former
        self.assertEqual(new, self.new.public)

    def adopted(self) -> CacheIdentity:
        return CacheIdentity(
            key=self.new,
            kept=self.new.public,
            cluster=HERE.cluster,
            replica=evolve(HERE, public_key=str(self.new.public)),
            since=self.replicas.now,
            former=(self.former,),
        )

    def test_this_replica_has_the_former_key(self) -> None:
        """It says once that it needs a reload, and contradicts no other."""
        for _ in range(2):
            self.assertEqual("", self.look(THERE))
            self.assertIn(f"rotated to {self.new.public}", self.agreement.difference)
        self.replicas.key = str(self.new.public)
        self.assertEqual("", self.look(evolve(THERE, public_key=str(self.new.public))))
        (line,) = self.said(LogLevel.info)
        self.assertIn("until it is reloaded", line)
        self.assertEqual([], self.said(LogLevel.error))

    def test_the_other_has_the_former_key(self) -> None:
        """It will be reloaded, too: no trouble, although another difference is one."""
        self.agreement.adopt(self.adopted())
        self.replicas.key = str(self.new.public)
        self.assertEqual("", self.look(THERE))
        self.assertEqual("", self.agreement.difference)
        self.assertIn("cluster-secret", self.look(evolve(THERE, secret="f00d")))
        other = str(SecretKey.generate("x").public)
        self.assertIn(other, self.look(evolve(THERE, public_key=other)))

    def test_after_a_reload(self) -> None:
        """The note ends when this replica has the new key."""
        self.look(THERE)
        self.agreement.adopt(self.adopted())
        self.replicas.key = str(self.new.public)
        self.look(THERE)
        self.assertEqual("", self.agreement.difference)
        self.assertEqual(str(self.new.public), self.replicas.rows["here"].replica.public_key)

    def test_a_damaged_list(self) -> None:
        """The trouble is the same as without the list: the store keeps another key."""
        del self.config.values[FORMER]
        self.assertIn("keeps another signing key", self.look())


class ContradictionTests(AgreementCase):
    def wrong(self, mine: dict[str, Any], theirs: dict[str, Any]) -> str:
        """Return the sentences on two replicas with these facts."""
        self.replicas.rows = {}
        self.agreement = self.agreement_of(evolve(HERE, **mine))
        return self.look(evolve(THERE, **theirs))

    def test_one_address(self) -> None:
        """Two replicas must not have the same address; both may have none."""
        self.assertIn("cluster-advertise-url=http://a:1", self.wrong({}, {"url": HERE.url}))
        self.assertEqual("", self.wrong({"url": ""}, {"url": ""}))

    def test_secrets(self) -> None:
        """A replica without a secret contradicts no other."""
        self.assertIn("cluster-secret", self.wrong({}, {"secret": "f00d"}))
        self.assertEqual("", self.wrong({}, {"secret": ""}))

    def test_locks(self) -> None:
        """Backends, prefixes and databases of Redis; local locks reach no other replica."""
        self.assertIn("redis and postgresql", self.wrong({}, {"locks": "postgresql"}))
        trouble = self.wrong({}, {"prefix": "0 other:"})
        for part in ("cache-lock-redis-key-prefix", "0 ncps:", "0 other:"):
            self.assertIn(part, trouble)
        self.assertIn("cache-redis-db", self.wrong({}, {"prefix": "1 ncps:"}))
        self.assertIn("=local", self.wrong({"locks": "local"}, {"locks": "local"}))
        same = {"locks": "postgresql", "prefix": "", "redis": ""}
        self.assertEqual("", self.wrong(same, same))

    def test_numbers_of_servers(self) -> None:
        """A majority of three Redis servers is no majority of one; any Sentinels may be named."""
        three = {"redis": "a:1, b:1, c:1"}
        trouble = self.wrong({}, three)
        for part in ("cache-redis-addrs", "redis:6379 and a:1, b:1, c:1", "the same servers"):
            self.assertIn(part, trouble)
        self.assertEqual("", self.agreement.difference)
        self.assertEqual("", self.wrong(three, three))
        self.assertEqual("", self.wrong({"redis": "a:1, b:1 ours"}, {"redis": "c:1 ours"}))

    def test_buckets(self) -> None:
        """Two buckets, prefixes or servers; one server may have two names."""
        for theirs in (
            {"store": "other/"},
            {"store": "bucket/p"},
            {"store_at": "http://else", "cluster": "another"},
        ):
            trouble = self.wrong({}, theirs)
            for part in ("different stores", "cache-storage-s3-bucket", "bucket/ at http://s3"):
                self.assertIn(part, trouble)
        self.assertEqual("", self.wrong({}, {"store_at": "http://else"}))
        self.assertEqual("", self.wrong({}, {"cluster": "another"}))  # it was emptied in between

    def test_directories(self) -> None:
        """A directory is for one daemon, even one that is mounted on two machines."""
        here = {"store": "/srv/ncps", "store_at": "8:100"}
        for theirs, word in (
            ({"store": "/srv/ncps", "store_at": "8:100", "cluster": "another"}, "different stores"),
            ({"store": "/srv/ncps", "store_at": "8:101"}, "different stores"),
            ({"store": "/mnt/ncps", "store_at": "9:100"}, "one directory"),
            ({}, "different stores"),
        ):
            trouble = self.wrong(here, theirs)
            for part in (word, "/srv/ncps on a", "cache-storage-s3-bucket"):
                self.assertIn(part, trouble)

    def test_what_may_be_meant(self) -> None:
        """Other upstream keys and other names of Redis are reported, and are no trouble."""
        for theirs, word in (
            ({"trusted": "4567: b-1"}, "cache-upstream-public-key"),
            ({"redis": "10.0.0.1:6379"}, "cache-redis-addrs"),
        ):
            self.assertEqual("", self.wrong({}, theirs))
            self.assertIn(word, self.agreement.difference)
            self.assertIn("http://b:2", self.agreement.difference)
        self.assertEqual([], self.said(LogLevel.error))

    def test_older_programs(self) -> None:
        """A fact that a replica's entry lacks contradicts nothing."""
        self.replicas.rows = {}
        self.assertEqual("", self.look(Replica(id="old", host="c", pid=3)))
        self.assertEqual("", self.agreement.difference)
