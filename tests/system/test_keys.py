"""`ncps keys`, beside a daemon and without one."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from ncps.nix.keys import SecretKey
from tests.system.keying import KeyCommands
from tests.system.life import LifeStage
from tests.system.program import Done, run_ncps, settings_of
from tests.system.signing import SigningStage


class KeysStage(KeyCommands, SigningStage):
    """A daemon that was not started yet."""

    def setUp(self) -> None:
        super().setUp()
        self.upstream = self.mounted()
        self.ncps = self.make_daemon(self.upstream)

    def keys(self, *words: str, flags: tuple[str, ...] = ()) -> Done:
        """Run `ncps keys WORDS`; the output must have no secret."""
        done = run_ncps(self.ncps, "keys", *words, flags=flags)
        self.assertNotIn("Traceback", done.stderr)
        for file in (self.ncps.storage / "config").glob("cache.key*"):
            for line in file.read_text().splitlines():
                self.assertNotIn(line.rpartition(":")[2][:30], done.stdout + done.stderr)
        return done

    def made_key(self, name: str) -> tuple[Path, SecretKey]:
        file = self.directory / f"{name}.secret"
        self.said("generate", "--output", str(file), "--name", name)
        return file, SecretKey.parse(file.read_text())


class CommandTests(KeysStage):
    def test_before_the_first_start(self) -> None:
        """A command makes the key, and the daemon uses it."""
        for step in ("show", "rotate"):
            self.assertIn("keys generate", self.refusal(step))
        made = self.said("generate").strip()
        self.assertIn(made, self.refusal("generate"))
        self.assertEqual(f"{made}  signs\n", self.said("show"))
        self.ncps.start()
        self.assertEqual(made, self.ncps.public_key())
        self.assertEqual(f"{made}  signs\n", self.said("show"))
        self.ncps.stop()

    def test_a_key_from_elsewhere(self) -> None:
        """A store without a key imports it; a store with another key keeps that."""
        file, key = self.made_key("elsewhere-1")
        self.assertEqual(0o600, file.stat().st_mode & 0o777)
        self.assertIn("exists", self.refusal("generate", "--output", str(file)))
        for _ in range(2):
            self.assertEqual(f"{key.public}\n", self.said("import", str(file)))
        other, _ = self.made_key("other-1")
        self.assertIn(f"already has the key {key.public}", self.refusal("import", str(other)))
        self.assertIn("not a secret key of Nix", self.refusal("import", "/etc/hostname"))
        self.assertIn("No such file", self.refusal("import", str(self.directory / "away")))

    def test_a_key_of_the_settings(self) -> None:
        """It overrides the key of the store, so the commands do not change it."""
        made = self.said("generate").strip()
        file, key = self.made_key("mine-1")
        flags = ("--cache-secret-key-path", str(file))
        shown = self.said("show", flags=flags)
        self.assertIn(f"{key.public}  signs", shown)
        self.assertIn(f"{made}  is in the store", shown)
        self.assertIn("leave that setting out", self.refusal("rotate", flags=flags))


PTY = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


class FirstStartTests(LifeStage):
    """`ncps serve` on a terminal."""

    def test_a_terminal(self) -> None:
        """The first start shows the lines for Nix; later starts and files do not."""
        daemon = self.make_daemon(self.origin())
        for is_first in (True, False):
            size = len(daemon.log)
            command = ["-c", PTY, sys.executable, "-m", "ncps", "serve", *settings_of(daemon)]
            process = self.spawn(daemon, command)
            self.wait_until_listening(daemon)
            lines = (
                f"substituters = {daemon.url}",
                f"trusted-public-keys = {daemon.public_key()}",
                f"Data      {daemon.storage}",
                "Upstream  http://127.0.0.1:",
            )
            if is_first:
                self.wait_for_log(daemon, "`ncps help` the commands.")
            else:
                self.wait_for_log(daemon, "public key")
            self.assertEqual([is_first] * 4, [line in daemon.log[size:] for line in lines])
            os.kill(self.child_of(process.pid), signal.SIGTERM)
            process.wait(20)

    def child_of(self, pid: int) -> int:
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


class RotationTests(KeysStage):
    """After a rotation two keys sign for a month."""

    def test_a_rotation(self) -> None:
        """A running daemon continues; the next one has both keys, and old signatures stay."""
        self.ncps.start()
        old = self.ncps.public_key()
        before = self.added()
        self.assertEqual({old}, self.signers(self.ncps, before, old))
        new = self.said("rotate").split()[0]
        self.assertIn("--again", self.refusal("rotate"))
        while_running = self.added()
        self.assertEqual(old, self.ncps.public_key())
        self.assertEqual({old}, self.signers(self.ncps, while_running, old, new))
        self.ncps.stop()
        self.ncps.start()
        self.assertEqual(new, self.ncps.public_key())
        self.assertEqual(new, self.ask(self.ncps, "/").json["publicKey"])
        after = self.added()
        for path in (before, while_running, after):
            self.assertEqual({old, new}, self.signers(self.ncps, path, old, new))
        self.assertIn(f"{old}  signs until", self.said("show"))
        self.assertEqual(200, self.ask(self.ncps, "/readyz").status)
        self.ncps.stop()
        done = run_ncps(self.ncps, "rebuild")
        self.assertEqual(0, done.returncode, done.stderr)

    def test_a_rotation_without_overlap(self) -> None:
        """The former key makes no new signatures."""
        file, key = self.made_key("next-1")
        old = self.said("generate").strip()
        said = self.said("rotate", "--overlap", "0s", "--to", str(file))
        self.assertIn(f"{old}  no longer signs", said)
        self.ncps.start()
        self.assertEqual(str(key.public), self.ncps.public_key())
        self.assertEqual(
            {str(key.public)}, self.signers(self.ncps, self.added(), old, str(key.public))
        )
        self.ncps.stop()
