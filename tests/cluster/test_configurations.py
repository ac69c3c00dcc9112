"""Nine typical configurations start, with the expected warnings and no others.

Hosts, databases, buckets, paths and secrets are replaced by those of this machine; nothing else is.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from ncps.nix.keys import SecretKey
from tests.cluster.replicas import started
from tests.configurations import CONFIGURATIONS, Configuration, Told
from tests.e2e.daemon import Daemon
from tests.integration.servers.certificates import Authority
from tests.integration.servers.database import PASSWORD_IN_URL, USER
from tests.integration.servers.postgresql import PostgreSQL
from tests.system.stage import Stage, log_lines
from tests.system.wire import raw_status, send_raw
from tests.waiting import free_port

SECRET: Told = (("--cache-database-url", "all users of this machine can read the command line"),)
UNVERIFIED: Told = (("no public key is configured",),)
UPLOADS: Told = (("anybody who reaches the port may upload", "ncps token create"),)
DELETIONS: Told = (("anybody who reaches the port may delete", "ncps token create"),)
READINESS = b"GET /readyz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"


class Configured(Daemon):
    """A daemon with only a configuration."""

    def __init__(self, directory: Path, port: int, configuration: Configuration) -> None:
        super().__init__(directory, ())
        self.is_forked = True
        self.port = port
        self.socket = directory / "ncps.sock"
        self.environment = {**configuration.environment}
        self._given = list(configuration.flags)
        if configuration.file:
            path = directory / f"config.{configuration.suffix}"
            path.write_text(configuration.file)
            self._given.append(f"--config={path}")

    def command(self) -> list[str]:
        """Return the command line."""
        return [sys.executable, *self.program, "serve", *self._given]

    def is_ready(self) -> bool:
        """Ask at the socket if it has one."""
        if not self.socket.exists():
            return super().is_ready()
        return raw_status(send_raw(str(self.socket), READINESS)) == 200


class ConfigurationTests(Stage):
    """Each with PostgreSQL over TLS, MariaDB, a bucket and Redis where it names them."""

    def setUp(self) -> None:
        super().setUp()
        self.origins = [self.mounted().url for _ in range(2)]

    def start(self, name: str, others: Mapping[str, str], *, at_start: Told = ()) -> Configured:
        """Start a configuration and check that it serves, after the expected warnings.

        :param others: texts that replace those of this configuration.
        :param at_start: words of warnings for this machine, after those for its settings.
        """
        port = free_port()
        directory = self.directory / "configured"
        replaced = {
            "https://cache.nixos.org": self.origins[0],
            "https://nix-community.cachix.org": self.origins[1],
            ":8501": f"127.0.0.1:{port}",
            "=/tmp": f"={directory}/tmp",
            **dict.fromkeys(("/var/lib/ncps", "/storage", "/data/ncps"), f"{directory}/data"),
            **others,
        }
        configuration = CONFIGURATIONS[name].replaced(replaced)
        daemon = Configured(directory, port, configuration)
        text = f"{configuration.flags}{configuration.file}"
        if str(port) not in text and str(daemon.socket) not in text:  # the default directory
            daemon.environment["SERVER_ADDR"] = f"127.0.0.1:{port}"
        if "upstream" not in f"{text}{configuration.environment}".lower():
            daemon.environment["CACHE_UPSTREAM_URLS"] = self.origins[0]
            daemon.environment["CACHE_UPSTREAM_PUBLIC_KEYS"] = self.cache.key.public
        self.addCleanup(self.check_log, daemon)
        self.addCleanup(daemon.kill)
        daemon.start()
        said = [line for line in log_lines(daemon) if line["level"] not in {"debug", "info"}]
        expected = (*configuration.told, *at_start)
        self.assertEqual(len(expected), len(said), said)
        for line, words in zip(said, expected, strict=True):
            self.assertEqual("warn", line["level"])
            for word in words:
                self.assertIn(word, line["message"])
        daemon.stop()
        return daemon

    def secrets(self, **texts: str) -> dict[str, str]:
        """Write files of secrets; return the replacement for a service's directory of secrets."""
        directory = self.directory / "credentials"
        directory.mkdir()
        for name, text in texts.items():
            path = directory / name.replace("_", "-")
            path.touch(0o600)
            path.write_text(f"{text}\n")
        return {"/run/credentials": str(directory)}

    def test_the_nixos_module(self) -> None:
        """The module with its defaults."""
        self.start("the NixOS module", {})

    def test_the_nixos_module_with_uploads(self) -> None:
        """The start warns that every client may write, and the given key is used."""
        key = SecretKey.generate("cache.lan")
        daemon = self.start(
            "the NixOS module with uploads",
            self.secrets(key=key.export()),
            at_start=(*UNVERIFIED, *UPLOADS, *DELETIONS),
        )
        self.assertIn(str(key.public), daemon.log)

    def test_the_nixos_module_with_a_bucket(self) -> None:
        """The secrets come from their files."""
        s3 = started("PostgreSQL").s3
        others = {
            "ncps-bucket": s3.new_bucket(),
            "http://minio:9000": s3.endpoint,
            "us-east-1": s3.region,
            **self.secrets(s3_id=s3.access_key, s3_secret=s3.secret_key),
        }
        self.start("the NixOS module with a bucket", others, at_start=UNVERIFIED)

    def test_a_compose_file(self) -> None:
        """MariaDB, and a directory with one for downloads."""
        (self.directory / "configured" / "data" / "tmp").mkdir(parents=True)
        url = started("MariaDB").database.new_database()
        self.start("a compose file", {"mysql://ncps:pw@mariadb:3306/ncps": url})

    def test_a_command_of_docker(self) -> None:
        """Old names of settings, in a directory."""
        self.start("a command of Docker", {})

    def test_postgresql_by_socket(self) -> None:
        """The user in the URL replaces the user of the socket."""
        server = started("PostgreSQL").database
        assert isinstance(server, PostgreSQL)
        place = f"host={server.directory}&port={server.port}&user={USER}"
        for name, former, at_start in (
            (
                "the NixOS module with PostgreSQL on the machine",
                "postgresql:///ncps",
                (*SECRET, *UNVERIFIED),  # here the URL needs a password
            ),
            (
                "a file after documents of old",
                "postgresql:///ncps?host=/run/postgresql&user=ncps&port=5432",
                UNVERIFIED,
            ),
        ):
            database = server.new_database().rpartition("/")[2]
            url = f"postgresql:///{database}?{place}&password={PASSWORD_IN_URL}"
            self.start(name, {former: url}, at_start=at_start)
            shutil.rmtree(self.directory / "configured")

    def test_a_toml_file_behind_a_proxy(self) -> None:
        """The first of its databases is away."""
        server = started("PostgreSQL").database
        url = server.new_database()
        hosts = f"127.0.0.1:{free_port()},127.0.0.1:{server.port}"
        others = {
            "/run/ncps/ncps.sock": str(self.directory / "configured" / "ncps.sock"),
            "/srv/ncps": str(self.directory / "configured" / "data"),
            "postgresql://ncps:pw@db1,db2/ncps": url.replace(f"127.0.0.1:{server.port}", hosts),
        }
        self.start("a TOML file behind a proxy", others)

    def test_the_chart_with_several_replicas(self) -> None:
        """PostgreSQL that demands TLS, a bucket, Redis."""
        backends = started("PostgreSQL")
        server = PostgreSQL()
        self.addCleanup(server.close)
        for option, source in zip(
            ("ssl_cert_file", "ssl_key_file"),
            Authority(self.directory / "tls", "authority").issue("db"),
            strict=True,
        ):
            path = server.directory / source.name
            shutil.copy(source, path)
            path.chmod(0o600)
            server.own(path)
            server.options += ["-c", f"{option}={path}"]
        server.options += ["-c", "ssl=on"]
        server.start()
        others = {
            "postgresql://ncps:pw@pg-rw:5432/ncps": server.new_database(),
            "redis-master:6379": f"127.0.0.1:{backends.redis.port}",
            "https://s3.example.com": backends.s3.endpoint,
            "eu-central-1": backends.s3.region,
            "ncps-bucket": backends.s3.new_bucket(),
            "chart-id": backends.s3.access_key,
            "chart-secret": backends.s3.secret_key,
        }
        self.start("the chart with several replicas", others, at_start=UPLOADS)
