"""Limits of a whole daemon: a status, a count under the setting's name, and bounded memory."""

from __future__ import annotations

import re
import shutil
import socket

from tests.e2e.daemon import Daemon
from tests.system.faults import Delay, Redirect, Trickle
from tests.system.stage import Stage
from tests.system.wire import raw_status, send_raw
from tests.waiting import wait_until

MIB = 1024 * 1024

FEW_DESCRIPTORS = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, {hard}))
from ncps.__main__ import main
sys.exit(main())
"""


class LimitStage(Stage):
    def reached(self, daemon: Daemon, limit: str) -> float:
        """Return how often a limit was reached."""
        text = self.ask(daemon, "/metrics").body.decode()
        found = re.search(
            rf'^ncps_limit_reached_total{{limit="{limit}"}} (\S+)$', text, re.MULTILINE
        )
        assert found is not None, limit
        return float(found[1])


class DescriptorTests(LimitStage):
    """Fewer descriptors than connections."""

    def crowded(self, hard: int, connections: int) -> tuple[Daemon, list[socket.socket]]:
        """Return a daemon under a limit, and idle connections to it."""
        daemon = self.make_daemon(self.mounted())
        daemon.program = ("-c", FEW_DESCRIPTORS.format(hard=hard))
        daemon.start()
        idle = []
        for _ in range(connections):
            idle.append(socket.create_connection(("127.0.0.1", daemon.port), 5))
            self.addCleanup(idle[-1].close)
        return daemon, idle

    def test_the_soft_limit_is_raised(self) -> None:
        """With more idle connections than the soft limit allows, all clients get answers."""
        path = self.cache.add()
        daemon, _ = self.crowded(4096, 300)
        self.assertEqual(path.file, self.ask(daemon, self.nar_target(daemon, path)).body)
        self.assertIn("the limit of 4096 descriptors allows", daemon.log)

    def test_connections_that_do_not_fit_wait(self) -> None:
        """Connections beyond the limit wait until others end; none is reset."""
        path = self.cache.add(MIB)
        daemon, idle = self.crowded(256, 100)
        first = idle[0]
        target = f"/{path.digest}.narinfo"
        first.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        self.assertEqual(200, raw_status(first.recv(65536)))
        self.wait_for_log(daemon, "this is logged once")
        late = self.in_background(lambda: self.ask(daemon, "/pubkey").status)
        idle[50].sendall(b"GET /pubkey HTTP/1.1\r\nHost: x\r\n\r\n")
        for line in idle[:50]:
            line.close()
        idle[50].settimeout(20)
        self.assertEqual(200, raw_status(idle[50].recv(65536)))
        for line in idle[50:]:
            line.close()
        self.assertEqual(200, late.result(20))
        self.assertEqual(path.file, self.ask(daemon, self.nar_target(daemon, path)).body)


class ClientLimitTests(LimitStage):
    def test_large_heads_are_431(self) -> None:
        """The settings bound the size and the number of headers."""
        daemon = self.daemon(
            self.mounted(), options=("--server-max-header-size=2K", "--server-max-headers=20")
        )
        address = "127.0.0.1", daemon.port
        for head, limit in (
            (b"X: " + b"a" * 3000, "server-max-header-size"),
            (b"\r\n".join([b"X: a"] * 21), "server-max-headers"),
        ):
            answer = send_raw(address, b"GET /pubkey HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n")
            self.assertEqual((431, b"Connection: close" in answer), (raw_status(answer), True))
            self.assertEqual(1, self.reached(daemon, limit))

    def test_connections_of_one_address_are_bounded(self) -> None:
        """Connections beyond the limit are closed immediately, and open ones continue."""
        daemon = self.daemon(self.mounted(), options=("--server-max-connections-per-address=3",))
        held = [socket.create_connection(("127.0.0.1", daemon.port)) for _ in range(3)]
        for line in held:
            self.addCleanup(line.close)
        with socket.create_connection(("127.0.0.1", daemon.port)) as late:
            late.settimeout(5)
            self.assertEqual(b"", late.recv(1))
        held.pop().close()
        wait_until(lambda: self._is_up(daemon), "a place to be free")
        self.assertLessEqual(1, self.reached(daemon, "server-max-connections-per-address"))

    def _is_up(self, daemon: Daemon) -> bool:
        try:
            return self.ask(daemon, "/healthz").status == 200
        except OSError:
            return False

    def test_requests_beyond_the_limit_are_503(self) -> None:
        """A request beyond the limit gets 503 with Retry-After, and succeeds later."""
        path = self.cache.add()
        origin = self.mounted()
        target = f"/{path.digest}.narinfo"
        origin.serve(target, path.narinfo(), Delay(0.7))
        daemon = self.daemon(origin, options=("--server-max-requests=2",))
        answers = self.at_once(*[lambda: self.ask(daemon, target) for _ in range(6)])
        statuses = sorted(answer.status for answer in answers)
        self.assertEqual(statuses, [200, 200, 503, 503, 503, 503])
        told = {a.headers.get("retry-after") for a in answers if a.status == 503}
        self.assertEqual({"5"}, told)
        self.assertEqual(4, self.reached(daemon, "server-max-requests"))
        self.assertEqual(200, self.ask(daemon, target).status)


class UpstreamLimitTests(LimitStage):
    def test_narinfo_and_redirects_are_bounded_as_set(self) -> None:
        """Answers beyond these limits fail, are counted, and do no harm to others."""
        large = self.cache.add(references=[self.cache.add() for _ in range(100)])
        moved = self.cache.add()
        small = self.cache.add()
        origin = self.mounted()
        origin.serve(f"/{moved.digest}.narinfo", b"", Redirect("/elsewhere"))
        origin.serve("/elsewhere", moved.narinfo())
        daemon = self.daemon(
            origin, options=("--cache-narinfo-max-size=4K", "--cache-upstream-max-redirects=0")
        )
        self.assertEqual(502, self.narinfo(daemon, large).status)
        self.assertEqual(1, self.reached(daemon, "cache-narinfo-max-size"))
        self.assertEqual(503, self.narinfo(daemon, moved).status)
        self.assertEqual(1, self.reached(daemon, "cache-upstream-max-redirects"))
        self.assert_served(daemon, small)

    def test_slow_nars_hold_up_no_narinfo(self) -> None:
        """While all connections for NARs are in use, narinfos come, and the next NAR gets 503."""
        paths = [self.cache.add(100_000) for _ in range(2)]
        other = self.cache.add()
        origin = self.mounted(Trickle(20_000.0))
        daemon = self.daemon(
            origin,
            options=("--cache-upstream-max-connections=1", "--cache-upstream-queue-timeout=200ms"),
        )
        targets = [self.nar_target(daemon, path) for path in paths]
        first = self.exchange(daemon, targets[0])
        second = self.ask(daemon, targets[1])
        self.assertEqual((503, True), (second.status, "retry-after" in second.headers))
        self.assertLessEqual(1, self.reached(daemon, "cache-upstream-queue-timeout"))
        self.assertEqual(200, self.narinfo(daemon, other).status)
        answer = first.finish()
        self.assertEqual((True, paths[0].file), (answer.whole, answer.body))
        self.assertEqual(1, self.metric(daemon, "ncps_upstream_count_healthy"))


class DownloadLimitTests(LimitStage):
    def test_number_of_downloads_is_bounded(self) -> None:
        """One download too many is 503; a client that joins a running one does not count."""
        paths = [self.cache.add(250_000) for _ in range(2)]
        origin = self.mounted(Trickle(100_000.0))
        daemon = self.daemon(origin, options=("--cache-download-max-count=1",))
        targets = [self.nar_target(daemon, path) for path in paths]
        first = self.exchange(daemon, targets[0])
        joined = self.exchange(daemon, targets[0])
        refused = self.ask(daemon, targets[1])
        self.assertEqual((503, True), (refused.status, "retry-after" in refused.headers))
        self.assertEqual(1, self.reached(daemon, "cache-download-max-count"))
        for exchange in (first, joined):
            self.assertEqual(paths[0].file, exchange.finish().body)
        self.wait_until_stored(daemon, paths[0])
        self.assert_served(daemon, paths[1])

    def test_spools_are_bounded(self) -> None:
        """A download waits for a time until others free their spools; they are not disturbed."""
        paths = [self.cache.add(250_000) for _ in range(2)]
        origin = self.mounted(Trickle(100_000.0))
        daemon = self.daemon(
            origin,
            options=(
                "--cache-download-max-spool-size=300K",
                "--cache-download-queue-timeout=300ms",
            ),
        )
        targets = [self.nar_target(daemon, path) for path in paths]
        first = self.exchange(daemon, targets[0])
        self.assertEqual(len(paths[0].file), self.metric(daemon, "ncps_spool_bytes"))
        self.assertEqual(503, self.ask(daemon, targets[1]).status)
        self.assertEqual(1, self.reached(daemon, "cache-download-max-spool-size"))
        self.assertEqual(paths[0].file, first.finish().body)
        self.wait_until_stored(daemon, paths[0])
        self.assert_served(daemon, paths[1])
        self.wait_until_stored(daemon, paths[1])
        self.assertEqual(0, self.metric(daemon, "ncps_spool_bytes"))

    def test_short_of_space_streams_through(self) -> None:
        """With less free space than the reserve, clients get every byte and nothing is stored."""
        path = self.cache.add(3 * MIB)
        most = shutil.disk_usage(self.directory).total // MIB - 1
        daemon = self.daemon(self.mounted(), options=(f"--cache-storage-min-free={most}M",))
        self.assert_served(daemon, path)
        wait_until(
            lambda: self.metric(daemon, 'ncps_downloads_total{outcome="unkept"}') == 1,
            "the download to be counted",
        )
        self.assertEqual(1, self.reached(daemon, "cache-storage-min-free"))
        self.wait_for_log(daemon, "not kept", "would leave less than")
        self.assertIn(b'"room":"nothing new is kept: ', self.ask(daemon, "/readyz").body)
        self.assert_served(daemon, path)
        self.assertEqual("miss", self.nar(daemon, path).outcome)
