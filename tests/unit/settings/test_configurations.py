"""Nine configurations of real installations: their values and their warnings."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ncps.settings.load import load
from ncps.settings.schema.tree import Settings
from tests.configurations import COMMUNITY, CONFIGURATIONS, NIXOS
from tests.unit.settings.around import surroundings


class ConfigurationTests(SynchronousTestCase):
    def load(self, name: str, **replaced: str) -> Settings:
        """Load a configuration and compare its warnings with the expected ones."""
        configuration = CONFIGURATIONS[name]
        if replaced:
            configuration = configuration.replaced(replaced)
        flags: dict[str, list[str]] = {}
        for word in configuration.flags:
            flag, equals, value = word.removeprefix("--").partition("=")
            flags.setdefault(flag, []).append(value if equals else "true")
        if configuration.file:
            path = Path(self.mktemp()).absolute().with_suffix(f".{configuration.suffix}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(configuration.file)
            flags["config"] = [str(path)]
        found = load(flags, surroundings=surroundings(configuration.environment))
        self.assertEqual(len(found.warnings), len(configuration.told), found.warnings)
        for warning, words in zip(found.warnings, configuration.told, strict=True):
            for word in words:
                self.assertIn(word, warning)
        return found

    def test_the_nixos_module(self) -> None:
        """These are the defaults of the module."""
        found = self.load("the NixOS module")
        self.assertEqual(found.cache.upstream.public_keys, (NIXOS,))

    def test_the_nixos_module_with_uploads(self) -> None:
        """CI copies to this cache."""
        self.load("the NixOS module with uploads")

    def test_the_nixos_module_with_postgresql_on_the_machine(self) -> None:
        """The user of the service is the database user, by the socket."""
        found = self.load("the NixOS module with PostgreSQL on the machine")
        url = found.cache.database_url
        self.assertEqual((url.host, url.user, url.database), ("", "", "ncps"))

    def test_the_nixos_module_with_a_bucket(self) -> None:
        """Its secrets are in files."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir(parents=True)
        for name in ("s3-id", "s3-secret"):
            (directory / name).write_text(f"{name}\n")
        found = self.load("the NixOS module with a bucket", **{"/run/credentials": str(directory)})
        s3 = found.cache.storage.s3
        self.assertEqual((s3.access_key_id, s3.secret_access_key), ("s3-id", "s3-secret"))

    def test_the_chart_with_several_replicas(self) -> None:
        """PostgreSQL with parameters, a bucket, Redis; chunks and staging are on."""
        found = self.load("the chart with several replicas")
        self.assertEqual(found.cache.database.connect_timeout_s, 10.0)
        self.assertEqual(found.cache.lock.backend, "redis")

    def test_a_compose_file(self) -> None:
        """It has only variables, one of them in the singular."""
        found = self.load("a compose file")
        self.assertEqual(found.cache.max_size_bytes, 50 << 30)
        self.assertEqual(found.cache.upstream.public_keys, (NIXOS, COMMUNITY))
        self.assertEqual(found.cache.database.connect_timeout_s, 10.0)

    def test_a_command_of_docker(self) -> None:
        """It has Nix's own parameters on an upstream, and former names."""
        self.load("a command of Docker")

    def test_a_file_after_documents_of_old(self) -> None:
        """They name a section `otel`, which the Go program ignores."""
        found = self.load("a file after documents of old")
        self.assertEqual(found.cache.database_url.socket, "/run/postgresql")

    def test_a_toml_file_behind_a_proxy(self) -> None:
        """Two databases, one of them a standby, and a profiler of the Go program."""
        found = self.load("a TOML file behind a proxy")
        self.assertEqual(found.server.trusted_proxies, ("unix",))
        self.assertEqual(found.cache.database_url.others, (("db2", 0),))
