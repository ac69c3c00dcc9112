"""The run directory: its place, its contents, and the remains of dead daemons."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.lockfile import LockFile
from ncps.errors import Refused, Unavailable
from ncps.process import rundir
from ncps.process.rundir import LONGEST, PREFIX, RunPaths


class RunDirectoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.parent = Path(tempfile.mkdtemp())
        self.addCleanup(self.parent.rmdir)

    def make(self, *parents: Path) -> rundir.RunDirectory:
        made = rundir.make(parents or (self.parent,))
        self.addCleanup(made.remove)
        return made

    def test_it_is_private_and_locked(self) -> None:
        """The directory is private, and its lock is held."""
        made = self.make()
        self.assertEqual(0o700, made.path.stat().st_mode & 0o777)
        self.assertEqual(self.parent, made.path.parent)
        self.assertRaises(Refused, LockFile(made.path / "lock", "it").acquire)

    def test_it_is_made_again_where_it_was(self) -> None:
        """A directory that is made again is private; one of another user is refused."""
        made = self.make()
        self.assertFalse(rundir.ensure(made.path))
        shutil.rmtree(made.path)
        self.assertTrue(rundir.ensure(made.path))
        self.assertEqual(0o700, made.path.stat().st_mode & 0o777)
        taken = self.parent / "taken"
        taken.symlink_to(made.path)
        self.addCleanup(taken.unlink)
        self.assertRaises(Refused, rundir.ensure, taken)
        self.patch(os, "geteuid", lambda: os.getuid() + 1)
        self.assertRaises(Refused, rundir.ensure, made.path)
        self.assertRaises(Unavailable, rundir.ensure, self.parent / "gone" / "run")

    def test_it_is_removed_with_its_contents(self) -> None:
        """The directory is removed with its contents; a second removal does nothing."""
        made = self.make()
        RunPaths(made.path).figures(3).write_text("x")
        made.remove()
        made.remove()
        self.assertFalse(made.path.exists())

    def test_directories_of_ended_processes_are_removed(self) -> None:
        """A directory whose lock is free is removed; one without a lock file stays."""
        living = self.make()
        dead, strange = self.parent / f"{PREFIX}dead", self.parent / f"{PREFIX}strange"
        for path in (dead, strange):
            path.mkdir()
        (dead / "lock").touch()
        made = self.make()
        self.assertFalse(dead.exists())
        for path in (living.path, strange, made.path):
            self.assertTrue(path.exists(), path)
        strange.rmdir()

    def test_the_first_place_that_takes_it(self) -> None:
        """Parents that are missing, or have too long a name, are skipped."""
        long = self.parent / ("x" * 90)
        long.mkdir()
        made = self.make(long, self.parent / "missing", self.parent)
        self.assertEqual(self.parent, made.path.parent)
        self.assertLessEqual(len(str(RunPaths(made.path).notices(256))), LONGEST)
        error = str(self.assertRaises(Refused, rundir.make, (long,)))
        self.assertIn("too long", error)
        error = str(self.assertRaises(Refused, rundir.make, (self.parent / "missing",)))
        self.assertIn("No such file", error)
        long.rmdir()

    def test_the_directory_of_systemd_comes_first(self) -> None:
        """The runtime directory of systemd comes first, then that of the user, then the others."""
        found = rundir.parents({"RUNTIME_DIRECTORY": "/run/a:/run/b", "XDG_RUNTIME_DIR": "/run/u"})
        self.assertEqual([Path("/run/a"), Path("/run/u")], found[:2])
        self.assertNotIn(Path("/run/u"), rundir.parents({}))

    def test_addresses_name_sockets(self) -> None:
        """An address has the form that `upstream.peers` reads."""
        self.assertEqual("unix:/run/x/worker-2.sock", RunPaths(Path("/run/x")).address(2))
