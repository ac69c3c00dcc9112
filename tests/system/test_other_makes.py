"""Stores of the Go program, and stores that another daemon uses."""

from __future__ import annotations

import shutil

import zstandard

from tests.system.program import run_ncps
from tests.system.stage import Stage

SIZE = 3_000_000


class OtherMakeTests(Stage):
    """A store of the Go program."""

    def test_recompressed_tree_is_served(self) -> None:
        """An uncompressed NAR stored as .nar.zst is served under its name, also in parts."""
        path = self.cache.add(SIZE, compression="none")
        origin = self.mounted()
        origin.withdraw(path.nar_target)
        daemon = self.make_daemon(origin)
        name = path.url.removeprefix("nar/")
        directory = daemon.storage / "store" / "nar" / name[0] / name[:2]
        directory.mkdir(parents=True, exist_ok=True)
        stored = zstandard.ZstdCompressor().compress(path.file)
        (directory / f"{name}.zst").write_bytes(stored)
        daemon.start()
        for _ in range(2):
            self.assert_served(daemon, path)
            part = self.nar(daemon, path, Range="bytes=100000-199999")
            self.assertEqual((206, path.file[100_000:200_000]), (part.status, part.body))
            tail = self.nar(daemon, path, Range="bytes=-10")
            self.assertEqual((206, path.file[-10:]), (tail.status, tail.body))
            head = self.ask(daemon, path.nar_target, method="HEAD")
            self.assertEqual(str(len(path.file)), head.headers["content-length"])
            daemon.stop()
            daemon.start()
        self.assertEqual(0, origin.gets(path.nar_target))

    def test_plain_tree_is_served(self) -> None:
        """A compressed NAR of an old store is recorded, not fetched."""
        path = self.cache.add(SIZE)
        origin = self.mounted()
        origin.withdraw(path.nar_target)
        daemon = self.make_daemon(origin)
        name = path.url.removeprefix("nar/")
        directory = daemon.storage / "store" / "nar" / name[0] / name[:2]
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(path.file)
        (daemon.storage / "store" / "tmp").mkdir()
        daemon.start()
        self.assert_served(daemon, path)

    def test_key_of_an_old_tree_is_used(self) -> None:
        """The secret key in config/cache.key of the old store is still used."""
        first = self.daemon(self.origin())
        key = first.public_key()
        first.stop()
        second = self.make_daemon(self.origin())
        shutil.copytree(first.storage / "config", second.storage / "config")
        second.start()
        self.assertEqual(key, second.public_key())


class LockTests(Stage):
    """Two daemons on one store or database."""

    def test_second_daemon_on_the_same_store_refuses(self) -> None:
        """The second daemon names the first, with exit code 1 and no traceback."""
        daemon = self.daemon(self.origin())
        for option in (
            ("--cache-database-url", f"sqlite:{self.directory}/other.sqlite"),
            ("--cache-storage-local", str(self.directory / "other")),
        ):
            done = run_ncps(daemon, "serve", flags=option)
            self.assertEqual(1, done.returncode, done.stderr)
            self.assertRegex(done.stderr, r"ncps: error: .* is in use by process \d+ on ")
            self.assertNotIn("Traceback", done.stderr + done.stdout)
        self.assertEqual(200, self.ask(daemon, "/readyz").status)
        daemon.kill()
        daemon.start()
