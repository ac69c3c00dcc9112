"""The run directory: where it lies, what it holds, and what dead daemons leave."""

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
        """Nobody else may look in, and its lock is held."""
        made = self.make()
        self.assertEqual(0o700, made.path.stat().st_mode & 0o777)
        self.assertEqual(self.parent, made.path.parent)
        self.assertRaises(Refused, LockFile(made.path / "lock", "it").acquire)

    def test_it_is_made_again_where_it_was(self) -> None:
        """It is private as before; a directory of another user is not taken."""
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

    def test_it_is_removed_with_what_is_in_it(self) -> None:
        """Removing twice does no harm."""
        made = self.make()
        RunPaths(made.path).figures(3).write_text("x")
        made.remove()
        made.remove()
        self.assertFalse(made.path.exists())

    def test_dead_ones_are_removed_and_living_ones_stay(self) -> None:
        """A lock without a holder marks a dead one; a directory without a lock is left alone."""
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
        """Places that are missing or have too long a name are passed over."""
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

    def test_systemd_says_where_first(self) -> None:
        """A runtime directory of systemd goes before one of the user, before the temporary one."""
        found = rundir.parents({"RUNTIME_DIRECTORY": "/run/a:/run/b", "XDG_RUNTIME_DIR": "/run/u"})
        self.assertEqual([Path("/run/a"), Path("/run/u")], found[:2])
        self.assertNotIn(Path("/run/u"), rundir.parents({}))

    def test_addresses_name_sockets(self) -> None:
        """An address is what `upstream.peers` understands."""
        self.assertEqual("unix:/run/x/worker-2.sock", RunPaths(Path("/run/x")).address(2))
