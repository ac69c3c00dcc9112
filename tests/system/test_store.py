"""The store: full, read-only, after a crash, or without its database."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
from pathlib import Path

from tests.e2e.daemon import Daemon
from tests.services import require
from tests.system.caches import Dialect, StorePath
from tests.system.faults import Chunked, Stall
from tests.system.origin import Origin
from tests.system.program import run_ncps
from tests.system.stage import Stage
from tests.waiting import wait_until

SIZE = 3_000_000
MIDDLE = 1_000_000
ROOM = "1m"  # of a file system that is too small
NO_RESERVE = ("--cache-storage-min-free", "0")  # so that only the system reports that it is full


class SmallDiskTests(Stage):
    """A full file system."""

    def mount(self, directory: Path, *options: str) -> None:
        """Put a tmpfs onto a directory until the test ends."""
        directory.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "none", str(directory)]
        done = subprocess.run(command, capture_output=True, check=False)
        require(done.returncode == 0, "permission to mount")
        self.addCleanup(subprocess.run, ["umount", "-l", str(directory)], check=True)

    def assert_streams_through(self, daemon: Daemon, path: StorePath, *words: str) -> None:
        """Check that clients get a complete NAR several times, though it is never stored."""
        for _ in range(2):
            self.assert_served(daemon, path)
        self.wait_for_log(daemon, "passed through but is not kept", *words)
        self.assertEqual([], daemon.stored_nars())

    def test_full_directory_for_downloads(self) -> None:
        """If the directory for downloads is full, clients get all bytes, and the log says why."""
        path = self.cache.add(SIZE)
        daemon = self.make_daemon(self.mounted(), options=NO_RESERVE)
        self.mount(daemon.directory / "tmp", f"size={ROOM}")
        daemon.start()
        self.assert_streams_through(daemon, path, "would leave less than")

    def test_small_file_system_for_downloads(self) -> None:
        """ncps stores NARs on a file system smaller than the usual reserve, and the log says so."""
        path = self.cache.add(SIZE)
        daemon = self.make_daemon(self.mounted())
        self.mount(daemon.directory / "tmp", "size=64m")
        daemon.start()
        self.wait_for_log(daemon, "cache-temp-path", "one in memory with 64 MiB")
        self.assert_served(daemon, path)
        self.wait_until_stored(daemon, path)
        daemon.stop()
        done = run_ncps(daemon, "serve", flags=("--cache-storage-min-free=900000T",))
        self.assertEqual(1, done.returncode)
        self.assertIn("ncps: error: cache-storage-min-free: ", done.stderr)

    def test_disk_that_fills_unforeseen(self) -> None:
        """A NAR of unknown size that fills the disk in the middle reaches its clients complete."""
        path = self.cache.add(SIZE, dialect=Dialect.BARE, compression="zstd")
        daemon = self.make_daemon(self.mounted(Chunked()), options=NO_RESERVE)
        self.mount(daemon.directory / "tmp", f"size={ROOM}")
        daemon.start()
        self.assert_streams_through(daemon, path, "No space left")

    def test_many_clients_on_a_full_disk(self) -> None:
        """If the disk is full, several clients at the same time get the complete NAR."""
        path = self.cache.add(SIZE)
        daemon = self.make_daemon(self.mounted(), options=NO_RESERVE)
        self.mount(daemon.directory / "tmp", f"size={ROOM}")
        daemon.start()
        target = self.nar_target(daemon, path)
        for answer in self.at_once(*[lambda: self.ask(daemon, target)] * 4):
            self.assertEqual((200, True, path.file), (answer.status, answer.whole, answer.body))

    def test_full_store(self) -> None:
        """If the store is full, clients get all bytes, and later NARs that fit are stored."""
        path, small = self.cache.add(SIZE), self.cache.add(1000)
        daemon = self.make_daemon(self.mounted(), options=NO_RESERVE)
        self.mount(daemon.storage, f"size={ROOM}")
        daemon.start()
        self.assert_streams_through(daemon, path, "would leave less than")
        self.assert_served(daemon, small)
        self.wait_until_stored(daemon, small)

    def test_full_disk_and_a_cut_upstream(self) -> None:
        """If the disk is full, a client whose NAR is wrong sees a cut connection."""
        path = self.cache.add(SIZE)
        origin = self.mounted()
        origin.serve(path.nar_target, path.file[:-1] + b"\xee")
        daemon = self.make_daemon(origin, options=NO_RESERVE)
        self.mount(daemon.directory / "tmp", f"size={ROOM}")
        daemon.start()
        self.assertFalse(self.nar(daemon, path).whole)

    def test_full_disk_under_the_database(self) -> None:
        """Without space for a row, hits and misses reach clients; later all are stored."""
        old, *new = (self.cache.add(SIZE) for _ in range(4))
        origin = self.mounted()
        daemon = self.make_daemon(origin)
        disk = self.directory / "disk"
        daemon.options = (*daemon.options, "--cache-database-url", f"sqlite:{disk}/rows.sqlite")
        self.mount(disk, "size=4m")
        daemon.start()
        self.assert_served(daemon, old)
        self.wait_until_stored(daemon, old)
        ballast = disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        many = [self.cache.add(100) for _ in range(150)]  # more than the free pages in the file
        self.cache.mount(origin)
        for path in many:
            self.assertEqual(200, self.narinfo(daemon, path).status)
        self.wait_for_log(daemon, "served but not recorded", "full")
        for path in (old, *new):
            for _ in range(2):
                self.assert_served(daemon, path)
        self.assertEqual("hit", self.assert_served(daemon, old).outcome)
        ballast.unlink()
        for path in new:
            self.assert_served(daemon, path)
        self.wait_until_stored(daemon, old, *new)
        daemon.stop()

    def test_store_that_must_not_be_written(self) -> None:
        """A read-only store serves its NARs and streams others through."""
        old, new = self.cache.add(SIZE), self.cache.add(SIZE)
        daemon = self.daemon(self.mounted())
        self.assert_served(daemon, old)
        self.wait_until_stored(daemon, old)
        nars = str(daemon.storage / "store" / "nar")
        done = subprocess.run(["chattr", "-R", "+i", nars], capture_output=True, check=False)
        require(done.returncode == 0, "permission to make a directory immutable")
        self.addCleanup(subprocess.run, ["chattr", "-R", "-i", nars], check=True)
        self.assertEqual("hit", self.assert_served(daemon, old).outcome)
        for _ in range(2):
            self.assert_served(daemon, new)
        self.wait_for_log(daemon, "passed through but is not kept", "not permitted")
        self.assertEqual(200, self.ask(daemon, "/readyz").status)
        self.assertEqual(1, len(daemon.stored_nars()))


class CrashTests(Stage):
    """A store after SIGKILL."""

    def test_unfinished_download_is_swept_and_fetched_again(self) -> None:
        """Killed during a download, ncps stores no NAR, removes the file and fetches again."""
        path = self.cache.add(SIZE)
        origin = self.mounted(Stall(MIDDLE))
        daemon = self.daemon(origin, options=["--cache-upstream-idle-timeout", "60s"])
        self.exchange(daemon, self.nar_target(daemon, path))
        origin.wait_for_stall(path.nar_target)
        daemon.kill()
        spools = daemon.directory / "tmp"
        self.assertEqual(1, len(list(spools.iterdir())))
        self.assertEqual([], daemon.stored_nars())
        (spools / "not-ours").write_bytes(b"x")
        origin.release()
        daemon.start()
        self.wait_for_log(daemon, "removed 1 unfinished file")
        self.assertEqual(["not-ours"], [file.name for file in spools.iterdir()])
        self.assert_served(daemon, path)
        self.wait_until_stored(daemon, path)

    def test_bytes_without_a_row_are_adopted(self) -> None:
        """A NAR that was published before its row was written is not fetched again."""
        path = self.cache.add(SIZE)
        origin = self.mounted()
        daemon = self.daemon(origin)
        self.nar_target(daemon, path)
        daemon.kill()
        self.put(daemon, path.url.removeprefix("nar/"), path.file)
        daemon.start()
        self.assert_served(daemon, path)
        self.wait_for_log(daemon, "adopted stored NAR")
        self.assertEqual(0, origin.gets(path.nar_target))

    def test_wrong_bytes_without_a_row_are_set_aside(self) -> None:
        """A wrong file under a final name is never served."""
        path = self.cache.add(SIZE)
        daemon = self.daemon(self.mounted())
        name = self.nar_target(daemon, path).removeprefix("/nar/")
        self.put(daemon, name, path.file[:-1] + b"\xee")
        self.assert_served(daemon, path)
        self.wait_for_log(daemon, "set aside")

    def test_a_thing_that_is_not_a_file_is_replaced(self) -> None:
        """A pipe in place of a stored NAR, and a directory in place of a new one, are replaced."""
        stored, new = self.cache.add(SIZE), self.cache.add(SIZE)
        origin = self.mounted()
        daemon = self.daemon(origin)
        self.assert_served(daemon, stored)
        self.wait_until_stored(daemon, stored)
        (file,) = daemon.stored_nars()
        file.unlink()
        os.mkfifo(file)
        name = self.nar_target(daemon, new).removeprefix("/nar/")
        (daemon.storage / "store" / "nar" / name[0] / name[:2] / name).mkdir(parents=True)
        for path in (stored, new):
            self.assert_served(daemon, path)
            self.wait_until_stored(daemon, path)
            self.assertEqual("hit", self.assert_served(daemon, path).outcome)
        self.assertEqual((2, 1), (origin.gets(stored.nar_target), origin.gets(new.nar_target)))
        aside = (daemon.storage / "store" / "quarantine").iterdir()
        self.assertEqual([False, False], [thing.is_file() for thing in aside])

    def test_wrong_bytes_under_the_upstream_s_name_are_never_served(self) -> None:
        """Without a narinfo, the verified download replaces wrong bytes under that name."""
        known, unknown = self.cache.add(SIZE), self.cache.add(SIZE)
        daemon = self.daemon(self.mounted())
        for path in (known, unknown):
            self.put(daemon, path.url.removeprefix("nar/"), path.file[:-1] + b"\xee")
        self.assert_served(daemon, known)
        for path in (known, unknown, unknown):
            self.assertEqual(path.file, self.ask(daemon, path.nar_target).body)
        wait_until(
            lambda: unknown.file in [file.read_bytes() for file in daemon.stored_nars()],
            "what was verified to lie there",
            daemon=daemon,
        )

    def test_kill_at_any_time_leaves_a_store_that_works(self) -> None:
        """After a kill at several moments, ncps serves all paths after a restart."""
        paths = [self.cache.add(50_000 + 1000 * i) for i in range(10)]
        origin = self.mounted()
        daemon = self.make_daemon(origin)
        for number in range(3):
            daemon.start()
            target = self.nar_target(daemon, paths[number])
            calls = [lambda p=path: self.narinfo(daemon, p) for path in paths]
            self.at_once(lambda t=target: self.ask(daemon, t), *calls)  # type: ignore[misc]
            daemon.kill()
        daemon.start()
        for path in paths:
            self.assert_served(daemon, path)
        self.wait_until_stored(daemon, *paths)
        for file in daemon.stored_nars():
            self.assertIn(file.read_bytes(), [path.file for path in paths])

    def put(self, daemon: Daemon, name: str, content: bytes) -> None:
        """Put a file into the store under a NAR's final name."""
        directory = daemon.storage / "store" / "nar" / name[0] / name[:2]
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)


