"""The `services.ncps` of nixpkgs runs this package, unchanged, with fourteen sets of options.

So does our own module. Both were evaluated; the results are kept (see `tests.nixos`). Hosts, paths
and secrets are replaced by those of this machine; nothing else is.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Final

from ncps.database.migration import known
from ncps.nix.keys import SecretKey
from tests.cluster.replicas import Backends, started
from tests.configurations import COMMUNITY, NIXOS, OFF, Told
from tests.e2e.daemon import Daemon
from tests.integration.servers.redis import Redis
from tests.nixos.evaluating import CREDENTIALS, Unit, of_nixpkgs, ours, unit_of
from tests.system.program import run
from tests.system.stage import Stage, log_lines

UNITS: Final = of_nixpkgs()
REPORTS: Final = ("analytics.reporting.enabled", OFF)
TTL: Final = ("lock-download-ttl 5m", "shortened to 30s")
ALONE: Final = ("lock-backend redis", "SQLite is for one")
CHUNKS: Final = tuple((f"cdc.{name}", OFF) for name in ("min", "avg", "max"))
BY_HOST: Final = "http://s3.example.org:9000"
POSTGRESQL: Final = "postgresql://ncps:easypwd@postgres:5432/ncps?sslmode=disable"


class UnitDaemon(Daemon):
    """A daemon started like a unit, with the unit's files, directories and credentials here.

    :param others: texts that replace those of the unit.
    :param secrets: contents of credentials.
    """

    def __init__(
        self,
        directory: Path,
        unit: Unit,
        others: Mapping[str, str],
        secrets: Mapping[str, str],
    ) -> None:
        super().__init__(directory, ())
        self.is_forked = True
        self._unit = unit
        credentials = directory / "credentials"
        credentials.mkdir()
        self._others = {
            ":8501": f"127.0.0.1:{self.port}",
            "0.0.0.0:8501": f"127.0.0.1:{self.port}",
            '"/tmp"': json.dumps(f"{directory}/tmp"),
            CREDENTIALS: str(credentials),
            **{path: f"{directory}{path}" for path in ("/var/lib/ncps", "/path/to", "/mnt/hd")},
            "/run/secrets": str(directory / "secrets"),
            **others,
            **{f"<{name}>": text.rstrip("\n") for name, text in secrets.items()},
        }
        for name, text in secrets.items():
            (credentials / name).write_text(text)
        for path in map(self.replaced, unit.directories):
            Path(path).mkdir(parents=True, mode=0o700, exist_ok=True)
        self.config = directory / "ncps-config.json"
        self.config.write_text(self.replaced(json.dumps(unit.config)))
        self.environment = {
            name: self.replaced(text) for name, text in unit.serve.environment.items()
        }

    def replaced(self, text: str) -> str:
        """Return a text of the unit for this machine; longer matching texts count first."""
        longest = sorted(self._others, key=len, reverse=True)
        pattern = "|".join(map(re.escape, longest))
        return re.sub(pattern, lambda found: self._others[found[0]], text)

    def command(self) -> list[str]:
        """Return the command line."""
        words = [word.replace("@config@", str(self.config)) for word in self._unit.serve.arguments]
        return [sys.executable, *self.program, *words]

    def before(self) -> str:
        """Run the unit's commands before the daemon; return their output."""
        call = self._unit.before
        assert call is not None
        variables = {name: self.replaced(text) for name, text in call.environment.items()}
        home = self.directory / "home"
        done = run(["-m", "ncps.dbmate", *call.arguments], home, variables)
        if done.returncode:
            raise AssertionError(done.stderr)
        return done.stdout


