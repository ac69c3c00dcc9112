"""Servers behind the replicas go away under load, and no replica needs a restart."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

from tests.cluster.replicas import ClusterStage, Replica
from tests.integration.servers.database import DatabaseServer
from tests.system.caches import StorePath
from tests.system.wire import ask
from tests.waiting import wait_until

AWAY_S = 10.0
PAUSE_S = 0.02
"""Between two requests: a load without pauses uses all processors."""
STUCK_S = 45.0  # seconds for one answer; longer than every deadline of ours


class Load(threading.Thread):
    """A client that asks for narinfos and their NARs until it is told to end.

    :ivar statuses: of all answers.
    :ivar wrong: answers that are never allowed.
    :ivar slowest_s: of all answers.
    """

    def __init__(self, replica: Replica, paths: list[StorePath]) -> None:
        super().__init__(daemon=True)
        self.statuses: Counter[int] = Counter()
        self.wrong: list[str] = []
        self.slowest_s = 0.0
        self._replica = replica
        self._paths = paths
        self._is_over = threading.Event()

    def end(self) -> None:
        """Finish the current request, and make no more."""
        self._is_over.set()

    def run(self) -> None:
        """See `threading.Thread`."""
        while True:
            for path in self._paths:
                if self._is_over.is_set():
                    return
                self._visit(path)
                time.sleep(PAUSE_S)

    def _visit(self, path: StorePath) -> None:
        narinfo = self._ask(f"/{path.digest}.narinfo")
        if narinfo is None:
            return
        target = narinfo.decode().partition("\nURL: ")[2].partition("\n")[0]
        nar = self._ask(f"/{target}")
        if nar is not None and nar != path.file:
            self.wrong.append(f"{target}: {len(nar)} bytes that are not its own")

    def _ask(self, target: str) -> bytes | None:
        """Return the body of a complete 200; note everything else."""
        began = time.monotonic()
        try:
            answer = ask(self._replica.port, target, deadline=STUCK_S)
        except TimeoutError:
            self.wrong.append(f"{target}: no answer within {STUCK_S} s")
            return None
        except OSError:
            self.statuses[0] += 1
            return None
        finally:
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        self.statuses[answer.status] += 1
        if answer.status in {404, 500}:
            self.wrong.append(f"{target}: status {answer.status}")
        return answer.body if answer.status == 200 and answer.whole else None


def restart(database: DatabaseServer) -> None:
    """Stop the database for a moment, and give the replicas time to notice."""
    database.stop()
    time.sleep(1.0)
    database.start()
    time.sleep(2.0)


class Faults(ClusterStage):
    """Replicas serve their clients while a server behind them is away."""

    def under_load(self, trouble: Callable[[], None]) -> list[Load]:
        """Cause a fault while two replicas are asked for stored and other paths."""
        stored = [self.cache.add(200_000, compression="none") for _ in range(5)]
        cold = [self.cache.add(50_000, compression="zstd") for _ in range(400)]
        origin = self.mounted()
        replicas = self.replicas(2, origin.url)
        for path in stored:
            self.assert_served(replicas[0], path)
            self.assert_hit(replicas[1], path)
        loads = [Load(r, stored) for r in replicas] + [Load(r, cold) for r in replicas]
        for load in loads:
            load.start()
        trouble()
        for replica in replicas:
            wait_until(
                lambda: self.ask(replica, "/readyz").status == 200,  # noqa: B023
                "readiness",
                daemon=replica,
            )
        fresh = [self.cache.add(30_000) for _ in range(5)]
        self.cache.mount(origin)
        for path in fresh:
            for replica in replicas:
                self.settles(replica, path)
        for load in loads:
            self.goes_on(load)
            load.end()
        for load in loads:
            load.join(STUCK_S)
            self.assertFalse(load.is_alive(), "stuck")
            self.assertEqual([], load.wrong)
        return loads

    def goes_on(self, load: Load) -> None:
        """Check that the load gets all answers from now on."""
        before = load.statuses[200]
        wait_until(lambda: load.statuses[200] > before, f"a whole answer after {load.statuses}")

    def settles(self, replica: Replica, path: StorePath) -> None:
        """Check that a path can be fetched again, without a restart."""

        def is_served() -> bool:
            narinfo = self.narinfo(replica, path)
            if narinfo.status != 200:
                return False
            answer = self.ask(replica, "/" + narinfo.fields["URL"])
            return answer.status == 200 and answer.body == path.file

        wait_until(is_served, f"{path.digest} to be served again", daemon=replica)

    def test_redis_is_killed_and_started_again(self) -> None:
        """Hits never need Redis; misses wait or get 503, and recover by themselves."""

        def trouble() -> None:
            self.backends.redis.kill()
            time.sleep(AWAY_S)
            self.backends.redis.start()

        stored_first, stored_second, *_ = self.under_load(trouble)
        for load in (stored_first, stored_second):
            self.assertEqual({200}, set(load.statuses), "hits do not notice")

    def test_database_is_restarted(self) -> None:
        """A restart of the database is only a pause."""

        self.under_load(lambda: restart(self.backends.database))

    def test_s3_is_away(self) -> None:
        """Objects in the bucket cannot be served meanwhile; no wrong answer is given."""

        def trouble() -> None:
            self.backends.s3.freeze()
            time.sleep(AWAY_S)
            self.backends.s3.thaw()

        self.under_load(trouble)
