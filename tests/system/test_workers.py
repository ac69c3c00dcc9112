"""Several processes on one port: a worker or the supervisor is killed, or all end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPException

from tests.e2e.daemon import Daemon, fetch
from tests.system.caches import StorePath
from tests.system.crew import (
    MANY,
    PATIENT,
    SIZE,
    START_DEADLINE,
    WorkersStage,
    children,
    is_alive,
    number_of,
)
from tests.system.faults import Stall
from tests.system.program import run_ncps, settings_of
from tests.system.stage import log_lines, requests
from tests.system.wire import Exchange
from tests.waiting import wait_until


class ServingTests(WorkersStage):
    """Answers that clients get."""

    def test_all_workers_serve_the_same_cold_and_warm(self) -> None:
        """Every worker serves the right bytes of new and stored paths."""
        paths = [self.cache.add(SIZE) for _ in range(3)]
        daemon, _ = self.crew(self.mounted())
        for path in paths:
            self.at_once(*[lambda p=path: self.assert_served(daemon, p)] * 8)
        self.wait_until_stored(daemon, *paths)
        for path in paths:
            self.ask_until_served_by(
                daemon,
                {1, 2, 3},
                partial(self.assert_served, daemon, path),
                since=len(log_lines(daemon)),
            )
        daemon.stop()

    def test_one_is_killed_and_replaced(self) -> None:
        """After `kill -9` of a worker the service continues, and soon all workers are back."""
        path = self.cache.add(SIZE)
        daemon, workers = self.crew(self.mounted())
        self.assert_served(daemon, path)
        os.kill(workers[1], signal.SIGKILL)
        self.wait_for_log(daemon, "ended with signal 9", "takes its place")
        self.wait_for_starts(daemon, 4)
        now = children(daemon.pid)
        self.assertEqual({workers[0], workers[2]}, set(now) & set(workers))
        since = len(log_lines(daemon))
        ask = partial(self.assert_served, daemon, path)
        self.ask_until_served_by(daemon, {1, 2, 3}, ask, since)
        daemon.stop()

    def test_a_client_waits_for_no_worker_that_stands_still(self) -> None:
        """A running worker serves each connection if the other one is stopped or killed."""
        daemon, workers = self.crew(self.mounted(), 2)
        calls = [lambda: self.ask(daemon, "/nix-cache-info").status] * MANY
        os.kill(workers[0], signal.SIGSTOP)
        self.assertEqual({200}, set(self.at_once(*calls)))
        os.kill(workers[0], signal.SIGKILL)
        self.assertEqual({200}, set(self.at_once(*calls)))
        daemon.stop()

    def test_the_others_serve_while_one_is_away(self) -> None:
        """A killed worker cuts its own connections, not those of the others."""
        path = self.cache.add(SIZE)
        daemon, workers = self.crew(self.mounted())
        self.assert_served(daemon, path)
        self.wait_until_stored(daemon, path)
        target = self.nar_target(daemon, path)
        os.kill(workers[0], signal.SIGKILL)
        done = 0
        for _ in range(MANY):
            with contextlib.suppress(ConnectionError):
                self.assertEqual(path.file, self.ask(daemon, target).body)
                done += 1
        self.assertGreater(done, MANY // 2)


class TogetherTests(WorkersStage):
    """Work that one worker does for all workers."""

    def arriving(self, daemon: Daemon, path: StorePath) -> list[Exchange]:
        """Ask for a NAR on many connections; each has received a part of it."""
        target = self.nar_target(daemon, path)
        readers = self.at_once(*[lambda: self.exchange(daemon, target)] * 24)
        for reader in readers:
            self.assertEqual(path.file[: SIZE // 4], reader.read(SIZE // 4))
        return readers

    def test_one_fetch_for_all(self) -> None:
        """Clients of all workers get a NAR while it arrives, and it is fetched once."""
        path = self.cache.add(SIZE)
        origin = self.mounted(Stall(SIZE // 2))
        daemon, _ = self.crew(origin, options=PATIENT)
        readers = self.arriving(daemon, path)
        origin.release()
        for answer in [reader.finish() for reader in readers]:
            self.assertEqual((200, True), (answer.status, answer.whole))
            self.assertEqual(path.file, answer.body)
        self.assertEqual(1, origin.gets(path.nar_target))
        self.assertEqual(1, origin.gets(f"/{path.digest}.narinfo"))
        self.wait_until_stored(daemon, path)
        daemon.stop()
        served = {line["worker"] for line in requests(daemon) if "/nar/" in line["path"]}
        self.assertGreater(len(served), 1)

    def test_another_continues_when_the_fetching_process_ends(self) -> None:
        """`kill -9` in the middle cuts only its own clients."""
        path = self.cache.add(SIZE)
        origin = self.mounted(Stall(SIZE // 2))
        daemon = self.make_daemon(origin, options=["--workers", "3", *PATIENT])
        run = daemon.directory / "run"
        run.mkdir()
        command = ["-m", "ncps", "serve", *settings_of(daemon)]
        process = self.spawn(daemon, command, more={"RUNTIME_DIRECTORY": str(run)})
        self.wait_until_all_serve(daemon)
        readers = self.arriving(daemon, path)
        (lease,) = [file for file in run.glob("ncps-run-*/leases/*.lease") if file.read_text()]
        holder = int(lease.read_text().partition("worker-")[2].partition(".")[0])
        (pid,) = [pid for pid in children(process.pid) if number_of(pid) == holder]
        os.kill(pid, signal.SIGKILL)
        self.wait_for_log(daemon, "ended with signal 9")
        origin.release()
        answers = [reader.finish() for reader in readers]
        for answer in answers:
            self.assertTrue(path.file.startswith(answer.body))
            self.assertEqual(answer.whole, answer.body == path.file)
        cut = sum(not answer.whole for answer in answers)
        self.assertTrue(0 < cut < len(answers), cut)
        self.assertEqual(2, origin.gets(path.nar_target))
        self.assert_served(daemon, path)
        self.end(process)

    def test_all_hear_that_something_is_there_now(self) -> None:
        """A path that one worker has found is 404 at no worker any more."""
        path = self.cache.add(SIZE)
        origin = self.mounted()
        daemon, _ = self.crew(origin, options=["--cache-negative-ttl", "1h"])
        target = f"/{path.digest}.narinfo"
        entry = origin.find(target)
        assert entry is not None
        origin.withdraw(target)
        self.assertEqual(404, self.narinfo(daemon, path).status)
        origin.serve(target, entry.content, headers=entry.headers)
        wait_until(
            lambda: all(self.narinfo(daemon, path).status == 200 for _ in range(MANY)),
            "all workers to know it",
            daemon=daemon,
        )


class MetricsTests(WorkersStage):
    """`/metrics` of several processes."""

    def scrape(self, daemon: Daemon) -> dict[str, float]:
        """Read all series by their text."""
        lines = self.ask(daemon, "/metrics").body.decode().splitlines()
        rows = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return {name: float(value) for name, _, value in rows}

    def asked(self, found: dict[str, float]) -> float:
        """Return how often `/nix-cache-info` was answered."""
        words = ("duration_seconds_count", '"/nix-cache-info"', '"GET"', '"200"')
        (value,) = [found[name] for name in found if all(word in name for word in words)]
        return value

    def test_any_worker_tells_the_sum(self) -> None:
        """Every worker gives the sums of all counters; totals are counted once."""
        path = self.cache.add(SIZE)
        daemon, _ = self.crew(self.mounted())
        self.assert_served(daemon, path)
        self.wait_until_stored(daemon, path)
        for _ in range(MANY):
            self.ask(daemon, "/nix-cache-info")
        for _ in range(12):
            found = self.scrape(daemon)
            self.assertEqual(MANY, self.asked(found))
            self.assertEqual((3, 3), (found["ncps_workers"], found["ncps_workers_answering"]))
            self.assertEqual(1, found["ncps_upstream_count_total"])
            self.assertEqual(1, found['ncps_downloads_total{outcome="published"}'])

    def test_no_counter_falls_when_a_worker_dies(self) -> None:
        """A counter never falls, while a worker is away and afterwards."""
        daemon, workers = self.crew(self.origin())
        for _ in range(MANY):
            self.ask(daemon, "/nix-cache-info")
        self.assertEqual(MANY, self.asked(self.scrape(daemon)))
        os.kill(workers[2], signal.SIGSTOP)
        began = time.monotonic()
        found = self.scrape_until_answered(daemon)
        self.assertEqual((MANY, 2), (self.asked(found), found["ncps_workers_answering"]))
        self.assertLess(time.monotonic() - began, 15)
        os.kill(workers[2], signal.SIGKILL)
        self.wait_for_starts(daemon, 4)
        found = self.scrape(daemon)
        self.assertEqual(MANY, self.asked(found))
        self.assertEqual(3, found["ncps_workers_answering"])
        self.assertEqual(1, found["ncps_worker_restarts_total"])

    def scrape_until_answered(self, daemon: Daemon) -> dict[str, float]:
        """Scrape on connections that the kernel may give to a stopped worker."""
        for _ in range(MANY):
            with socket.create_connection(("127.0.0.1", daemon.port), 5) as line:
                line.settimeout(3)
                line.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                data = b""
                with contextlib.suppress(TimeoutError):
                    while more := line.recv(65536):
                        data += more
                    rows = [
                        row.rpartition(" ")
                        for row in data.partition(b"\r\n\r\n")[2].decode().splitlines()
                        if not row.startswith("#")
                    ]
                    return {name: float(value) for name, _, value in rows}
        raise AssertionError("no worker answers")


class CleanedTests(WorkersStage):
    """Another program removes files in /tmp or /run."""

    def test_directories_are_made_again(self) -> None:
        """Without run and temp directory, misses recover by themselves, each fetched once."""
        paths = [self.cache.add(SIZE) for _ in range(2)]
        origin = self.mounted(Stall(SIZE // 2))
        run = self.directory / "run"
        run.mkdir()
        daemon = self.make_daemon(origin, options=["--workers", "2", *PATIENT])
        daemon.environment["RUNTIME_DIRECTORY"] = str(run)
        daemon.start(deadline=START_DEADLINE)
        self.wait_until_all_serve(daemon)
        (place,) = run.iterdir()
        shutil.rmtree(place)
        shutil.rmtree(daemon.directory / "tmp")
        wait_until(lambda: len(list(place.glob("worker-*.sock"))) == 2, "the sockets to be back")
        self.assertEqual(0o700, place.stat().st_mode & 0o777)
        self.wait_for_log(daemon, "unfinished downloads was removed")
        for path in paths:
            target = self.nar_target(daemon, path)
            readers = self.at_once(*[lambda t=target: self.exchange(daemon, t)] * 12)
            origin.wait_for_stall(path.nar_target)
            origin.release()
            for answer in [reader.finish() for reader in readers]:
                self.assertEqual((200, path.file), (answer.status, answer.body))
            self.assertEqual(1, origin.gets(path.nar_target))
        self.wait_until_stored(daemon, *paths)
        self.assertIn(b"ncps_workers_answering 2.0", self.ask(daemon, "/metrics").body)
        shutil.rmtree(run)
        run.write_text("in the way")
        wait_until(lambda: b"was removed" in self.ask(daemon, "/readyz").body, "it to be told")
        daemon.stop()

    def test_a_removed_database_is_made_again(self) -> None:
        """Workers whose database file was removed end; their successors have a new one."""
        paths = [self.cache.add(1000) for _ in range(2)]
        daemon, _ = self.crew(self.mounted(), 2)
        self.assert_served(daemon, paths.pop())
        (daemon.directory / "catalog.sqlite").unlink()

        def ask(_: int) -> None:
            with contextlib.suppress(OSError, HTTPException):
                fetch(f"{daemon.url}/readyz")  # has the answering worker read from the database

        def have_all_begun_anew() -> bool:
            list(clients.map(ask, range(16)))  # at the same time, so that each worker gets some
            return len(self.starts(daemon)) >= 4

        with ThreadPoolExecutor(16) as clients:
            wait_until(have_all_begun_anew, "a start", deadline=START_DEADLINE, daemon=daemon)
        self.assert_served(daemon, paths[0])
        self.wait_until_stored(daemon, paths[0])
        self.assertNotIn("cannot start", daemon.log)
        daemon.stop()


class EndTests(WorkersStage):
    """The ends of the processes."""

    def test_all_end_with_the_supervisor(self) -> None:
        """SIGTERM ends every process, with exit code 0, and leaves no files."""
        daemon, workers = self.crew(self.origin())
        os.kill(daemon.pid, signal.SIGTERM)
        daemon.stop()
        self.assertFalse(any(map(is_alive, workers)))
        lines = [line["message"] for line in log_lines(daemon)]
        self.assertEqual(3, lines.count("ncps has stopped"))
        self.assertEqual("the supervisor has stopped", lines[-1])

    def test_a_terminal_ends_all_at_once(self) -> None:
        """SIGINT or SIGTERM to every process of the group is one orderly end."""
        for number in (signal.SIGINT, signal.SIGTERM):
            daemon = self.make_daemon(self.origin(), options=["--workers", "2"])
            process = self.spawn(daemon, ["-m", "ncps", "serve", *settings_of(daemon)])
            self.wait_until_all_serve(daemon)
            workers = children(process.pid)
            os.killpg(process.pid, number)
            self.assertEqual(0, process.wait(20))
            self.assertFalse(any(map(is_alive, workers)))
            self.assertNotIn("takes its place", daemon.log)

    def test_running_answers_finish(self) -> None:
        """An answer that ends before the deadline reaches its client complete."""
        path = self.cache.add(SIZE)
        origin = self.mounted(Stall(SIZE // 2))
        daemon, _ = self.crew(origin, 2, [*PATIENT, "--server-drain-timeout", "20s"])
        reader = self.exchange(daemon, self.nar_target(daemon, path))
        origin.wait_for_stall(path.nar_target)
        stopped = self.in_background(daemon.stop)
        self.wait_for_log(daemon, "ncps has stopped")  # the other worker
        origin.release()
        answer = reader.finish()
        self.assertEqual((True, path.file), (answer.whole, answer.body))
        stopped.result(20)
        self.assertEqual(1, len(daemon.stored_nars()))

    def test_a_second_signal_cuts_all(self) -> None:
        """A second signal to a worker changes nothing; the supervisor's second one cuts all."""
        path = self.cache.add(SIZE)
        origin = self.mounted(Stall(SIZE // 2))
        daemon, workers = self.crew(origin, 2, [*PATIENT, "--server-drain-timeout", "60s"])
        for pid in (daemon.pid, *workers):
            os.kill(pid, signal.SIGHUP)
        reader = self.exchange(daemon, self.nar_target(daemon, path))
        origin.wait_for_stall(path.nar_target)
        os.kill(daemon.pid, signal.SIGTERM)
        self.wait_for_log(daemon, "stopping 2 workers")
        self.wait_for_log(daemon, "ncps has stopped")  # the other worker
        for pid in filter(is_alive, workers):
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.2)
        self.assertTrue(any(map(is_alive, workers)))
        began = time.monotonic()
        daemon.stop()
        self.assertLess(time.monotonic() - began, 8)
        self.assertFalse(reader.finish().whole)
        lines = [line["message"] for line in log_lines(daemon)]
        self.assertEqual(2, lines.count("ncps has stopped"))
        self.assertEqual(1, sum("reloaded: nothing has changed" in line for line in lines))

    def test_workers_go_with_a_killed_supervisor(self) -> None:
        """After `kill -9` of the supervisor its workers end, and then another daemon may start."""
        daemon, workers = self.crew(self.origin())
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        os.kill(daemon.pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(daemon.pid), "the supervisor to be gone")
        self.assertTrue(all(map(is_alive, workers)))
        refused = run_ncps(daemon, "serve")
        self.assertEqual(1, refused.returncode, refused.stdout)
        self.assertRegex(refused.stderr, r"is in use by process \d+ on ")
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        self.wait_until_gone(workers, "the workers to end by themselves")
        again = self.make_daemon(self.origin(), options=["--workers", "2"])
        flags = [*settings_of(daemon), "--workers", "2"]
        process = self.spawn(again, ["-m", "ncps", "serve", *flags])
        self.wait_until_all_serve(again)
        self.end(process)

    def test_a_second_daemon_is_refused(self) -> None:
        """A second daemon is refused, whether it has one process or several."""
        daemon, _ = self.crew(self.origin(), count=2)
        for count in ("1", "2"):
            done = run_ncps(daemon, "serve", flags=["--workers", count])
            self.assertEqual(1, done.returncode)
            self.assertIn(f"is in use by process {daemon.pid} on ", done.stderr)
            self.assertNotIn("Traceback", done.stdout + done.stderr)
