"""All kinds of bad requests beside good clients."""

from __future__ import annotations

from functools import partial
from threading import Event

from tests.e2e.daemon import Daemon
from tests.system import bad_requests
from tests.system.caches import StorePath
from tests.system.origin import Origin
from tests.system.program import run_ncps
from tests.system.stage import Stage, log_lines, requests
from tests.system.wire import raw_status, send_raw
from tests.waiting import free_port

CLIENTS = 32
ROUNDS = 3


class UnderLoadTests(Stage):
    """32 clients always fetch narinfos and NARs: hits and misses, complete and in parts."""

    def test_every_bad_request_has_its_status_and_no_client_suffers(self) -> None:
        """Good answers are right and complete; bad requests get their status; no answer is 500."""
        old = [self.cache.add(200_000 + number) for number in range(4)]
        origin = self.mounted()
        daemon = self.daemon(origin, options=["--server-header-timeout", "2s"])
        for path in old:
            self.assert_served(daemon, path)
        self.wait_until_stored(daemon, *old)
        own = [self.cache.add(50_000 + number) for number in range(CLIENTS)]
        self.cache.mount(origin)
        is_over = Event()
        good = [
            self.in_background(partial(self.serve, daemon, old, n, own, is_over))
            for n in range(CLIENTS)
        ]
        self.addCleanup(is_over.set)
        for _ in range(ROUNDS):
            self.at_once(
                partial(self.bad_paths, daemon),
                partial(self.bad_bytes, daemon),
                partial(self.bad_ranges, daemon, old[0]),
                partial(self.bad_methods, daemon, old[1]),
                partial(self.second_daemon, daemon),
            )
        is_over.set()
        self.assertGreater(sum(each.result() for each in good), CLIENTS)
        self.wait_until_stored(daemon, *own)
        self.assert_nothing_strange(daemon, origin)

    def serve(
        self, daemon: Daemon, old: list[StorePath], number: int, own: list[StorePath], over: Event
    ) -> int:
        """Fetch until the end of the test; return the number of NARs."""
        mine, start = [*old, own[number]], 1000 * number
        count = 0
        while not over.is_set() or not count:
            for path in mine:
                self.assert_served(daemon, path)
                part = self.nar(daemon, path, Range=f"bytes={start}-")
                self.assertEqual((206, True), (part.status, part.whole))
                self.assertEqual(path.file[start:], part.body)
                count += 2
        return count

    def bad_paths(self, daemon: Daemon) -> None:
        for target in bad_requests.NOT_FOUND:
            answer = self.ask(daemon, target)
            self.assertEqual((404, True), (answer.status, answer.whole), target[:100])
        for target in bad_requests.UNKNOWN_EXTENSIONS:
            self.assertEqual(400, self.ask(daemon, target).status)

    def bad_bytes(self, daemon: Daemon) -> None:
        address = "127.0.0.1", daemon.port
        for each in bad_requests.RAW:
            answer = send_raw(address, each.data)
            self.assertIn(raw_status(answer), each.statuses, (each.data[:60], answer[:60]))
        self.assertNotIn(b"test:", send_raw(address, bad_requests.SMUGGLED))

    def bad_ranges(self, daemon: Daemon, path: StorePath) -> None:
        for header, status in bad_requests.ranges(len(path.file)).items():
            answer = self.nar(daemon, path, Range=header)
            self.assertEqual((status, True), (answer.status, answer.whole), header)
            if status == 200:
                self.assertEqual(path.file, answer.body)
            else:
                self.assertEqual(f"bytes */{len(path.file)}", answer.headers["content-range"])

    def bad_methods(self, daemon: Daemon, path: StorePath) -> None:
        for target in ("/", "/metrics", f"/{path.digest}.narinfo", path.nar_target):
            for method in bad_requests.METHODS:
                answer = self.ask(daemon, target, method=method)
                self.assertEqual((405, True), (answer.status, answer.whole), (method, target))

    def second_daemon(self, daemon: Daemon) -> None:
        """A second daemon with the same database and directory does not start."""
        done = run_ncps(daemon, "serve", flags=["--server-addr", f"127.0.0.1:{free_port()}"])
        self.assertEqual(1, done.returncode)
        self.assertRegex(done.stdout + done.stderr, r"is in use by process \d+ on ")

    def assert_nothing_strange(self, daemon: Daemon, origin: Origin) -> None:
        """No bad request reached the upstream, and the log has no unexpected error."""
        known = {"/nix-cache-info"}
        for path in self.cache.paths:
            known |= {f"/{path.digest}.narinfo", path.nar_target}
        self.assertEqual(set(), set(origin.get_counts()) - known)
        self.assertEqual([], [line for line in requests(daemon) if line["status"] >= 500])
        levels = {line["level"] for line in log_lines(daemon)}
        self.assertEqual(set(), levels - {"info", "warn"})
