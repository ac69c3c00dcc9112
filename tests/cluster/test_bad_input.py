"""Mistakes of operators of replicas: a message names each and its remedy, and has no secret."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any

from tests.cluster.replicas import ClusterStage
from tests.e2e.bucket import BucketDaemon
from tests.e2e.daemon import UpstreamCache
from tests.integration.servers.database import PASSWORD, PASSWORD_IN_URL
from tests.integration.servers.redis import Redis
from tests.system.program import run_ncps
from tests.waiting import free_port

WRONG = "wr0ng-and-secret"


class Refusals(ClusterStage):
    """Runs a replica that must not start."""

    def setUp(self) -> None:
        super().setUp()
        self.url = self.setting("--cache-database-url")
        self.name = self.database_name

    def refused(self, *flags: str, words: Sequence[str], code: int = 1, **variables: str) -> str:
        """Start a replica with more settings; check that it ends with these words."""
        (replica,) = self.make_replicas(1, self.origin().url)
        done = run_ncps(replica, "serve", flags=flags, variables=variables)
        said = done.stderr + done.stdout
        self.assertEqual(code, done.returncode, said)
        for secret in (PASSWORD, PASSWORD_IN_URL, WRONG, "r1ght", self.backends.s3.secret_key):
            self.assertNotIn(secret, said)
        self.assertNotIn("Traceback", said)
        for word in words:
            self.assertIn(word, said)
        return said


class DatabaseRefusals(Refusals):
    """On any database."""

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """Run a statement as the administrator."""
        return self.backends.database.execute(statement, self.name)

    def user(self, *grants: str) -> str:
        """Return the URL of the database for a new user with these rights to its tables."""
        raise NotImplementedError

    def migrate(self) -> None:
        """Make the schema."""
        (replica,) = self.make_replicas(1, self.origin().url)
        done = run_ncps(replica, "migrate", "up")
        self.assertEqual(0, done.returncode, done.stderr)

    def database(self, url: str, *words: str) -> None:
        """Check that a replica on this database does not start and prints one line."""
        said = self.refused(words=words, CACHE_DATABASE_URL=url)
        self.assertRegex(said, r"\Ancps: error: [^\n]+\n\Z")


class DatabaseMistakes:
    """Mistakes about any database."""

    def test_wrong_url(self: Any) -> None:
        """An unknown scheme, and a URL without a name."""
        scheme = self.url.replace("://", "s3cure://", 1)
        for url in (scheme, self.url.replace("://", "//", 1), "db.example.org/ncps"):
            flag = f"--cache-database-url={url}"
            self.refused(flag, words=("cache-database-url", "postgresql://"), code=2)

    def test_wrong_password(self: Any) -> None:
        """The message does not repeat it."""
        url = self.backends.database.url(self.name, password=WRONG)
        self.database(url, "does not accept", "password", "cache-database-url")

    def test_unreachable_host(self: Any) -> None:
        """A port without a listener, and an unknown name."""
        port = f":{self.backends.database.port}/"
        self.database(self.url.replace(port, f":{free_port()}/"), "is it running", "refused")
        self.database(self.url.replace("127.0.0.1", "db.invalid"), "db.invalid", "is it running")

    def test_missing_database(self: Any) -> None:
        """The database does not exist."""
        self.database(self.url.replace(self.name, "nosuch"), "no database 'nosuch'", "create it")

    def test_user_who_may_make_no_tables(self: Any) -> None:
        """Without CREATE, an empty database cannot be used."""
        self.database(self.user(), "may not", "grant it", "ncps migrate up")

    def test_user_who_may_not_write(self: Any) -> None:
        """Without INSERT, a database with tables cannot be used."""
        self.migrate()
        self.database(self.user("SELECT"), "may not", "grant it")

    def test_schema_of_a_newer_program(self: Any) -> None:
        """A replica does not change the schema of a newer program."""
        self.migrate()
        self.execute("INSERT INTO schema_migrations VALUES (99, 'future', 'x', 1)")
        self.database(self.url, "99", "newer", "run the newer program")


class PostgreSQLTests(DatabaseMistakes, DatabaseRefusals):
    database_server = "PostgreSQL"

    def user(self, *grants: str) -> str:
        name = f"u_{self.name}"
        self.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{WRONG}'")
        if grants:
            self.execute(f"GRANT {', '.join(grants)} ON ALL TABLES IN SCHEMA public TO {name}")
        return self.backends.database.url(self.name, user=name, password=WRONG)


class MariaDBTests(DatabaseMistakes, DatabaseRefusals):
    database_server = "MariaDB"

    def user(self, *grants: str) -> str:
        name = f"u_{self.name}"
        self.execute(f"CREATE USER {name}@'127.0.0.1' IDENTIFIED BY '{WRONG}'")
        self.execute(
            f"GRANT {', '.join(grants) or 'SELECT'} ON {self.name}.* TO {name}@'127.0.0.1'"
        )
        return self.backends.database.url(self.name, user=name, password=WRONG)


class BucketTests(Refusals):
    def test_wrong_url(self) -> None:
        """An endpoint without its scheme."""
        flag = f"--cache-storage-s3-endpoint=127.0.0.1:{self.backends.s3.port}"
        self.refused(flag, words=("cache-storage-s3-endpoint", "http://"), code=2)

    def test_wrong_secret(self) -> None:
        """The message repeats neither the wrong nor the right one."""
        flag = f"--cache-storage-s3-secret-access-key={WRONG}"
        self.refused(flag, words=("secret", "cache-storage-s3-secret-access-key"))

    def test_unreachable_host(self) -> None:
        """A port without a listener, and an unknown name."""
        for address in (f"127.0.0.1:{free_port()}", "s3.invalid"):
            flag = f"--cache-storage-s3-endpoint=http://{address}"
            self.refused(flag, words=("cannot connect", address, "cache-storage-s3-endpoint"))

    def test_missing_bucket(self) -> None:
        """The bucket does not exist."""
        flag = "--cache-storage-s3-bucket=missing-bucket"
        self.refused(flag, words=("missing-bucket", "does not exist", "make it"))

    def test_bucket_that_may_only_be_read(self) -> None:
        """The message names the missing privileges."""
        bucket, s3 = self.bucket, self.backends.s3
        name = f"READER{secrets.token_hex(4)}".upper()
        s3.new_user(name, WRONG)
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"AWS": [f"arn:aws:iam:::user/{name.lower()}"]},
                    "Action": ["s3:GetObject", "s3:ListBucket"],
                    "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
                }
            ],
        }
        status, said = s3.request(
            "PUT", f"/{bucket}", query="policy=", body=json.dumps(policy).encode()
        )
        self.assertIn(status, (200, 204), said)
        self.refused(
            f"--cache-storage-s3-access-key-id={name}",
            f"--cache-storage-s3-secret-access-key={WRONG}",
            words=("do not allow", "s3:PutObject", bucket),
        )


class RedisTests(Refusals):
    def server(self, *lines: str) -> Redis:
        """Return a started server of this test alone."""
        server = Redis(*lines)
        self.addCleanup(server.close)
        server.start()
        return server

    def test_wrong_url(self) -> None:
        """A URL in place of an address."""
        flag = f"--cache-redis-addrs=redis://:{WRONG}@127.0.0.1:6379/0"
        self.refused(flag, words=("cache-redis-addrs", "settings of their own"), code=2)

    def test_wrong_password(self) -> None:
        """The message repeats neither the wrong nor the right one."""
        server = self.server("requirepass r1ght-and-secret")
        self.share("--cache-redis-addrs", f"127.0.0.1:{server.port}")
        secret = self.directory / "password"
        for text, word in ((WRONG, "WRONGPASS"), ("", "NOAUTH")):
            secret.write_text(text)
            self.refused(
                *([f"--cache-redis-password-file={secret}"] if text else []),
                words=(word, "ncps: error: ", "cache-redis-password"),
            )

    def test_server_that_drops_keys(self) -> None:
        """The message has the right value."""
        server = self.server("maxmemory 50mb", "maxmemory-policy allkeys-lru")
        self.share("--cache-redis-addrs", f"127.0.0.1:{server.port}")
        self.refused(words=("ncps: error: ", "allkeys-lru", "set maxmemory-policy noeviction"))

    def test_unreachable_host(self) -> None:
        """It may come later: the replica starts, and readiness names the server."""
        for address in (f"127.0.0.1:{free_port()}", "redis.invalid:6379"):
            self.share("--cache-redis-addrs", address)
            (replica,) = self.replicas(1, self.origin().url)
            ready = self.ask(replica, "/readyz")
            self.assertEqual((200, True), (ready.status, ready.json["ready"]))
            self.assertIn(address.partition(":")[0], ready.json["parts"]["leases"])
            replica.stop()


class MachineTests(Refusals):
    def test_sqlite_under_several_machines(self) -> None:
        """Replicas with a database of their own each are refused."""
        for path in ("/var/lib/ncps/db.sqlite", str(self.directory / "db.sqlite")):
            flag = f"--cache-database-url=sqlite:{path}"
            words = ("cluster-advertise-url", "SQLite", "PostgreSQL or MySQL")
            self.refused(flag, words=words, code=2)

    def test_two_catalogs_over_one_bucket(self) -> None:
        """If there is no other connection between them, the bucket reveals it."""
        path = self.cache.add(5000)
        bucket, origin = self.setting("--cache-storage-s3-bucket"), self.mounted()
        both = [
            BucketDaemon(
                self.directory / name,
                [UpstreamCache(origin.url, self.cache.key.public)],
                server=self.backends.s3,
                bucket=bucket,
            )
            for name in ("here", "there")
        ]
        for daemon in both:
            self.addCleanup(daemon.kill)
            daemon.start()
            self.assertNotIn("sharing", self.ask(daemon, "/readyz").json["parts"])
        for daemon, other in (both, both[::-1]):
            file = f"{other.directory}/catalog.sqlite"
            self.wait_for_log(daemon, "another ncps uses this store", file, "cache-database-url")
            ready = self.ask(daemon, "/readyz")
            self.assertEqual((200, True), (ready.status, ready.json["ready"]))
            self.assertIn(file, ready.json["parts"]["sharing"])
            self.assert_served(daemon, path)

    def test_clock_that_is_a_minute_off(self) -> None:
        """The start and readiness report it, and all paths are served."""
        paths = [self.cache.add(500_000) for _ in range(4)]
        origin = self.mounted()
        (right,) = self.replicas(1, origin.url)
        for seconds, where in ((60, "ahead of"), (-60, "behind")):
            (wrong,) = self.make_replicas(1, origin.url)
            wrong.clock_ahead_s = seconds
            wrong.start()
            self.wait_for_log(wrong, "the clock of this machine", where, "database", "NTP")
            ready = self.ask(wrong, "/readyz")
            self.assertEqual((200, True), (ready.status, ready.json["ready"]))
            self.assertRegex(ready.json["parts"]["clock"], rf"\b(59|60|61) s {where}")
            for replica, path in ((right, paths.pop()), (wrong, paths.pop())):
                self.assert_served(replica, path)
                for each in (right, wrong):
                    self.assert_hit(each, path)
                    self.assert_served(each, path)
                self.assertEqual(1, origin.gets(path.nar_target))
            wrong.stop()
        self.assertNotIn("clock", self.ask(right, "/readyz").json["parts"])