class UnitStage(Stage):
    """Starts units with their servers."""

    def setUp(self) -> None:
        super().setUp()
        self.path = self.cache.add(1000)
        self.urls = [self.mounted().url for _ in range(2)]

    @cached_property
    def servers(self) -> Backends:
        return started("PostgreSQL")

    def daemon_of(
        self,
        name: str,
        unit: Unit,
        others: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> UnitDaemon:
        """Return the daemon of a unit that is not started."""
        replaced = {
            "https://cache.nixos.org": self.urls[0],
            "https://nix-community.cachix.org": self.urls[1],
            NIXOS: self.cache.key.public,
            COMMUNITY: self.cache.key.public,
            **(others or {}),
        }
        daemon = UnitDaemon(self.directory / name, unit, replaced, secrets or {})
        self.addCleanup(self.check_log, daemon)
        self.addCleanup(daemon.kill)
        self.assertEqual(set(secrets or {}), set(unit.credentials))
        return daemon

    def assert_told(self, daemon: Daemon, told: Told) -> None:
        said = [line for line in log_lines(daemon) if line["level"] not in {"debug", "info"}]
        self.assertEqual(len(told), len(said), said)
        for line, words in zip(said, told, strict=True):
            self.assertEqual("warn", line["level"])
            for word in words:
                self.assertIn(word, line["message"])

    def bucket(self) -> dict[str, str]:
        s3 = self.servers.s3
        bucket = json.dumps(s3.new_bucket())
        return {
            BY_HOST: s3.endpoint,
            "us-west-1": s3.region,
            '"bucket": "ncps"': f'"bucket": {bucket}',
        }


class NixpkgsTests(UnitStage):
    """The module of nixpkgs, with each set of options."""

    def serve(
        self,
        name: str,
        *told: tuple[str, ...],
        others: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> UnitDaemon:
        """Start a unit twice as systemd would; check what the tests of nixpkgs check.

        :param told: words of the expected warnings, in order.
        """
        daemon = self.daemon_of(name, UNITS[name], others, secrets)
        applied = [f"applied {step.version:04} {step.name}\n" for step in known("sqlite")]
        self.assertEqual("".join(applied), daemon.before())
        daemon.start()
        hostname = UNITS[name].options["cache"]["hostName"]
        self.assertIn(f'"hostname":"{hostname}"'.encode(), self.ask(daemon, "/").body)
        self.assert_served(daemon, self.path)
        self.assert_told(daemon, told)
        daemon.stop()
        self.assertEqual("the schema is up to date\n", daemon.before())
        return daemon

    def test_its_defaults(self) -> None:
        """The narinfo is where the test of nixpkgs looks for it."""
        daemon = self.serve("defaults", REPORTS)
        digest = self.path.digest
        store = daemon.directory / "var" / "lib" / "ncps" / "store"
        path = store / "narinfo" / digest[0] / digest[:2] / f"{digest}.narinfo"
        self.assertTrue(path.is_file())

    def test_directories(self) -> None:
        """The store, the database and downloads may be anywhere, also with old names."""
        self.serve("directory of the database", REPORTS)
        self.serve("names of old", REPORTS, ("put-verb", "anybody"), ("delete-verb", "anybody"))

    def test_a_key_of_ones_own(self) -> None:
        """Clients see a key whose name has no number."""
        key = SecretKey.generate("ncps")
        daemon = self.serve(
            "a store elsewhere and a key", REPORTS, secrets={"secretKey": key.export()}
        )
        daemon.start()
        self.assertEqual(str(key.public), daemon.public_key())

    def test_plain_options(self) -> None:
        """Limits, upstreams and signatures."""
        self.serve("size and schedule", REPORTS)
        self.serve("without signatures of its own", REPORTS)
        self.serve("metrics")
        self.serve("chunks", ("cdc.enabled", "stored whole"), REPORTS, *CHUNKS)

    def test_several_upstreams_and_their_credentials(self) -> None:
        """The daemon reads the netrc file."""
        name = "several upstreams and their credentials"
        netrc = self.directory / name / "secrets" / "netrc"
        netrc.parent.mkdir(parents=True)
        netrc.write_text("machine cache.example.org login me password secret\n")
        self.serve(name, REPORTS)

    def test_postgresql(self) -> None:
        """Its URL is an option, or the content of a file."""
        database = self.servers.database
        url = f"{database.new_database()}?sslmode=disable"
        self.serve("PostgreSQL", REPORTS, others={POSTGRESQL: url})
        url = database.new_database()
        self.serve("PostgreSQL by a file", REPORTS, secrets={"databaseURL": f"{url}\n"})

    def test_a_bucket(self) -> None:
        """The database stays in a directory."""
        self.serve("a bucket", REPORTS, others=self.bucket(), secrets=self.keys_of_bucket())

    def test_redis(self) -> None:
        """Redis has a password."""
        server = Redis("requirepass easypwd")
        self.addCleanup(server.close)
        server.start()
        others = {"redis:6379": f"127.0.0.1:{server.port}"}
        self.serve("Redis", REPORTS, ALONE, TTL, others=others)
        secrets = {
            "databaseURL": self.servers.database.new_database(),
            "redisPassword": "easypwd",
            "secretKey": SecretKey.generate("ncps").export(),
            **self.keys_of_bucket(),
        }
        told = (("redis.pool-size", OFF), ("retry.max-attempts", OFF), TTL)
        self.serve("several machines", *told, others={**others, **self.bucket()}, secrets=secrets)

    def keys_of_bucket(self) -> dict[str, str]:
        s3 = self.servers.s3
        return {"s3AccessKeyId": s3.access_key, "s3SecretAccessKey": s3.secret_key}

    def test_each_set_is_started(self) -> None:
        """There are fourteen sets."""
        self.assertEqual(14, len(UNITS))


class OursTests(UnitStage):
    """Our own module."""

    def test_nothing_but_enable(self) -> None:
        """It serves, with its data in the unit's directory; the start makes the schema."""
        daemon = self.daemon_of("ours", unit_of(ours()["nothing but enable"]))
        daemon.environment["CACHE_UPSTREAM_URLS"] = self.urls[0]
        daemon.environment["CACHE_UPSTREAM_PUBLIC_KEYS"] = self.cache.key.public
        daemon.start()
        self.assert_served(daemon, self.path)
        self.assert_told(daemon, ())
        data = daemon.directory / "var" / "lib" / "ncps"
        self.assertTrue((data / "db" / "db.sqlite").is_file())
        daemon.stop()

    def test_several_machines(self) -> None:
        """systemd has put all secrets into files."""
        s3 = self.servers.s3
        key = SecretKey.generate("ncps")
        secrets = {
            "cache.database-url-file": self.servers.database.new_database(),
            "cache.redis.password-file": "easypwd",
            "cache.secret-key-path": key.export(),
            "cache.storage.s3.access-key-id-file": s3.access_key,
            "cache.storage.s3.secret-access-key-file": s3.secret_key,
        }
        server = Redis("requirepass easypwd")
        self.addCleanup(server.close)
        server.start()
        others = {"redis:6379": f"127.0.0.1:{server.port}", **self.bucket()}
        daemon = self.daemon_of("ours", unit_of(ours()["several machines"]), others, secrets)
        daemon.start()
        self.assertEqual(str(key.public), daemon.public_key())
        self.assert_served(daemon, self.path)
        self.assert_told(daemon, (("redis.pool-size", OFF), ("retry.max-attempts", OFF), TTL))
        daemon.stop()
