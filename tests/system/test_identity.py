"""The signing key is lost or changed, or has another name than the cache."""

from __future__ import annotations

from pathlib import Path

from ncps.nix.keys import PublicKey, SecretKey, Signature
from tests.system.program import run_ncps
from tests.system.stage import Stage, log_lines
from tests.waiting import wait_until

WAYS_OUT = ("restore config/cache.key", "--cache-secret-key-path", "--accept-new-key")


class IdentityStage(Stage):
    """A daemon that was started once.

    :ivar key: its public key, as of its last life.
    """

    def setUp(self) -> None:
        super().setUp()
        self.upstream = self.mounted()
        self.ncps = self.make_daemon(self.upstream)
        self.restart()
        self.file = self.ncps.storage / "config" / "cache.key"

    def key_file(self, key: SecretKey) -> Path:
        file = self.directory / f"{key.name}.secret"
        file.write_text(key.export())
        return file

    def refusal(self, *flags: str, command: str = "serve") -> str:
        """Return the message of a refused start; check that the store has not changed."""
        before = self.stored()
        done = run_ncps(self.ncps, command, flags=flags)
        said = done.stdout + done.stderr
        self.assertEqual(1, done.returncode, said)
        self.assertEqual(before, self.stored())
        self.assertNotIn("Traceback", said)
        return said

    def stored(self) -> dict[str, bytes]:
        config = self.ncps.storage / "config"
        return {file.name: file.read_bytes() for file in config.iterdir()}

    def restart(self, *flags: str) -> list[str]:
        """Start with further flags and stop; return the warnings.

        `/pubkey`, `/`, the line of the start and the signatures must agree.
        """
        options, seen = self.ncps.options, len(log_lines(self.ncps))
        self.ncps.options = (*options, *flags)
        self.ncps.start()
        self.key = self.ncps.public_key()
        self.assertEqual(self.key, self.ask(self.ncps, "/").json["publicKey"])
        path = self.cache.add()
        self.cache.mount_path(self.upstream, path)
        self.assert_signed(self.narinfo(self.ncps, path).body.decode(), path.fingerprint)
        self.ncps.stop()
        self.ncps.options = options
        lines = log_lines(self.ncps)[seen:]
        (start,) = [line["message"] for line in lines if "public key" in line["message"]]
        self.assertIn(self.key, start)
        return [line["message"] for line in lines if line["level"] == "warn"]

    def assert_signed(self, narinfo: str, fingerprint: str) -> None:
        key = PublicKey.parse(self.key)
        lines = [line for line in narinfo.splitlines() if line.startswith(f"Sig: {key.name}:")]
        signatures = [Signature.parse(line.removeprefix("Sig: ")) for line in lines]
        self.assertEqual([True], [key.verify(fingerprint.encode(), one) for one in signatures])


