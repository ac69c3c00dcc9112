"""A daemon whose store is a bucket."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tests.e2e.daemon import Daemon, UpstreamCache
from tests.integration.servers.radosgw import RadosGW
from tests.system.caches import StorePath
from tests.system.origin import Origin
from tests.system.program import run_ncps
from tests.system.stage import Stage, wait_until

SIZE = 3_000_000


class BucketDaemon(Daemon):
    """`ncps serve` on a bucket; its own directory has the database and the spools."""

    def __init__(
        self,
        directory: Path,
        upstreams: Sequence[UpstreamCache],
        *,
        server: RadosGW,
        bucket: str,
        options: Sequence[str] = (),
    ) -> None:
        self.server = server
        self.bucket = bucket
        super().__init__(directory, upstreams, options=options)

    def command(self) -> list[str]:
        """Return the command line."""
        command = super().command()
        at = command.index("--cache-storage-local")
        secret = self.directory / "secret"
        secret.write_text(f"{self.server.secret_key}\n")
        command[at : at + 2] = [
            *("--cache-storage-s3-bucket", self.bucket),
            *("--cache-storage-s3-endpoint", self.server.endpoint),
            *("--cache-storage-s3-access-key-id", self.server.access_key),
            *("--cache-storage-s3-secret-access-key-file", str(secret)),
            "--cache-storage-s3-force-path-style",
        ]
        return command

    def stored_nars(self) -> list[Path]:
        """Return the keys of NARs in the bucket, as if they were paths."""
        status, body = self.server.request(
            "GET", f"/{self.bucket}", query="list-type=2&prefix=store%2Fnar%2F"
        )
        if status != 200:
            raise AssertionError(f"no listing: {status} {body!r}")
        return [Path(part.partition("<")[0]) for part in body.decode().split("<Key>")[1:]]


@cache
def server_of_ours() -> RadosGW:
    """A server that the tests of this module share; they stop it and start it again."""
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
        """Return a daemon on a bucket, to be started."""
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
        """A NAR is fetched once, kept in the bucket and served from there ever after."""
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

    def test_ranges_and_heads(self) -> None:
        """Every part of a stored NAR can be had, and HEAD tells its size."""
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
        """An object that somebody removed is fetched again, and a cut one is set aside."""
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

    def test_lost_database_is_rebuilt_from_the_bucket(self) -> None:
        """With its database gone, a daemon serves everything again, without the upstream."""
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
        """Start a daemon that must not start; return the one line that it says."""
        daemon = daemon or self.bucket_daemon(self.origin())
        done = run_ncps(daemon, "serve", flags=flags)
        self.assertEqual(1, done.returncode, done.stderr)
        self.assertRegex(done.stderr, r"\Ancps: error: [^\n]+\n\Z")
        self.assertNotIn(self.server.secret_key, done.stderr + done.stdout)
        return done.stderr

    def test_what_is_wrong_with_the_bucket_is_told(self) -> None:
        """Each mistake is named in one line, with the setting to correct."""
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
            ((f"{option}storage-class=NO_SUCH",), ("does not take", "s3-storage-class")),
        ):
            said = self.refused(*flags, daemon=daemon)
            for word in words:
                self.assertIn(word, said)

    def test_server_away_for_some_seconds(self) -> None:
        """While the server is away nothing wrong is said; when it is back all goes on."""
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
            # What was never stored streams through; whether it is stored nobody can tell.
            answer = self.nar(daemon, new)
            self.assertIn(answer.status, (200, 503))
            if answer.status == 200:
                self.assertEqual(new.file, answer.body)
        finally:
            self.server.start()
        wait_until(lambda: self.ask(daemon, "/readyz").status == 200, "ready again", daemon=daemon)
        self.assertEqual("hit", self.assert_served(daemon, stored).outcome)
        self.assert_kept(daemon, new)

    def assert_unavailable(self, daemon: BucketDaemon, target: str) -> None:
        for method in ("GET", "HEAD"):
            answer = self.ask(daemon, target, method=method)
            self.assertEqual(503, answer.status)
            self.assertIn("retry-after", answer.headers)

    def assert_kept(self, daemon: BucketDaemon, path: StorePath) -> None:
        self.assert_served(daemon, path)
        self.wait_until_stored(daemon, path)
