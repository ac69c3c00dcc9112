"""The facts of a daemon on the roll, and the entries of its former processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from ncps.assembly.replicas import former_lives, key_wish, own_facts
from ncps.assembly.role import Alone
from ncps.ports import Replica
from ncps.settings.load import load
from ncps.settings.schema.tree import Settings
from ncps.settings.surroundings import Surroundings

SECRET = "a secret of enough characters"
DATABASE = "--cache-database-url=postgresql://ncps@db/ncps"
BUCKET = ("--cache-storage-s3-bucket=bucket", "--cache-storage-s3-endpoint=http://s3:9000")


class FactsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        (self.root / "storage").mkdir(parents=True)

    def settings(self, *flags: str) -> Settings:
        given: dict[str, list[str]] = {}
        for flag in flags:
            name, _, value = flag.removeprefix("--").partition("=")
            given.setdefault(name, []).append(value or "true")
        around = Surroundings(
            environ={},
            home=self.root,
            config_dir=self.root,
            state_dir=self.root,
            machine_name="vm",
            is_terminal=False,
        )
        return load(given, surroundings=around)

    def facts(self, *flags: str) -> Replica:
        return own_facts(self.settings(*flags), Alone(None))


class OwnFactsTests(FactsCase):
    def test_a_bucket_and_redis(self) -> None:
        """Everything that replicas must have in common is a fact, without secrets."""
        flags = [
            *(DATABASE, *BUCKET, "--cache-storage-s3-prefix=p/q"),
            "--cache-redis-addrs=redis",
            "--cache-redis-password=topsecret",
            *("--cache-lock-backend=redis", "--cache-lock-redis-key-prefix=x:"),
            *(f"--cluster-secret={SECRET}", "--cluster-advertise-url=http://10.0.0.7:8501"),
        ]
        told = self.facts(*flags)
        self.assertEqual(("bucket/p/q", "http://s3:9000"), (told.store, told.store_at))
        self.assertEqual(("redis", "redis:6379", "0 x:"), (told.locks, told.redis, told.prefix))
        self.assertEqual(("http://10.0.0.7:8501", os.getpid()), (told.url, told.pid))
        self.assertIn("cache.nixos.org-1", told.trusted)
        for secret in (SECRET, "topsecret"):
            self.assertNotIn(secret, repr(told))

    def test_a_fingerprint(self) -> None:
        """It depends on the secret and has 32 bits; a generated secret has none."""
        one, again, two = (
            self.facts(DATABASE, f"--cluster-secret={secret}").secret
            for secret in (SECRET, SECRET, SECRET + "!")
        )
        self.assertEqual((one, 8), (again, len(one)))
        self.assertNotEqual(one, two)
        made_up = self.settings(DATABASE)
        made_up = evolve(made_up, cluster=evolve(made_up.cluster, secret=SECRET))
        self.assertEqual("", own_facts(made_up, Alone(None)).secret)

    def test_trusted_keys(self) -> None:
        """Their order and repetition do not matter."""
        one, two = "a:" + "A" * 43 + "=", "b:" + "B" * 42 + "A="
        told = {
            self.facts(*(f"--cache-upstream-public-key={key}" for key in keys)).trusted
            for keys in ((one, two), (two, one), (one, two, one))
        }
        self.assertEqual(1, len(told))
        self.assertNotEqual(told, {self.facts(f"--cache-upstream-public-key={one}").trusted})

    def test_a_directory(self) -> None:
        """Its facts have the device and the inode."""
        told = self.facts(f"--cache-storage-local={self.root}")
        facts = self.root.stat()
        self.assertEqual(
            (str(self.root), f"{facts.st_dev}:{facts.st_ino}", "", ""),
            (told.store, told.store_at, told.redis, told.prefix),
        )

    def test_names_that_somebody_gave(self) -> None:
        """The machine's name does not count as a given name."""
        self.assertFalse(key_wish(self.settings()).is_named)
        named = key_wish(self.settings("--cache-hostname=cache.lan", "--accept-new-key"))
        self.assertEqual(("cache.lan", True), (named.hostname, named.is_named))
        self.assertTrue(named.accepts_new)


class FormerLivesTests(FactsCase):
    def setUp(self) -> None:
        super().setUp()
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        self.gone = gone.pid

    def is_former(self, flags: tuple[str, ...], **changes: object) -> bool:
        settings = self.settings(*flags)
        own = own_facts(settings, Alone(None))
        other = evolve(own, id="other", **changes)  # type: ignore[arg-type]
        return former_lives(settings, own)(other)

    def test_on_a_server(self) -> None:
        """The same host and URL, and a process that has ended or has our process id."""
        flags = (DATABASE, *BUCKET)
        self.assertTrue(self.is_former(flags, pid=self.gone))
        self.assertTrue(self.is_former(flags))
        self.assertFalse(self.is_former(flags, pid=os.getppid()))
        self.assertFalse(self.is_former(flags, pid=self.gone, host="other"))
        self.assertFalse(self.is_former(flags, pid=self.gone, url="http://x"))

    def test_locks_that_we_hold(self) -> None:
        """No other daemon has this SQLite file, or this directory on this host."""
        self.assertTrue(self.is_former((), host="other", pid=os.getppid()))
        flags = (DATABASE, f"--cache-storage-local={self.root}")
        self.assertTrue(self.is_former(flags, pid=os.getppid(), url="http://x"))
        self.assertFalse(self.is_former(flags, pid=os.getppid(), store="/other"))
        self.assertFalse(self.is_former(flags, pid=os.getppid(), host="other"))

    def test_oneself(self) -> None:
        """The workers of a daemon share an entry, which is not a former one."""
        settings = self.settings()
        own = own_facts(settings, Alone(None))
        self.assertFalse(former_lives(settings, own)(own))