class KeyTests(IdentityStage):
    """`config/cache.key`."""

    def test_lost(self) -> None:
        """ncps makes no other key for a store without its key; a restored key works."""
        kept, former = self.file.read_bytes(), self.key
        self.file.unlink()
        for command in ("serve", "rebuild"):
            said = self.refusal(command=command)
            for part in (former, "no signing key", *WAYS_OUT):
                self.assertIn(part, said)
        self.file.write_bytes(kept)
        self.assertEqual([], self.restart())
        self.assertEqual(former, self.key)

    def test_the_old_one_is_given(self) -> None:
        """The old key, from a file, is stored again."""
        kept, former = self.file.read_bytes(), self.key
        self.file.unlink()
        file = self.key_file(SecretKey.parse(kept.decode()))
        self.assertEqual([], self.restart("--cache-secret-key-path", str(file)))
        self.assertEqual((former, kept), (self.key, self.file.read_bytes()))

    def test_remade_under_the_same_name(self) -> None:
        """Another key in the store is refused, and the message has both keys."""
        other = SecretKey.generate(PublicKey.parse(self.key).name)
        self.file.write_text(other.export())
        said = self.refusal()
        for part in (self.key, str(other.public), *WAYS_OUT):
            self.assertIn(part, said)
        self.assertNotIn(other.export(), said)

    def test_accepted(self) -> None:
        """With the setting, ncps uses another key: a new one, or the one in the store."""
        former = self.key
        lying = SecretKey.generate(PublicKey.parse(former).name)
        for put in (self.file.unlink, lambda: self.file.write_text(lying.export())):
            put()
            told, hint = self.restart("--accept-new-key")
            self.assertNotEqual(former, self.key)
            for part in (former, self.key, "accept-new-key"):
                self.assertIn(part, told)
            self.assertIn("leave it out", hint)
            self.assertEqual([], self.restart())
            former = self.key
        self.assertEqual(str(lying.public), self.key)

    def test_left_on(self) -> None:
        """If the key has not changed, the setting earns a warning and changes nothing."""
        former = self.key
        (line,) = self.restart("--accept-new-key")
        self.assertIn("there was no new key to accept", line)
        self.assertEqual(former, self.key)

    def test_another_is_given(self) -> None:
        """The key of the setting counts, with one line; the old one without it is refused."""
        former, other = self.key, SecretKey.generate("given")
        flags = ("--cache-secret-key-path", str(self.key_file(other)))
        (line,) = self.restart(*flags)
        for part in (former, str(other.public), "cache-secret-key-path"):
            self.assertIn(part, line)
        self.assertEqual(str(other.public), self.key)
        self.assertEqual(1, len(self.restart(*flags)))
        said = self.refusal()
        for part in (former, str(other.public), *WAYS_OUT):
            self.assertIn(part, said)

    def test_a_new_database(self) -> None:
        """A new database learns the store's key, also by a rebuild."""
        former = self.key
        for command in (None, "rebuild"):
            for file in self.ncps.directory.glob("catalog.sqlite*"):
                file.unlink()
            if command is not None:
                self.assertEqual(0, run_ncps(self.ncps, command).returncode)
            self.assertEqual([], self.restart())
            self.assertEqual(former, self.key)
        self.file.unlink()
        self.assertIn(former, self.refusal())

    def test_lost_while_it_runs(self) -> None:
        """The log says so before the restart that would fail, and until the file is restored."""
        self.ncps.start()
        kept = self.file.read_bytes()
        self.file.unlink()
        self.wait_for_log(self.ncps, '"error"', "no signing key", self.key)
        ready = self.ask(self.ncps, "/readyz")
        self.assertEqual((200, True), (ready.status, ready.json["ready"]))
        self.assertIn("no signing key", ready.json["parts"]["replicas"])
        self.file.write_bytes(kept)
        wait_until(
            lambda: "replicas" not in self.ask(self.ncps, "/readyz").json["parts"],
            "the trouble to end",
            daemon=self.ncps,
        )
        self.ncps.stop()

    def test_killed_and_started_again(self) -> None:
        """The entry of a killed daemon does not count as another replica."""
        other = self.key_file(SecretKey.generate("given"))
        self.ncps.start()
        self.ncps.kill()
        (line,) = self.restart("--cache-secret-key-path", str(other))
        self.assertIn("from now on", line)

    def test_several_workers(self) -> None:
        """All workers sign with one key, and only one logs about it."""
        self.file.unlink()
        workers = ("--workers", "3")
        self.assertIn(self.key, self.refusal(*workers))
        former, seen = self.key, len(log_lines(self.ncps))
        options = self.ncps.options
        self.ncps.options = (*options, *workers, "--accept-new-key")
        self.ncps.start(120.0)
        self.ncps.stop()
        lines = [line["message"] for line in log_lines(self.ncps)[seen:]]
        starts = {line.partition("public key ")[2] for line in lines if "public key" in line}
        self.assertEqual(1, len(starts))
        self.assertNotIn(former, starts.pop())
        self.assertEqual(1, sum("from now on, as accept-new-key" in line for line in lines))
        self.assertEqual(1, sum("leave it out" in line for line in lines))
        self.ncps.options = options


class HostNameTests(IdentityStage):
    """`--cache-hostname` after the first start."""

    def test_another_name(self) -> None:
        """The key keeps its name, and one line says so."""
        former = self.key
        (line,) = self.restart("--cache-hostname", "cache.lan")
        for part in (former, "called test", "cache-hostname=cache.lan", "first start"):
            self.assertIn(part, line)
        self.assertEqual(former, self.key)
        self.assertEqual([], self.restart())