class RebuildTests(Stage):
    """The database is lost."""

    def test_rebuilt_database_serves_all_without_upstream(self) -> None:
        """The error says what to do; afterwards key and answers are the same."""
        paths = [self.cache.add(1000, compression=c) for c in ("none", "xz", "zstd", "bzip2")]
        origin = self.mounted()
        daemon = self.daemon(origin)
        for path in paths:
            self.assert_served(daemon, path)
        self.wait_until_stored(daemon, *paths)
        before = [self.narinfo(daemon, path).body for path in paths]
        key = daemon.public_key()
        daemon.stop()
        origin.stop()
        (daemon.directory / "catalog.sqlite").write_bytes(b"damaged" * 1000)
        for command in ("serve", "rebuild"):
            refused = run_ncps(daemon, command)
            self.assertEqual(1, refused.returncode)
            self.assertIn("with `ncps rebuild`", refused.stderr)
        for file in daemon.directory.glob("catalog.sqlite*"):
            file.rename(self.directory / file.name)
        done = run_ncps(daemon, "rebuild")
        self.assertEqual(0, done.returncode, done.stderr)
        for word in ("warn", "error", "Traceback"):
            self.assertNotIn(word, done.stderr)
        self.assertIn("4 narinfos and 4 NARs recorded", done.stdout)
        daemon.start()
        self.assertEqual(key, daemon.public_key())
        self.assertEqual(before, [self.narinfo(daemon, path).body for path in paths])
        for path in paths:
            self.assertEqual("hit", self.assert_served(daemon, path).outcome)

    def test_rebuild_does_not_believe_the_store(self) -> None:
        """A damaged NAR and a damaged narinfo of the store are not recorded."""
        paths = [self.cache.add(1000) for _ in range(3)]
        daemon = self.daemon(self.mounted())
        for path in paths:
            self.assert_served(daemon, path)
        self.wait_until_stored(daemon, *paths)
        daemon.stop()
        (bad,) = (f for f in daemon.stored_nars() if f.read_bytes() == paths[0].file)
        bad.chmod(0o600)
        bad.write_bytes(b"x" * len(paths[0].file))
        name = f"{paths[1].digest}.narinfo"
        (text,) = (daemon.storage / "store" / "narinfo").rglob(name)
        text.chmod(0o600)
        text.write_bytes(text.read_bytes().replace(b"NarSize: ", b"NarSize: 1"))
        (daemon.directory / "catalog.sqlite").unlink()
        done = run_ncps(daemon, "rebuild")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn("1 narinfos without their NAR, 1 refused", done.stdout)
        daemon.start()
        for path in paths:
            self.assert_served(daemon, path)

    def test_store_without_narinfos(self) -> None:
        """NARs without narinfos are counted and not recorded, and the exit code is not 0."""
        daemon = self.make_daemon(self.origin())
        path = self.cache.add(1000, compression="xz")
        name = path.nar_target.rpartition("/")[2]
        nar = daemon.storage / "store" / "nar" / name[0] / name[:2] / name
        nar.parent.mkdir(parents=True)
        nar.write_bytes(path.file)
        done = run_ncps(daemon, "rebuild")
        self.assertEqual(1, done.returncode, done.stderr)
        self.assertIn(f"{len(path.file)} bytes in 1 NARs have no narinfo", done.stdout)
        self.assertIn("ncps: error: no narinfo was recorded", done.stderr)

    def test_store_of_the_go_program(self) -> None:
        """Neither the start nor `ncps rebuild` makes a new database beside its database."""
        daemon = self.make_daemon(self.origin())
        former = daemon.storage / "db" / "db.sqlite"
        former.parent.mkdir()
        with contextlib.closing(sqlite3.connect(former)) as connection:
            for table in ("narinfos", "nar_files", "narinfo_nar_files", "schema_migrations"):
                connection.execute(f"CREATE TABLE {table} (id INTEGER)")
        before = sorted(daemon.storage.rglob("*"))
        for command in ("rebuild", "serve"):
            done = run_ncps(daemon, command)
            self.assertEqual(1, done.returncode)
            (line,) = [line for line in done.stderr.splitlines() if "error" in line]
            self.assertTrue(line.startswith(f"ncps: error: the database {former} belongs to"))
        self.assertEqual(before, sorted(daemon.storage.rglob("*")))
        self.assertFalse((daemon.directory / "catalog.sqlite").exists())

    def test_rebuild_beside_a_running_daemon_is_refused(self) -> None:
        """`ncps rebuild` names the daemon that uses the store, and changes nothing."""
        daemon = self.daemon(self.origin())
        done = run_ncps(daemon, "rebuild")
        self.assertEqual(1, done.returncode)
        self.assertRegex(done.stderr, r"is in use by process \d+ on .*; stop that daemon first: ")
        self.assertNotIn("a directory of its own", done.stderr)
        self.assertNotIn("Traceback", done.stderr)


