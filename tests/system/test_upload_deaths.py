"""The daemon is killed at each step of an upload: answered uploads stay, others leave nothing.

The steps are found and not listed: the daemon dies in place of its first system call that changes
something, then of its second, and so on, until an upload meets no death.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from tests.machines.stepped import Steps
from tests.system.caches import to_base32
from tests.system.deaths import DyingStage
from tests.system.uploader import ALLOWED
from tests.unit.cache.write.rig import upload
from tests.waiting import wait_until

LOG = "catalog.sqlite-wal"
"""The file that SQLite writes first; other transactions write it, too."""


def unsynced(steps: Sequence[str]) -> set[str]:
    """Return the files that a loss of power may lose after an answer."""
    found = {"a directory", LOG}
    for step in steps[: steps.index("sendto")]:
        call, _, name = step.partition(" ")
        if call in {"write", "pwrite64"} and name != LOG:
            found.add(name)
        elif call.startswith("rename"):
            found = {*found, "a directory", LOG}
            temporary = {name for name in found if "tmp/" in name}
            if temporary:
                return temporary
        elif call in {"fsync", "fdatasync"}:
            found -= {name}
            if name.startswith("storage/store/") and "tmp/" not in name:
                found -= {"a directory"}
    return found


def kinds_of(steps: Iterable[str]) -> set[str]:
    """Return the names of the calls."""
    return {step.partition(" ")[0] for step in steps}


class DeathAtEachStepTests(DyingStage):
    def setUp(self) -> None:
        super().setUp()
        daemon = self.make_daemon("http://127.0.0.1:9", options=(ALLOWED,))
        self.begin(daemon, Steps(daemon.directory))

    def see_store(self) -> None:
        """See `DyingStage`."""
        daemon = self.served_by
        for path in daemon.stored_nars():
            found = to_base32(hashlib.sha256(path.read_bytes()).digest())
            self.assertEqual(path.name.partition(".")[0], found)
        wait_until(lambda: not self.unfinished(daemon), "spools to go", daemon=daemon)

    def test_each_step_of_one_in_memory(self) -> None:
        """A small upload has no file before its final one."""
        kinds = kinds_of(self.die_at_each_step(300_000, "none", "zstd"))
        self.assertLessEqual({"write", "pwrite64", "fsync", "rename", "mkdir", "sendto"}, kinds)

    def test_each_step_of_one_in_a_spool(self) -> None:
        """A large upload is a file from its first byte on."""
        kinds = kinds_of(self.die_at_each_step(1_500_000, "none"))  # the others are small
        self.assertLessEqual({"pwrite64", "fsync", "rename", "unlink", "sendto"}, kinds)

    def test_answers_come_after_all_is_durable(self) -> None:
        """Files are synced before renames; so are the directory and the log of the database."""
        for compression, size in (
            ("none", 300_000),
            ("none", 1_500_000),
            ("zstd", 300_000),
            ("xz", 300_000),
        ):
            one = upload(f"{compression}-{size}", compression, size)
            for put in (self.put_nar, self.put_narinfo):
                self.steps.kill_at(0)
                self.assertEqual(201, put(self.served_by, one)[0])
                self.assertEqual(set(), unsynced(self.steps.taken), self.steps.taken)
