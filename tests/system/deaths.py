"""A daemon that dies at each step of an upload; the tests of one store after another use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

from tests.e2e.daemon import Daemon
from tests.fakes.samples import Sample
from tests.machines.stepped import Steps
from tests.system.uploader import UploadStage
from tests.unit.cache.write.rig import upload
from tests.waiting import wait_until

DONE = (200, 201)

MOST = 300
"""The most steps of an upload; a test with more steps has a fault."""


class DyingStage(UploadStage):
    """Kills the daemon in place of the first call of an upload, then of the second, and so on."""

    served_by: Daemon
    steps: Steps

    def begin(self, daemon: Daemon, steps: Steps) -> None:
        """Start a daemon that asks before each step."""
        self.served_by, self.steps = daemon, steps
        self.addCleanup(steps.close)
        daemon.main = "tests.machines.stepped"
        daemon.environment = steps.environment
        daemon.start()

    def put_all(self, one: Sample) -> list[int]:
        """Upload a path; return the statuses, 0 for none.

        The client repeats after 503: a server may be slow while other tests run.
        """
        statuses = [self.taken(self.put_nar, one)]
        if statuses[0] in DONE:
            statuses.append(self.taken(self.put_narinfo, one))
        return statuses

    def taken(self, put: Callable[[Daemon, Sample], tuple[int, str]], one: Sample) -> int:
        """Upload until the answer is not 503; return its status, 0 for none."""
        statuses: list[int] = []

        def is_told() -> bool:
            try:
                statuses.append(put(self.served_by, one)[0])
            except ConnectionRefusedError:  # it died after its last answer, at a later step
                statuses.append(0)
            return statuses[-1] != 503

        wait_until(is_told, "another answer than 503", daemon=self.served_by)
        return statuses[-1]

    def see(self, one: Sample, statuses: Sequence[int]) -> None:
        """Check after a death that all answered uploads are there, and others whole or absent."""
        daemon = self.served_by
        answer = self.ask(daemon, f"/upload/{one.url}")
        self.assertIn(answer.status, (200,) if statuses[0] in DONE else (200, 404))
        if answer.status == 200:
            self.assertEqual(one.file, answer.body)
        answer = self.ask(daemon, f"/upload/{one.digest}.narinfo")
        self.assertIn(answer.status, (200,) if statuses[1:] in ([200], [201]) else (200, 404))
        if answer.status == 200:
            self.assert_served_whole(daemon, one)
        self.see_store()

    def see_store(self) -> None:
        """Check that each object under the name of a NAR is whole, and no file is unfinished."""
        raise NotImplementedError

    def die_at_each_step(self, size: int, *compressions: str) -> set[str]:
        """Kill the daemon at each call, start it again, and check that the same upload succeeds.

        Return the calls.
        """
        met: list[str] = []
        for number in count(1):
            self.assertLess(number, MOST, met)
            one = upload(f"step-{number}", compressions[number % len(compressions)], size)
            self.steps.kill_at(number)
            step = self.die_during(one)
            if step is None:
                break
            met.append(step)
        self.assert_served_whole(self.served_by, one)
        return set(met)

    def die_before(self, step: str, size: int, compression: str) -> None:
        """Kill the daemon at its first call of this kind, as `die_at_each_step` does."""
        self.steps.kill_before(step)
        self.assertIn(step, self.die_during(upload(f"before-{step}", compression, size)) or "")

    def die_during(self, one: Sample) -> str | None:
        """Upload to a daemon that dies, start it again, and upload the same again.

        Return the step at which it died; None if it did not die.
        """
        daemon = self.served_by
        statuses = self.put_all(one)
        if self.steps.spare():
            self.assertEqual([201, 201], statuses)
            return None
        step = self.steps.taken[-1]
        wait_until(lambda: daemon.process.poll() is not None, "the death", daemon=daemon)
        daemon.start()
        try:
            self.see(one, statuses)
            self.assertLessEqual({*self.put_all(one)}, {*DONE})
            self.assert_served_whole(daemon, one)
        except AssertionError as error:
            raise AssertionError(f"killed before {step} {statuses}: {error}") from error
        return step
