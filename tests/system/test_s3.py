"""A daemon whose store is a bucket."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from functools import cache
from itertools import cycle
from threading import Event

from tests.e2e.bucket import BucketDaemon
from tests.integration.servers.radosgw import RadosGW
from tests.system.caches import StorePath
from tests.system.origin import Origin
from tests.system.program import run_ncps
from tests.system.stage import Stage
from tests.system.wire import ask
from tests.waiting import wait_until

SIZE = 3_000_000


@cache
def server_of_ours() -> RadosGW:
    """Return a server that the tests of this module share; they stop it and start it again."""
    server = RadosGW()
    atexit.register(server.close)
    server.start()
    return server


class BucketStage(Stage):
    """A stage with a server of S3."""

    def setUp(self) -> None:
        super().setUp()
        self.server = server_of_ours()

    def bucket_daemon(
        self, origin: Origin | str, *, options: Sequence[str] = (), bucket: str = ""
    ) -> BucketDaemon:
        """Return a daemon on a bucket that is not started."""
        template = self.make_daemon(origin, options=options)
        daemon = BucketDaemon(
            self.directory / f"bucket-{template.port}",
            template.upstreams,
            server=self.server,
            bucket=bucket or self.server.new_bucket(),
            options=template.options,
        )
        self.addCleanup(self.check_log, daemon)
        self.addCleanup(daemon.kill)
        return daemon


class ServingTests(BucketStage):
    def test_cold_warm_and_after_a_restart(self) -> None:
        """A NAR is fetched once, stored in the bucket and served from there."""
        paths = [self.cache.add(size) for size in (SIZE, 1000, 0)]
        origin = self.mounted()
        daemon = self.bucket_daemon(origin)
        daemon.start()
        key = daemon.public_key()
        for path in paths:
            self.assert_served(daemon, path)
        self.wait_until_stored(daemon, *paths)
        origin.stop()
        for path in paths:
            self.assertEqual("hit", self.assert_served(daemon, path).outcome)
        daemon.stop()
        daemon.start()
        self.assertEqual(key, daemon.public_key())
        for path in paths:
            self.assertEqual("hit", self.assert_served(daemon, path).outcome)
        self.assertEqual([1] * len(paths), [origin.gets(path.nar_target) for path in paths])
        daemon.stop()

    def test_two_workers_share_a_bucket(self) -> None:
        """Two workers have one key and make one fetch."""
        path = self.cache.add(SIZE)
        origin = self.mounted()
        daemon = self.bucket_daemon(origin, options=("--workers", "2"))
        daemon.start()
        target = self.nar_target(daemon, path)
        for answer in self.at_once(*[lambda: self.ask(daemon, target)] * 6):
            self.assertEqual((200, path.file), (answer.status, answer.body))
        self.wait_until_stored(daemon, path)
        self.assertEqual(1, origin.gets(path.nar_target))
        self.assertEqual(1, len({self.ask(daemon, "/pubkey").body for _ in range(8)}))
        daemon.stop()

    def test_ranges_and_heads(self) -> None:
        """All ranges of a stored NAR are served, and HEAD has its size."""
        path = self.cache.add(SIZE)
        daemon = self.bucket_daemon(self.mounted())
        daemon.start()
        self.assert_served(daemon, path)
        self.wait_until_stored(daemon, path)
        target = self.nar_target(daemon, path)
        size = len(path.file)
        for first, last in ((0, 0), (1, size - 1), (size - 1, size - 1), (300_000, 1_000_000)):
            answer = self.ask(daemon, target, Range=f"bytes={first}-{last}")
            self.assertEqual((206, path.file[first : last + 1]), (answer.status, answer.body))
        self.assertEqual(416, self.ask(daemon, target, Range=f"bytes={size}-").status)
        head = self.ask(daemon, target, method="HEAD")
        self.assertEqual((200, str(size)), (head.status, head.headers["content-length"]))

    def test_lost_object_is_fetched_again(self) -> None:
        """A removed object is fetched again, and a truncated one is set aside."""
        path = self.cache.add(SIZE)
        origin = self.mounted()
        daemon = self.bucket_daemon(origin)
        daemon.start()
        for count, spoil in enumerate((b"", b"too short"), 2):
            self.assert_served(daemon, path)
            self.wait_until_stored(daemon, path)
            (key,) = daemon.stored_nars()
            where = f"/{daemon.bucket}/{key}"
            method = "PUT" if spoil else "DELETE"
            self.assertIn(self.server.request(method, where, body=spoil)[0], (200, 204))
            self.assert_served(daemon, path)
            self.wait_until_stored(daemon, path)
            self.assertEqual(count, origin.gets(path.nar_target))

    def test_large_nars_are_redirected(self) -> None:
        """GET is redirected, HEAD and small NARs are not; lost NARs are fetched again."""
        large, small = self.cache.add(SIZE), self.cache.add(1000)
        origin = self.mounted()
        daemon = self.bucket_daemon(
            origin,
            options=(
                "--cache-storage-s3-redirect",
                *("--cache-storage-s3-redirect-min-size", "1M"),
            ),
        )
        daemon.start()
        for path in (large, small):
            self.assert_served(daemon, path)
        self.wait_until_stored(daemon, large, small)
        target = self.nar_target(daemon, large)
        self.assertEqual("hit", self.assert_served(daemon, small).outcome)
        answer = self.ask(daemon, target, Range="bytes=5-9")
        self.assertEqual((307, "hit", b""), (answer.status, answer.outcome, answer.body))
        location = answer.headers["location"]
        self.assertTrue(location.startswith(f"{self.server.endpoint}/{daemon.bucket}/store/nar/"))
        self.assertNotIn(self.server.secret_key, location)
        fetched = ask(self.server.port, location.removeprefix(self.server.endpoint))
        self.assertEqual((200, large.file), (fetched.status, fetched.body))
        head = self.ask(daemon, target, method="HEAD")
        self.assertEqual((200, str(len(large.file))), (head.status, head.headers["content-length"]))
        for key in daemon.stored_nars():
            self.server.request("DELETE", f"/{daemon.bucket}/{key}")
        self.assert_served(daemon, large)
        self.assertEqual(2, origin.gets(large.nar_target))
        self.assertNotIn("X-Amz", daemon.log)

    def test_lost_database_is_rebuilt_from_the_bucket(self) -> None:
        """After the loss of its database, a daemon serves all paths again, without the upstream."""
        paths = [self.cache.add(size) for size in (SIZE, 1000)]
        origin = self.mounted()
        daemon = self.bucket_daemon(origin)
        daemon.start()
        for path in paths:
            self.assert_served(daemon, path)
        self.wait_until_stored(daemon, *paths)
        key = daemon.public_key()
        daemon.stop()
        origin.stop()
        for file in daemon.directory.glob("catalog.sqlite*"):
            file.unlink()
        done = run_ncps(daemon, "rebuild")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn("2 narinfos and 2 NARs recorded", done.stdout)
        daemon.start()
        self.assertEqual(key, daemon.public_key())
        for path in paths:
            self.assertEqual("hit", self.assert_served(daemon, path).outcome)


class TroubleTests(BucketStage):
    def refused(self, *flags: str, daemon: BucketDaemon | None = None) -> str:
        """Start a daemon that must not start; return its one line."""
        daemon = daemon or self.bucket_daemon(self.origin())
        done = run_ncps(daemon, "serve", flags=flags)
        self.assertEqual(1, done.returncode, done.stderr)
        self.assertRegex(done.stderr, r"\Ancps: error: [^\n]+\n\Z")
        self.assertNotIn(self.server.secret_key, done.stderr + done.stdout)
        return done.stderr

    def test_chunks_of_the_go_program(self) -> None:
        """The command says whether the bucket has chunks, and fails if it cannot tell."""
        daemon = self.bucket_daemon(self.mounted())
        command = "migrate-chunks-to-nar"
        done = run_ncps(daemon, command)
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        self.server.request("PUT", f"/{daemon.bucket}/store/chunk/0/00/0000", body=b"x")
        done = run_ncps(daemon, command)
        self.assertEqual(2, done.returncode)
        self.assertIn(f"the bucket {daemon.bucket} has chunks", done.stderr)
        done = run_ncps(daemon, command, flags=("--cache-storage-s3-bucket", "not-there"))
        self.assertEqual(2, done.returncode)
        self.assertIn("cannot tell whether there are chunks: S3 bucket not-there", done.stderr)

    def test_faults_of_the_bucket_are_reported(self) -> None:
        """For each mistake one line names it and the setting to correct."""
        self.server.new_user("STRANGER", "stranger")
        daemon = self.bucket_daemon(self.origin())
        secret = self.directory / "other-secret"
        secret.write_text("not the secret")
        theirs = self.directory / "their-secret"
        theirs.write_text("stranger")
        option = "--cache-storage-s3-"
        for flags, words in (
            ((f"{option}bucket=missing-bucket",), ("does not exist", "s3-bucket")),
            ((f"{option}access-key-id=NOBODY",), ("access key", "access-key-id")),
            ((f"{option}secret-access-key-file={secret}",), ("secret", "secret-access-key")),
            ((f"{option}endpoint=http://127.0.0.1:9",), ("cannot connect", "s3-endpoint")),
            (
                (f"{option}endpoint=https://127.0.0.1:{self.server.port}",),
                ("TLS", "s3-endpoint"),
            ),
            (
                (
                    f"{option}access-key-id=STRANGER",
                    f"{option}secret-access-key-file={theirs}",
                ),
                ("do not allow", "s3:PutObject"),
            ),
            ((f"{option}storage-class=NO_SUCH",), ("does not accept", "s3-storage-class")),
        ):
            said = self.refused(*flags, daemon=daemon)
            for word in words:
                self.assertIn(word, said)

    def test_server_away_for_some_seconds(self) -> None:
        """While the server is away no answer is wrong; when it is back all requests succeed."""
        stored, new = self.cache.add(SIZE), self.cache.add(SIZE)
        daemon = self.bucket_daemon(
            self.mounted(), options=("--cache-storage-s3-max-attempts", "1")
        )
        daemon.start()
        self.assert_served(daemon, stored)
        self.wait_until_stored(daemon, stored)
        target = self.nar_target(daemon, stored)
        self.server.stop()
        try:
            self.assert_unavailable(daemon, target)
            self.assertEqual(503, self.ask(daemon, "/readyz").status)
            # A NAR that was never stored streams through; the store cannot tell whether it has it.
            answer = self.nar(daemon, new)
            self.assertIn(answer.status, (200, 503))
            if answer.status == 200:
                self.assertEqual(new.file, answer.body)
        finally:
            self.server.start()
        wait_until(lambda: self.ask(daemon, "/readyz").status == 200, "ready again", daemon=daemon)
        self.assertEqual("hit", self.assert_served(daemon, stored).outcome)
        self.assert_kept(daemon, new)

    def test_server_away_under_load(self) -> None:
        """Complete answers are right, others are 503 or cut; then all requests succeed."""
        paths = [self.cache.add(size) for size in (SIZE, 200_000, 1000)]
        daemon = self.bucket_daemon(
            self.mounted(), options=("--cache-storage-s3-max-attempts", "1")
        )
        daemon.start()
        for path in paths:
            self.assert_served(daemon, path)
        self.wait_until_stored(daemon, *paths)
        targets = [(self.nar_target(daemon, path), path.file) for path in paths]
        seen = {"right": 0, "refused": 0, "cut": 0}
        wrong: list[str] = []
        is_over = Event()

        def load() -> None:
            for target, expected in cycle(targets):
                if is_over.is_set():
                    return
                try:
                    answer = self.ask(daemon, target)
                except OSError as error:
                    wrong.append(f"{target}: {error!r}")
                    return
                if answer.status == 503 and "retry-after" in answer.headers:
                    seen["refused"] += 1
                elif answer.status == 200 and not answer.whole:
                    seen["cut"] += 1
                elif answer.status == 200 and answer.body == expected:
                    seen["right"] += 1
                else:
                    wrong.append(f"{target}: {answer.status}, {len(answer.body)} bytes")
                    return

        clients = [self.in_background(load) for _ in range(6)]
        self.addCleanup(is_over.set)

        def wait_for(what: str) -> None:
            goal = seen[what] + 20
            wait_until(
                lambda: wrong or seen[what] >= goal, f"twenty more are {what}", daemon=daemon
            )

        wait_for("right")
        self.server.crash()
        try:
            wait_for("refused")
        finally:
            self.server.start()
        wait_for("right")
        is_over.set()
        for client in clients:
            client.result(60)
        self.assertEqual([], wrong)
        for path in paths:
            self.assertEqual("hit", self.assert_served(daemon, path).outcome)

    def assert_unavailable(self, daemon: BucketDaemon, target: str) -> None:
        for method in ("GET", "HEAD"):
            answer = self.ask(daemon, target, method=method)
            self.assertEqual(503, answer.status)
            self.assertIn("retry-after", answer.headers)

    def assert_kept(self, daemon: BucketDaemon, path: StorePath) -> None:
        self.assert_served(daemon, path)
        self.wait_until_stored(daemon, path)