class InspectionTests(Stage):
    """Each path counts as verified only after its NarHash was checked (P7)."""

    def swapped(self) -> tuple[Origin, StorePath]:
        """Return an origin, and a path whose narinfo names another path's file."""
        other, path = self.cache.add(1000), self.cache.add(1000)
        origin = self.mounted()
        fields = dict(other.fields())
        narinfo = path.narinfo(
            URL=other.url, FileHash=fields["FileHash"], FileSize=fields["FileSize"]
        )
        origin.serve(f"/{path.digest}.narinfo", narinfo)
        return origin, path

    def test_wrong_nar_inside_a_right_xz_file_is_withdrawn(self) -> None:
        """An xz file with the right FileHash and a wrong NAR inside is removed."""
        origin, path = self.swapped()
        daemon = self.daemon(origin, options=("--cache-verify-while-arriving=false",))
        self.ask(daemon, self.nar_target(daemon, path))
        daemon.stop()
        daemon.start()
        self.wait_for_log(daemon, "is not what its narinfo says")
        wait_until(lambda: not daemon.stored_nars(), "the NAR to be set aside", daemon=daemon)

    def test_wrong_nar_inside_a_right_xz_file_is_no_answer(self) -> None:
        """NarHash is signed and FileHash is not: such a file is neither served nor stored."""
        origin, path = self.swapped()
        daemon = self.daemon(origin)
        self.assertEqual(502, self.ask(daemon, self.nar_target(daemon, path)).status)
        self.assertEqual([], daemon.stored_nars())
