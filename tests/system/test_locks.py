"""Daemons whose locks are in Redis or PostgreSQL, which go away and come back."""

from __future__ import annotations

from tests.e2e.daemon import Daemon
from tests.integration.servers import shared
from tests.integration.servers.redis import Redis
from tests.system.program import run_ncps
from tests.system.stage import Stage
from tests.waiting import wait_until

QUICK_REDIS = ("--cache-redis-timeout", "500ms", "--cache-lock-download-ttl", "2s")


class LocksStage(Stage):
    def metrics(self, daemon: Daemon) -> str:
        return self.ask(daemon, "/metrics").body.decode()

    def wait_for_leases(self, daemon: Daemon, *, ok: bool) -> None:
        def is_so() -> bool:
            return (self.ask(daemon, "/readyz").json["parts"]["leases"] == "ok") is ok

        wait_until(is_so, "readiness to change", daemon=daemon)


class RedisTests(LocksStage):
    def redis(self, *lines: str) -> Redis:
        server = Redis(*lines)
        self.addCleanup(server.close)
        return server

    def options(self, server: Redis, *more: str) -> tuple[str, ...]:
        address = f"127.0.0.1:{server.port}"
        return (
            "--cache-redis-addrs",
            address,
            "--cache-lock-backend",
            "redis",
            *QUICK_REDIS,
            *more,
        )

    def test_redis_comes_goes_and_comes_back(self) -> None:
        """Without Redis, stored paths are served, others get 503; ncps needs no restart."""
        server = self.redis()
        first, second = self.cache.add(), self.cache.add()
        origin = self.mounted()
        daemon = self.daemon(origin, options=self.options(server))
        ready = self.ask(daemon, "/readyz")
        self.assertEqual((200, True), (ready.status, ready.json["ready"]))
        self.assertIn("refused", ready.json["parts"]["leases"])
        answer = self.narinfo(daemon, first)
        self.assertEqual(503, answer.status, answer.body)
        self.assertIn("retry-after", answer.headers)
        self.assertEqual(0, origin.gets(f"/{first.digest}.narinfo"))
        self.assertIn("ncps_lock_backend_up 0.0", self.metrics(daemon))
        server.start()
        self.wait_for_leases(daemon, ok=True)
        self.assert_served(daemon, first)
        self.wait_until_stored(daemon, first)
        server.kill()
        self.wait_for_leases(daemon, ok=False)
        self.assert_served(daemon, first)
        self.assertEqual(503, self.narinfo(daemon, second).status)
        server.start()
        self.wait_for_leases(daemon, ok=True)
        self.assert_served(daemon, second)
        shown = self.metrics(daemon)
        self.assertIn("ncps_lock_backend_up 1.0", shown)
        failures = [line for line in shown.splitlines() if 'mode="redis",result="failure"' in line]
        self.assertEqual(1, len(failures))
        self.assertFalse(failures[0].endswith(" 0.0"), failures)
        daemon.stop()
        self.assertEqual(server.say("--scan", "--pattern", "ncps:*"), "ncps:lock:#fence")

    def test_degraded_mode(self) -> None:
        """In degraded mode all paths are served without Redis, and metrics and log say so."""
        server = self.redis()
        path = self.cache.add()
        daemon = self.daemon(
            self.mounted(), options=self.options(server, "--cache-lock-allow-degraded-mode=true")
        )
        self.assert_served(daemon, path)
        self.assertIn("ncps_lock_degraded 1.0", self.metrics(daemon))
        server.start()
        self.wait_for_leases(daemon, ok=True)
        self.assertIn("ncps_lock_degraded 0.0", self.metrics(daemon))
        self.wait_for_log(daemon, "is away", "cache-lock-allow-degraded-mode")
        self.wait_for_log(daemon, "answers again")

    def test_wrong_password_is_a_start_up_error(self) -> None:
        """One line names the mistake, without the password."""
        server = self.redis("requirepass right")
        server.start()
        secret = self.directory / "password"
        secret.write_text("wr0ng\n")
        options = self.options(server, "--cache-redis-password-file", str(secret))
        path = self.cache.add()
        daemon = self.make_daemon(self.mounted(), options=options)
        done = run_ncps(daemon, "serve")
        self.assertNotEqual(0, done.returncode)
        self.assertIn("WRONGPASS", done.stdout + done.stderr)
        self.assertNotIn("wr0ng", done.stdout + done.stderr)
        self.assertNotIn("Traceback", done.stdout + done.stderr)
        secret.write_text("right\n")
        daemon.start()
        self.assert_served(daemon, path)
        self.assertNotIn("right", daemon.log)


