"""`ncps keys` on a bucket, and rotations while processes share it."""

from __future__ import annotations

import os
import signal

from ncps.nix.keys import SecretKey
from tests.e2e.bucket import BucketDaemon
from tests.system.keying import KeyCommands
from tests.system.program import Done, run_ncps
from tests.system.signing import SigningStage
from tests.system.test_s3 import BucketStage
from tests.waiting import free_port, wait_until


class BucketKeysStage(KeyCommands, BucketStage, SigningStage):
    """A new bucket, and a daemon that was not started yet."""

    def setUp(self) -> None:
        super().setUp()
        self.upstream = self.mounted()
        self.ncps = self.bucket_daemon(self.upstream)

    def keys(self, *words: str, flags: tuple[str, ...] = ()) -> Done:
        """Run `ncps keys WORDS`."""
        done = run_ncps(self.ncps, "keys", *words, flags=flags)
        self.assertNotIn("Traceback", done.stderr)
        for secret in (self.server.secret_key, self.kept("cache.key").rpartition(":")[2]):
            self.assertFalse(secret and secret[:30] in done.stdout + done.stderr)
        return done

    def kept(self, name: str) -> str:
        """Return an object of the bucket below `config`; empty if it does not exist."""
        where = f"/{self.ncps.bucket}/config/{name}"
        status, body = self.server.request("GET", where)
        return body.decode() if status == 200 else ""

    def reload(self, daemon: BucketDaemon, key: str) -> None:
        """Send SIGHUP, and wait until every process of the daemon signs with a key."""
        os.kill(daemon.pid, signal.SIGHUP)
        wait_until(
            lambda: {daemon.public_key() for _ in range(6)} == {key}, "the new key", daemon=daemon
        )


class CommandTests(BucketKeysStage):
    def test_before_the_first_start(self) -> None:
        """A command makes the key, and the daemon uses it."""
        for step in ("show", "rotate"):
            self.assertIn("keys generate", self.refusal(step))
        made = self.said("generate").strip()
        self.assertIn(made, self.refusal("generate"))
        self.assertEqual(f"{made}  signs\n", self.said("show"))
        self.ncps.start()
        self.assertEqual(made, self.ncps.public_key())
        self.ncps.stop()

    def test_a_key_from_elsewhere(self) -> None:
        """Of several keys imported at the same time one is stored, and all commands say so."""
        keys = [SecretKey.generate(f"elsewhere-{number}") for number in range(4)]
        files = [self.directory / key.name for key in keys]
        for key, file in zip(keys, files, strict=True):
            file.write_text(key.export())
        done = self.at_once(*(lambda f=f: self.keys("import", str(f)) for f in files))
        kept = SecretKey.parse(self.kept("cache.key"))
        self.assertEqual(
            [0 if key.public == kept.public else 1 for key in keys],
            [it.returncode for it in done],
            [it.stderr for it in done],
        )
        self.assertTrue(all(str(kept.public) in it.stdout + it.stderr for it in done))

    def test_rotations_at_the_same_time(self) -> None:
        """Rotations at the same time make one new key."""
        old = self.said("generate").strip()
        done = self.at_once(*[lambda: self.keys("rotate")] * 4)
        new = str(SecretKey.parse(self.kept("cache.key")).public)
        self.assertEqual({new}, {it.stdout.split()[0] for it in done if not it.returncode})
        self.assertEqual(1, self.kept("cache.key.former").count("\n"))
        self.assertIn(f"{old}  signs until", self.said("show"))

    def test_a_bucket_that_cannot_be_had(self) -> None:
        """The command soon prints one line with the fault, and no secret."""
        self.said("generate")
        away = f"http://127.0.0.1:{free_port()}"
        for step in ("show", "generate", "rotate"):
            for flags, word in (
                (("--cache-storage-s3-endpoint", away), "cannot connect to"),
                (("--cache-storage-s3-bucket", "not-there"), "not-there"),
                (("--cache-storage-s3-access-key-id", "another"), "access-key"),
            ):
                self.assertIn(word, self.refusal(step, flags=flags))


class RotationTests(BucketKeysStage):
    """After a rotation two keys sign for a month."""

    def test_all_workers_take_the_key(self) -> None:
        """A reload is enough for all workers; older narinfos get the new signature, too."""
        self.ncps.options = (*self.ncps.options, "--workers", "2")
        self.ncps.start()
        old = self.ncps.public_key()
        before = self.added()
        self.assertEqual({old}, self.signers(self.ncps, before, old))
        new = self.said("rotate").split()[0]
        self.reload(self.ncps, new)
        for path in (before, self.added()):
            for _ in range(4):
                self.assertEqual({old, new}, self.signers(self.ncps, path, old, new))
        self.assertEqual(200, self.ask(self.ncps, "/readyz").status)
        self.ncps.stop()
