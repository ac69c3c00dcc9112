"""Log lines, metrics and readiness."""

from __future__ import annotations

import time

from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.daemon import Daemon
from tests.system.caches import StorePath, TestKey, forged
from tests.system.faults import Cut, Html, Silence, Status, WrongBytes
from tests.system.stage import Stage, log_lines, requests
from tests.waiting import wait_until

SIZE = 300_000
SECRET = "hunter2-very-secret"


class MetricsStage(Stage):
    """Reads metrics with the client library's own parser."""

    def metrics(self, daemon: Daemon) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Return every sample by name and labels."""
        answer = self.ask(daemon, "/metrics")
        self.assertEqual(200, answer.status)
        self.assertIn("text/plain", answer.headers["content-type"])
        families = text_string_to_metric_families(answer.body.decode())
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    def value(self, daemon: Daemon, name: str, **labels: str) -> float:
        """Return the sum of the samples with these labels and any others."""
        wanted = set(labels.items())
        found = [v for (n, has), v in self.metrics(daemon).items() if n == name and wanted <= has]
        self.assertNotEqual([], found, (name, labels))
        return sum(found)

    def wait_until_all_are_well(self, daemon: Daemon) -> None:
        """Wait until no upstream counts as away."""
        wait_until(
            lambda: self.ask(daemon, "/readyz").json["parts"]["upstreams"] == "ok",
            "the upstreams to be well",
        )


class MetricsTests(MetricsStage):
    """`/metrics`."""

    def test_all_series_are_there_from_the_start(self) -> None:
        """Every counter of the table exists with 0 before the first request."""
        daemon = self.daemon(self.mounted())
        found = self.metrics(daemon)
        names = {name for name, _ in found}
        for name in (
            "ncps_nar_served_total",
            "ncps_narinfo_served_total",
            "ncps_served_bytes_total",
            "ncps_fetched_bytes_total",
            "ncps_upstream_errors_total",
            "ncps_downloads_total",
            "ncps_downloads_in_flight",
            "ncps_store_total_size_bytes",
            "ncps_narinfo_count",
            "ncps_nar_file_count",
            "ncps_upstream_narinfo_fetch_duration_seconds_count",
            "ncps_upstream_nar_fetch_duration_seconds_count",
            "ncps_upstream_count_total",
            "ncps_upstream_count_healthy",
            "ncps_lock_acquisitions_total",
            "ncps_lock_hold_duration_seconds_count",
            "http_server_request_duration_seconds_count",
            "http_server_active_requests",
            "ncps_event_loop_lag_seconds_count",
        ):
            self.assertIn(name, names)
        for (name, labels), value in found.items():
            if name.startswith("ncps_") and name.endswith("_served_total"):
                self.assertEqual(0, value, (name, labels))
        self.assertEqual(1, self.value(daemon, "ncps_upstream_count_total"))
        self.assertEqual(1, self.value(daemon, "ncps_upstream_count_healthy"))

    def test_miss_and_hit_are_counted(self) -> None:
        """A miss and a hit are counted immediately, with their bytes."""
        path = self.cache.add(SIZE)
        origin = self.mounted()
        daemon = self.daemon(origin)
        self.assert_served(daemon, path)
        self.wait_until_stored(daemon, path)
        name = f"127.0.0.1:{origin.port}"
        size = len(path.file)
        nar = "ncps_nar_served_total"
        self.assertEqual(
            1, self.value(daemon, nar, result="miss", status="success", upstream_hostname=name)
        )
        self.assertEqual(0, self.value(daemon, nar, result="hit", status="success"))
        self.assertEqual(
            1, self.value(daemon, "ncps_narinfo_served_total", result="miss", status="success")
        )
        served = self.value(daemon, "ncps_served_bytes_total", route="/nar/{file}")
        self.assertEqual(size, served)
        self.assertGreaterEqual(
            self.value(daemon, "ncps_fetched_bytes_total", upstream_hostname=name), size
        )
        self.assertEqual(1, self.value(daemon, "ncps_downloads_total", outcome="published"))
        self.assertEqual(0, self.value(daemon, "ncps_downloads_in_flight"))
        self.assert_served(daemon, path)
        self.assertEqual(1, self.value(daemon, nar, result="hit", status="success"))
        again = self.value(daemon, "ncps_served_bytes_total", route="/nar/{file}")
        self.assertEqual(2 * size, again)
        code = self.value(
            daemon,
            "http_server_request_duration_seconds_count",
            http_route="/nar/{file}",
            http_request_method="GET",
            http_response_status_code="200",
        )
        self.assertEqual(2, code)
        narinfos = self.value(daemon, "ncps_upstream_narinfo_fetch_duration_seconds_count")
        self.assertGreaterEqual(narinfos, 1)
        self.assertEqual(1, self.value(daemon, "ncps_upstream_nar_fetch_duration_seconds_count"))

    def test_totals_of_the_store_are_shown_after_a_start(self) -> None:
        """The store's size and numbers are right soon after a start."""
        path = self.cache.add(SIZE)
        daemon = self.daemon(self.mounted())
        self.assert_served(daemon, path)
        self.wait_until_stored(daemon, path)
        daemon.stop()
        daemon.start()
        wait_until(lambda: self.value(daemon, "ncps_nar_file_count") == 1, "the count")
        self.assertEqual(1, self.value(daemon, "ncps_narinfo_count"))
        self.assertEqual(len(path.file), self.value(daemon, "ncps_store_total_size_bytes"))

    def test_failures_of_upstreams_are_counted_by_kind(self) -> None:
        """Failures with narinfos and NARs are counted for their upstream, each by its kind."""
        paths = {
            kind: self.cache.add(SIZE)
            for kind in ("status", "malformed", "corrupt", "broken", "wrong", "timeout")
        }
        bad, good = self.mounted(), self.mounted()
        for kind, faults in (
            ("status", [Status(500)]),
            ("malformed", [Html()]),
            ("timeout", [Silence()]),
        ):
            bad.serve(f"/{paths[kind].digest}.narinfo", b"x", *faults)
        evil = forged(paths["corrupt"], key=TestKey.of("evil.test-1"))
        bad.serve(f"/{evil.digest}.narinfo", evil.narinfo())
        bad.serve(paths["broken"].nar_target, paths["broken"].file, Cut(SIZE // 2, reset=True))
        bad.serve(paths["wrong"].nar_target, paths["wrong"].file, WrongBytes(SIZE // 2))
        name = f"127.0.0.1:{bad.port}"

        def count(daemon: Daemon, kind: str) -> float:
            return self.value(
                daemon, "ncps_upstream_errors_total", kind=kind, upstream_hostname=name
            )

        daemon = self.daemon(bad, good)
        for what, path in paths.items():
            self.wait_until_all_are_well(daemon)
            kind = "corrupt" if what == "wrong" else what
            before = count(daemon, kind)
            self.nar(daemon, path)

            def is_counted(kind: str = kind, before: float = before) -> bool:
                return count(daemon, kind) > before

            wait_until(is_counted, what, daemon=daemon)
        self.wait_until_all_are_well(daemon)
        bad.stop()
        self.narinfo(daemon, self.cache.add())
        wait_until(lambda: count(daemon, "connect") > 0, "connect")

    def test_failed_downloads_are_counted(self) -> None:
        """A NAR that cannot be fetched counts as a failed download and an error."""
        path = self.cache.add(SIZE)
        daemon = self.daemon(self.mounted(Status(500)))
        self.assertEqual(503, self.nar(daemon, path).status)
        self.assertEqual(1, self.value(daemon, "ncps_downloads_total", outcome="failed"))
        failed = self.value(daemon, "ncps_nar_served_total", result="miss", status="error")
        self.assertEqual(1, failed)

    def test_metrics_are_off_by_default(self) -> None:
        """Without --prometheus-enabled `/metrics` is 404."""
        daemon = self.daemon(self.origin(), options=["--prometheus-enabled=false"])
        self.assertEqual(404, self.ask(daemon, "/metrics").status)


class LogTests(Stage):
    """Log lines."""

    def lines(self, daemon: Daemon, path: str) -> list[dict[str, object]]:
        """Return the lines about requests for a path."""
        return [line for line in requests(daemon) if line["path"] == path]

    def test_every_request_gives_one_line(self) -> None:
        """Each request is one line of JSON with status, bytes, duration, cache outcome and hash."""
        path: StorePath = self.cache.add(SIZE)
        daemon = self.daemon(self.mounted())
        target = self.nar_target(daemon, path)
        self.assert_served(daemon, path)
        self.wait_until_stored(daemon, path)
        self.nar(daemon, path, Range="bytes=0-99")
        self.ask(daemon, "/nope")
        self.ask(daemon, target, method="DELETE")
        self.ask(daemon, f"/{'0' * 32}.narinfo")
        daemon.stop()

        narinfo = self.lines(daemon, f"/{path.digest}.narinfo")
        self.assertEqual("miss", narinfo[0]["cache"])
        self.assertEqual({"hit"}, {line["cache"] for line in narinfo[1:]})
        self.assertEqual({path.digest}, {line["hash"] for line in narinfo})
        nars = [line for line in self.lines(daemon, target) if line["method"] == "GET"]
        self.assertEqual([(200, len(path.file)), (206, 100)], [self.sent(line) for line in nars])
        self.assertEqual(["miss", "hit"], [line["cache"] for line in nars])
        self.assertEqual({target.removeprefix("/nar/")}, {line["hash"] for line in nars})
        for line in nars:
            self.assertIsInstance(line["duration_ms"], float)
            self.assertEqual("127.0.0.1", line["client"])
            self.assertIs(line["complete"], True)
            self.assertRegex(str(line["time"]), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertEqual([404], [line["status"] for line in self.lines(daemon, "/nope")])
        deleted = [line for line in requests(daemon) if line["method"] == "DELETE"]
        self.assertEqual([405], [line["status"] for line in deleted])

    def test_a_trusted_proxy_names_the_client(self) -> None:
        """Its header is in the log, also for answers from memory; so are open uploads."""
        path = self.cache.add()
        daemon = self.daemon(
            self.mounted(),
            options=["--server-trusted-proxies=127.0.0.0/8", "--cache-allow-put-verb"],
        )
        self.assert_served(daemon, path)
        target, clients = f"/{path.digest}.narinfo", [f"203.0.113.{n}" for n in range(4)]
        for client in clients:
            via = {"X-Forwarded-For": f"198.51.100.1, {client}, 127.0.0.1"}
            self.assertEqual(200, self.ask(daemon, target, **via).status)
        self.assertEqual(405, self.ask(daemon, target, method="PUT").status)
        daemon.stop()
        told = [line["client"] for line in self.lines(daemon, target)]
        self.assertEqual([*clients, "127.0.0.1"], told[-5:])
        (warning,) = [line for line in log_lines(daemon) if line["level"] == "warn"]
        self.assertIn("anybody who reaches the port may upload", str(warning["message"]))

    def sent(self, line: dict[str, object]) -> tuple[object, object]:
        """Return the status and the bytes of a line."""
        return line["status"], line["bytes"]

    def test_no_client_can_forge_a_line(self) -> None:
        """A path with any characters is part of one line of valid JSON."""
        daemon = self.daemon(self.origin())
        for target in ('/"}\\', "/%0a%0d{", "/a?x=%0ay", "/" + "é".encode().hex(), "/\x7f"):
            self.ask(daemon, target.replace("\x7f", "%7f"))
        daemon.stop()
        self.assertEqual(5, sum(line["status"] == 404 for line in requests(daemon)))

    def test_probes_do_not_fill_the_log(self) -> None:
        """Heartbeats, readiness and metrics are not logged."""
        daemon = self.daemon(self.origin())
        for target in ("/healthz", "/readyz", "/metrics"):
            self.assertEqual(200, self.ask(daemon, target).status)
        daemon.stop()
        self.assertEqual([], requests(daemon))

    def test_log_level_holds(self) -> None:
        """With --log-level=error there are no lines about requests, starts or stops."""
        daemon = self.daemon(self.origin(), options=["--log-level", "error"])
        self.ask(daemon, "/nope")
        daemon.stop()
        self.assertEqual([], log_lines(daemon))

    def test_lines_are_in_the_order_of_their_times(self) -> None:
        """Lines of requests that wait are written before a warning that came later."""
        path = self.cache.add(compression="none")
        origin = self.mounted()
        daemon = self.daemon(origin, options=["--log-level", "debug"])
        self.assert_served(daemon, path)
        origin.plan = lambda _request: [Status(500)]
        for digit in "012":
            self.narinfo(daemon, path)  # a hit, which leaves a line
            self.ask(daemon, f"/{digit * 32}.narinfo")  # a miss that immediately logs warnings
        daemon.stop()
        lines = log_lines(daemon)
        times = [line["time"] for line in lines]
        self.assertEqual(sorted(times), times)
        said = "\n".join(str(line["message"]) for line in lines)
        self.assertIn(f"{path.digest}.narinfo: upstreams to ask, in this order: 127.0.0.1:", said)
        self.assertIn("is asked from byte 0 on", said)
        for noise in ("Starting factory", "Stopping factory", "NcpsSite"):
            self.assertNotIn(noise, said)

    def test_lines_for_people(self) -> None:
        """With the console writer, lines are text with a prefix."""
        options = ["--log-console-writer-enabled", "--log-console-writer-prefix", "ncps> "]
        daemon = self.daemon(self.origin(), options=options)
        self.ask(daemon, "/nope")
        daemon.stop()
        for line in daemon.log.splitlines():
            self.assertRegex(line, r"^ncps> \d{4}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z]+ +\S")
        self.assertIn("GET /nope 404", daemon.log)

    def test_secrets_stay_secret(self) -> None:
        """Credentials of an upstream and the signing key are in no log, page or metric."""
        path = self.cache.add()
        origin = self.mounted()
        url = origin.url.replace("http://", f"http://user:{SECRET}@")
        daemon = self.daemon(url, options=["--log-level", "debug"])
        self.assert_served(daemon, path)
        origin.stop()
        refused = self.narinfo(daemon, self.cache.add())
        self.assertIn(f"127.0.0.1:{origin.port} (".encode(), refused.body)
        pages = ("/", "/metrics", "/readyz", "/pubkey", f"/{path.digest}.narinfo")
        told = [self.ask(daemon, page).body.decode() for page in pages]
        daemon.stop()
        (kept,) = (daemon.storage / "config").glob("cache.key")
        key = kept.read_text().partition(":")[2].strip()
        for text in (*told, refused.body.decode(), daemon.log):
            self.assertNotIn(SECRET, text)
            self.assertNotIn(key[:40], text)
        self.assertEqual(0, kept.stat().st_mode & 0o077)


class ReadinessTests(Stage):
    """`/readyz`."""

    def test_ready_and_why_not(self) -> None:
        """Readiness names its parts; an upstream that is away does not change the status."""
        origin = self.mounted()
        daemon = self.daemon(origin)
        ready = self.ask(daemon, "/readyz")
        self.assertEqual((200, True), (ready.status, ready.json["ready"]))
        self.assertEqual(
            {"database": "ok", "storage": "ok", "upstreams": "ok", "leases": "ok"},
            ready.json["parts"],
        )
        origin.stop()
        path = self.cache.add()
        deadline = time.monotonic() + 20
        while "away" not in self.ask(daemon, "/readyz").json["parts"]["upstreams"]:
            self.narinfo(daemon, path)
            self.assertLess(time.monotonic(), deadline)
        self.assertEqual(200, self.ask(daemon, "/readyz").status)

    def test_lost_store_is_not_ready(self) -> None:
        """If the storage directory is gone, readiness is 503 and says so; nothing becomes 404."""
        path = self.cache.add(SIZE)
        daemon = self.daemon(self.mounted())
        self.assert_served(daemon, path)
        self.wait_until_stored(daemon, path)
        daemon.storage.rename(daemon.directory / "elsewhere")
        answer = self.ask(daemon, "/readyz")
        self.assertEqual((503, False), (answer.status, answer.json["ready"]))
        self.assertNotEqual("ok", answer.json["parts"]["storage"])
        self.assertNotEqual(404, self.ask(daemon, path.nar_target).status)
        (daemon.directory / "elsewhere").rename(daemon.storage)
        self.assertEqual(200, self.ask(daemon, "/readyz").status)
        self.assertEqual("hit", self.assert_served(daemon, path).outcome)
