"""The daemon is killed at each step of an upload: what it has answered is there, and nothing half.

The steps are found and not listed: the daemon dies in place of its first system call that changes
something, then of its second, and so on, until an upload meets no death.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import count

from tests.fakes.samples import Sample
from tests.machines.stepped import Steps
from tests.system.caches import to_base32
from tests.system.uploader import ALLOWED, UploadStage
from tests.unit.cache.write.rig import upload
from tests.waiting import wait_until

DONE = (200, 201)
LOG = "catalog.sqlite-wal"
"""The file that SQLite writes to first; other transactions write there, too."""

MOST = 300
"""Steps of an upload, at most: a test that finds more does not find the end."""


def unsynced(steps: Sequence[str]) -> set[str]:
    """Return the files that a loss of power may take back, when an answer has been sent."""
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


class DeathAtEachStepTests(UploadStage):
    def setUp(self) -> None:
        super().setUp()
        self.served_by = daemon = self.make_daemon("http://127.0.0.1:9", options=(ALLOWED,))
        self.steps = Steps(daemon.directory)
        self.addCleanup(self.steps.close)
        daemon.main = "tests.machines.stepped"
        daemon.environment = self.steps.environment
        daemon.start()

    def put_all(self, one: Sample) -> list[int]:
        """Upload a path; return the statuses that came, 0 for none."""
        statuses = [self.put_nar(self.served_by, one)[0]]
        if statuses[0] in DONE:
            statuses.append(self.put_narinfo(self.served_by, one)[0])
        return statuses

    def see(self, one: Sample, statuses: Sequence[int]) -> None:
        """Check after a death that all is there that was answered, and that the rest is whole."""
        daemon = self.served_by
        answer = self.ask(daemon, f"/upload/{one.url}")
        self.assertIn(answer.status, (200,) if statuses[0] in DONE else (200, 404))
        if answer.status == 200:
            self.assertEqual(one.file, answer.body)
        answer = self.ask(daemon, f"/upload/{one.digest}.narinfo")
        self.assertIn(answer.status, (200,) if statuses[1:] in ([200], [201]) else (200, 404))
        if answer.status == 200:
            self.assert_served_whole(daemon, one)
        for path in daemon.stored_nars():
            found = to_base32(hashlib.sha256(path.read_bytes()).digest())
            self.assertEqual(path.name.partition(".")[0], found)
        wait_until(lambda: not self.unfinished(daemon), "spools to go", daemon=daemon)

    def test_each_step_of_one_in_memory(self) -> None:
        """A small upload has no file before the one that gets the final name."""
        kinds = self.die_at_each_step(300_000, "none", "zstd")
        self.assertLessEqual({"write", "pwrite64", "fsync", "rename", "mkdir", "sendto"}, kinds)

    def test_each_step_of_one_in_a_spool(self) -> None:
        """A large upload lies in a file from its first byte on."""
        kinds = self.die_at_each_step(1_500_000, "none")  # the others are small
        self.assertLessEqual({"pwrite64", "fsync", "rename", "unlink", "sendto"}, kinds)

    def die_at_each_step(self, size: int, *compressions: str) -> set[str]:
        """Kill the daemon at each call; it starts, and the same upload succeeds.

        Return the kinds of the calls.
        """
        daemon = self.served_by
        met: list[str] = []
        for number in count(1):
            self.assertLess(number, MOST, met)
            one = upload(f"step-{number}", compressions[number % len(compressions)], size)
            self.steps.kill_at(number)
            statuses = self.put_all(one)
            if self.steps.spare():
                self.assertEqual([201, 201], statuses)
                break
            met.append(f"{self.steps.taken[-1]} {statuses}")
            wait_until(lambda: daemon.process.poll() is not None, "the death", daemon=daemon)
            daemon.start()
            try:
                self.see(one, statuses)
                self.assertLessEqual({*self.put_all(one)}, {*DONE})
                self.assert_served_whole(daemon, one)
            except AssertionError as error:
                raise AssertionError(f"killed before {met[-1]}: {error}") from error
        self.assert_served_whole(daemon, one)
        return {each.split()[0] for each in met}

    def test_answers_come_after_all_is_durable(self) -> None:
        """Files are synced before they are renamed; directory and log of the database, too."""
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