class SeveralRedisTests(LocksStage):
    """Three servers, of which a majority keeps the locks."""

    def options(self, *servers: Redis, more: tuple[str, ...] = ()) -> tuple[str, ...]:
        addresses = ",".join(f"127.0.0.1:{server.port}" for server in servers)
        where = ("--cache-redis-addrs", addresses, "--cache-lock-backend", "redis")
        return (*where, *QUICK_REDIS, *more)

    def server(self, *lines: str) -> Redis:
        server = Redis(*lines)
        self.addCleanup(server.close)
        server.start()
        return server

    def test_servers_go_and_come_back(self) -> None:
        """A server that is away has a gauge and a line; only without a majority requests fail."""
        servers = [self.server() for _ in range(3)]
        first, second = self.cache.add(), self.cache.add()
        daemon = self.daemon(self.mounted(), options=self.options(*servers))

        def gauge(server: Redis) -> str:
            head = f'ncps_lock_server_up{{server="127.0.0.1:{server.port}"}} '
            return self.metrics(daemon).partition(head)[2][:3]

        servers[0].kill()
        wait_until(lambda: gauge(servers[0]) == "0.0", "the gauge to fall", daemon=daemon)
        self.assertEqual(["1.0", "1.0"], [gauge(server) for server in servers[1:]])
        self.assertIn("ncps_lock_backend_up 1.0", self.metrics(daemon))
        self.assertEqual("ok", self.ask(daemon, "/readyz").json["parts"]["leases"])
        self.wait_for_log(daemon, "is away, one of 3 servers of which leases need 2")
        self.assert_served(daemon, first)
        self.wait_until_stored(daemon, first)
        servers[1].kill()
        self.wait_for_leases(daemon, ok=False)
        self.assertIn("2 of 3 Redis servers", self.ask(daemon, "/readyz").json["parts"]["leases"])
        self.assert_served(daemon, first)
        answer = self.narinfo(daemon, second)
        self.assertEqual(503, answer.status)
        self.assertIn("retry-after", answer.headers)
        self.assertIn("ncps_lock_backend_up 0.0", self.metrics(daemon))
        self.wait_for_log(daemon, "2 of 3 Redis servers are away, ")
        servers[0].start()
        self.wait_for_leases(daemon, ok=True)
        self.assert_served(daemon, second)
        self.wait_for_log(daemon, "enough Redis servers answer again")
        daemon.stop()
        self.assertEqual(servers[2].say("--scan"), "ncps:lock:#fence")

    def test_servers_that_are_not_what_they_should_be(self) -> None:
        """For each wrong server one line names it and a right value."""
        right, other = self.server(), self.server()
        replica = self.server(f"replicaof 127.0.0.1 {right.port}")
        locked = self.server("requirepass s3cret")
        daemon = self.make_daemon(self.mounted())
        twice = f"127.0.0.1:{right.port},localhost:{right.port},127.0.0.1:{other.port}"
        for flags, code, words in (
            (self.options(right, other, right), 2, ("should be there once",)),
            (("--cache-redis-addrs", twice), 1, ("same Redis server", "give each server once")),
            (self.options(right, other, replica), 1, (f"{replica.port} is a replica", "master")),
            (self.options(right, other, locked), 1, (f"{locked.port} refuses the login",)),
        ):
            done = run_ncps(daemon, "serve", flags=flags)
            said = done.stdout + done.stderr
            self.assertEqual(code, done.returncode, said)
            for word in words:
                self.assertIn(word, said)
            self.assertNotIn("Traceback", said)


class PostgreSQLTests(LocksStage):
    def test_postgresql_keeps_the_locks_too(self) -> None:
        """ncps needs no Redis, and opens a new session after a cut."""
        paths = [self.cache.add(), self.cache.add()]
        url = shared.postgresql().new_database()
        where = ("--cache-database-url", url, "--cache-lock-backend", "postgresql")
        daemon = self.daemon(self.mounted(), options=where)
        self.assert_served(daemon, paths[0])
        self.wait_until_stored(daemon, paths[0])
        name = url.rpartition("/")[2]
        sessions = "SELECT count(*) FROM lease_sessions"
        self.assertEqual([(1,)], shared.postgresql().execute(sessions, name))
        fences = "SELECT n.fence > 0, n.fence <= l.fence FROM nar_files n, lease_fence l"
        self.assertEqual([(True, True)], shared.postgresql().execute(fences, name))
        shared.postgresql().kill_connections(name)
        self.wait_for_log(daemon, "session with the leases", "ended")
        self.wait_for_leases(daemon, ok=True)
        self.assert_served(daemon, paths[1])
        labels = 'mode="postgresql",result="success",type="exclusive"'
        self.assertIn(f"ncps_lock_acquisitions_total{{{labels}}}", self.metrics(daemon))
        daemon.stop()
        locks = "SELECT * FROM pg_locks WHERE locktype = 'advisory'"
        self.assertEqual([], shared.postgresql().execute(locks, name))
