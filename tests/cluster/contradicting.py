"""Replicas that contradict each other."""

from __future__ import annotations

import os
import re
import secrets
import signal
import time
from collections.abc import Sequence

from ncps.nix.keys import SecretKey
from tests.cluster.replicas import ClusterStage, Replica
from tests.system.program import run_ncps
from tests.waiting import wait_until

ROUND_S = 3.0
"""Seconds between entries of replicas here; by default it is 15 s."""
HASTE = {"ncps.assembly.tickers.REPLICAS_S": ROUND_S}

DEADLINE_S = 45.0


class Contradicting(ClusterStage):
    """Tests with two replicas on one database."""

    def make_replicas(self, count: int, *urls: str, options: Sequence[str] = ()) -> list[Replica]:
        """Return replicas with frequent entries that are not started."""
        made = super().make_replicas(count, *urls, options=options)
        for replica in made:
            replica.constants |= HASTE
        return made

    def pair(self, *flags: str, first: tuple[str, ...] = ()) -> tuple[Replica, Replica]:
        """Return two started replicas; the second has further flags."""
        url = self.mounted().url
        (one,) = self.replicas(1, url, options=first)
        (two,) = self.replicas(1, url, options=flags)
        return one, two

    def parts(self, replica: Replica) -> dict[str, str]:
        """Return the parts of `/readyz`; no contradiction makes a replica unready."""
        ready = self.ask(replica, "/readyz")
        self.assertEqual((200, True), (ready.status, ready.json["ready"]))
        found: dict[str, str] = ready.json["parts"]
        return found

    def assert_told(self, one: Replica, two: Replica, *words: str, part: str = "replicas") -> None:
        """Check that readiness and one line of each name both, and have these words."""
        words = (*words, f"process {one.pid} on", f"process {two.pid} on")
        level = '"error"' if part == "replicas" else '"info"'
        for replica in (one, two):
            wait_until(
                lambda: all(word in self.parts(replica).get(part, "") for word in words),  # noqa: B023
                f"{words} under {part}",
                deadline=DEADLINE_S,
                daemon=replica,
            )
            told = self.parts(replica)[part]
            self.wait_for_log(replica, words[0])  # a thread writes the log, after `/readyz` has it
            lines = [line for line in replica.log.splitlines() if words[0] in line]
            self.assertEqual([True], [level in line for line in lines], told)

    def assert_ends(self, *replicas: Replica, part: str = "replicas") -> None:
        """Check that the contradiction is over."""
        for replica in replicas:
            wait_until(
                lambda: part not in self.parts(replica),  # noqa: B023
                f"{part} to be well",
                deadline=2 * DEADLINE_S,
                daemon=replica,
            )
            self.wait_for_log(replica, "resolved: ")

    def test_different_secrets(self) -> None:
        """Both report it until the other one is gone."""
        one, two = self.pair("--cluster-secret", "s" * 32)
        self.assert_told(one, two, "(cluster-secret)", one.url, two.url, "the same")
        self.assertNotIn("s" * 32, one.log + two.log)
        two.stop()
        self.assert_ends(one)

    def test_one_address_for_two(self) -> None:
        """Each reports the process of the other."""
        address = "http://127.0.0.1:1"
        flags = ("--cluster-advertise-url", address)
        one, two = self.pair(*flags, first=flags)
        self.assert_told(one, two, f"cluster-advertise-url={address}", "of its own")

    def test_different_prefixes(self) -> None:
        """The prefixes are those of the names of locks in Redis."""
        one, two = self.pair("--cache-lock-redis-key-prefix", "elsewhere:")
        prefix = self.setting("--cache-lock-redis-key-prefix")
        self.assert_told(one, two, "cache-lock-redis-key-prefix", prefix, "elsewhere:")

    def test_two_buckets(self) -> None:
        """There is one database and two stores, each with a key of its own."""
        url = self.mounted().url
        key = SecretKey.generate("both")
        file = self.directory / "key"
        file.write_text(key.export())
        flags = ("--cache-secret-key-path", str(file))
        (one,) = self.replicas(1, url, options=flags)
        bucket = self.backends.s3.new_bucket()
        (two,) = self.replicas(1, url, options=(*flags, "--cache-storage-s3-bucket", bucket))
        self.assert_told(one, two, "different stores", self.bucket, bucket, "cache-database-url")

    def test_two_buckets_with_keys_of_their_own(self) -> None:
        """The second store's new key is never made, because the catalog knows one."""
        (one,) = self.replicas(1, self.mounted().url)
        bucket = self.backends.s3.new_bucket()
        said = self.refusal("--cache-storage-s3-bucket", bucket)
        self.assertIn(one.public_key(), said)
        self.assertEqual(404, self.backends.s3.request("GET", f"/{bucket}/config/cache.key")[0])

    def test_different_upstream_keys(self) -> None:
        """It is allowed, and reported."""
        other = str(SecretKey.generate("else-1").public)
        one, two = self.pair("--cache-upstream-public-key", other)
        self.assert_told(
            one, two, "cache-upstream-public-key", "else-1", one.url, two.url, part="differences"
        )
        self.assertNotIn("replicas", self.parts(one))

    def refusal(self, *flags: str) -> str:
        """Return the message of a replica that must not start."""
        (replica,) = self.make_replicas(1, self.origin().url)
        done = run_ncps(replica, "serve", flags=flags)
        said = done.stdout + done.stderr
        self.assertEqual(1, done.returncode, said)
        self.assertNotIn("Traceback", said)
        return said

    def test_the_bucket_is_emptied(self) -> None:
        """A restart fails before there is a second key, and the running ones report it."""
        one, two = self.replicas(2, self.mounted().url)
        key = one.public_key()
        self.backends.s3.request("DELETE", f"/{self.bucket}/config/cache.key")
        self.backends.s3.request("DELETE", f"/{self.bucket}/config/cluster_uuid")
        two.stop()
        done = run_ncps(two, "serve")
        said = done.stdout + done.stderr
        self.assertEqual(1, done.returncode, said)
        for part in (key, "no signing key", one.url, "--accept-new-key"):
            self.assertIn(part, said)
        target = f"/{self.bucket}/config/cache.key"
        self.assertEqual(404, self.backends.s3.request("GET", target)[0])
        wait_until(
            lambda: "no signing key" in self.parts(one).get("replicas", ""),
            "the other to tell of it",
            deadline=DEADLINE_S,
            daemon=one,
        )
        two.options = ("--accept-new-key",)
        two.start()
        other = two.public_key()
        self.assertNotEqual(key, other)
        self.assert_told(one, two, "sign with different keys", key, other, one.url, two.url)
        one.stop()
        one.start()
        self.assertEqual(other, one.public_key())
        two.stop()
        two.options = ()
        two.start()
        time.sleep(1.4 * ROUND_S)
        self.assertEqual([False] * 2, ["replicas" in self.parts(each) for each in (one, two)])

    def test_a_rotation(self) -> None:
        """Replicas use the new key one after the other; none contradicts another."""
        one, two = self.replicas(2, self.mounted().url)
        old = one.public_key()
        done = run_ncps(one, "keys", "rotate")
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        new = done.stdout.split()[0]
        self.assertNotEqual(0, run_ncps(two, "keys", "rotate").returncode)
        two.stop()
        two.start()
        self.assertEqual((old, new), (one.public_key(), two.public_key()))
        wait_until(
            lambda: f"rotated to {new}" in self.parts(one).get("differences", ""),
            "the other to tell of it",
            deadline=DEADLINE_S,
            daemon=one,
        )
        self.assertEqual([False] * 2, ["replicas" in self.parts(each) for each in (one, two)])
        os.kill(one.pid, signal.SIGHUP)
        wait_until(lambda: one.public_key() == new, "the other to reload", daemon=one)
        self.assert_ends(one, part="differences")
        self.assertEqual([False] * 2, ["replicas" in self.parts(each) for each in (one, two)])

    def test_another_key_is_given(self) -> None:
        """Beside a running replica it is refused with its name, or accepted and reported."""
        one, other = self.replicas(1, self.mounted().url)[0], SecretKey.generate("given")
        file = self.directory / "key"
        file.write_text(other.export())
        flags = ("--cache-secret-key-path", str(file))
        said = self.refusal(*flags)
        for part in (one.url, f"process {one.pid}", one.public_key(), str(other.public)):
            self.assertIn(part, said)
        (two,) = self.replicas(1, self.origin().url, options=(*flags, "--accept-new-key"))
        self.assert_told(one, two, "sign with different keys", str(other.public))
        one.stop()
        (three,) = self.replicas(1, self.origin().url, options=flags)
        self.assertEqual(two.public_key(), three.public_key())

    def test_replicas_that_agree(self) -> None:
        """Nothing is reported: at first, after a kill, and with other flags after a restart."""
        one, two = self.replicas(2, self.mounted().url)
        two.kill()
        two.options = ("--cache-lock-redis-key-prefix", f"x{secrets.token_hex(2)}:")
        self.share("--cache-lock-redis-key-prefix", two.options[1])
        two.start()
        one.kill()
        one.options = two.options
        one.start()
        two.stop()
        two.start()
        time.sleep(2.4 * ROUND_S)
        for replica in (one, two):
            self.assertNotIn("replicas", self.parts(replica))
            self.assertNotIn("differences", self.parts(replica))
            after = replica.log.rpartition("public key")[2]
            self.assertIsNone(re.search(r"this replica,", after), after)
        rows = self.backends.database.execute("SELECT id FROM replicas", self.database_name)
        self.assertEqual(2, len(rows))
