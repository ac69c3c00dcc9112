"""The sources of settings, their order, and the settings of upstreams."""

from __future__ import annotations

import itertools
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ncps.settings.load import load
from ncps.settings.problems import InvalidSettings
from ncps.settings.rules.upstream import NIXOS_KEY
from ncps.settings.surroundings import Surroundings
from tests.unit.settings.around import OTHER_KEY, FileCase, load_with, problems_of, surroundings


class DefaultTests(SynchronousTestCase):
    def test_without_settings_the_cache_is_local_and_works(self) -> None:
        """A start needs no configuration (D2)."""
        found = load_with()
        self.assertEqual(found.server.addr, ("tcp:8501:interface=127.0.0.1",))
        self.assertEqual(found.cache.hostname, "box")
        self.assertEqual(found.cache.storage.local, Path("/state/storage"))
        self.assertEqual(str(found.cache.database_url), "sqlite:/state/db/db.sqlite")
        self.assertIsNone(found.cache.temp_path)
        self.assertIsNone(found.cache.secret_key_path)
        self.assertEqual(found.cache.netrc_file, Path("/home/me/.netrc"))
        self.assertEqual(found.cache.upstream.urls, ("https://cache.nixos.org",))
        self.assertEqual(found.cache.upstream.public_keys, (NIXOS_KEY,))
        self.assertEqual(found.cache.upstream.dialer_timeout_s, 3.0)
        self.assertEqual(found.cache.upstream.response_header_timeout_s, 3.0)
        self.assertEqual(found.cache.nix_cache_info.priority, 10)
        self.assertIs(found.cache.nix_cache_info.want_mass_query, True)
        self.assertEqual(found.cache.narinfo_memory_size_bytes, 64 << 20)
        self.assertEqual(found.cache.negative.ttl_s, 10.0)
        self.assertEqual(found.server.idle_timeout_s, 120.0)
        self.assertEqual(found.log.level, "info")
        self.assertEqual(found.warnings, ())
        self.assertIsNone(found.config_file)
        self.assertEqual(set(found.origins.values()), {"default"})

    def test_people_at_a_terminal_get_lines_for_people(self) -> None:
        """The form of the log depends on standard output."""
        for is_terminal in (True, False):
            found = load(surroundings=surroundings(is_terminal=is_terminal))
            self.assertIs(found.log.console_writer_enabled, is_terminal)

    def test_systemd_says_where_the_state_goes(self) -> None:
        """The first directory of StateDirectory= in a unit is used."""
        self.patch(__import__("os"), "environ", {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"})
        self.assertEqual(Surroundings.of_process().state_dir, Path("/var/lib/a"))

    def test_the_environment_is_kept_out_of_reprs(self) -> None:
        """Variables, which may be secret, are not in tracebacks."""
        self.assertNotIn("hunter2", repr(surroundings({"A": "hunter2"})))


class PrecedenceTests(FileCase):
    def test_flag_beats_environment_beats_file_beats_default(self) -> None:
        """The sources have this order (D1)."""
        order = ("flag", "environment", "file")
        for size in range(4):
            for given_in in itertools.combinations(order, size):
                path = self.write("log: {level: error}\n" if "file" in given_in else "")
                flags = {"config": [str(path)]}
                if "flag" in given_in:
                    flags["log-level"] = ["warn"]
                environ = {"LOG_LEVEL": "debug"} if "environment" in given_in else {}
                found = load(flags, surroundings=surroundings(environ))
                winner = next((source for source in order if source in given_in), "default")
                expected = {
                    "flag": ("warn", "flag --log-level"),
                    "environment": ("debug", "environment LOG_LEVEL"),
                    "file": ("error", f"file {path}"),
                    "default": ("info", "default"),
                }[winner]
                self.assertEqual((found.log.level, found.origin("log.level")), expected)

    def test_the_last_of_repeated_flags_counts(self) -> None:
        """A later flag in a command line overrides an earlier one."""
        self.assertEqual(load_with({"log-level": ["warn", "error"]}).log.level, "error")

    def test_an_empty_variable_is_not_set(self) -> None:
        """Unit files and charts may leave variables empty."""
        found = load_with(LOG_LEVEL="", CACHE_HOSTNAME="")
        self.assertEqual(found.origin("log.level"), "default")
        self.assertEqual(found.cache.hostname, "box")

    def test_names_of_old_work_with_a_warning_and_lose(self) -> None:
        """Former names work unless any source has the present name."""
        found = load_with({"cache-data-path": "/old"})
        self.assertEqual(found.cache.storage.local, Path("/old"))
        self.assertEqual(
            found.warnings, ("flag --cache-data-path is deprecated: use --cache-storage-local",)
        )
        found = load_with({"cache-data-path": "/old"}, CACHE_STORAGE_LOCAL="/new")
        self.assertEqual(found.cache.storage.local, Path("/new"))
        self.assertEqual(found.origin("cache.storage.local"), "environment CACHE_STORAGE_LOCAL")
        self.assertIn("deprecated and not used", found.warnings[0])
        found = load_with(
            UPSTREAM_CACHES="http://a,http://b",
            UPSTREAM_PUBLIC_KEYS=OTHER_KEY,
            UPSTREAM_DIALER_TIMEOUT="1s",
            UPSTREAM_RESPONSE_HEADER_TIMEOUT="2s",
        )
        self.assertEqual(found.cache.upstream.urls, ("http://a", "http://b"))
        self.assertEqual(found.cache.upstream.public_keys, (OTHER_KEY,))
        self.assertEqual(found.cache.upstream.dialer_timeout_s, 1.0)
        self.assertEqual(found.cache.upstream.response_header_timeout_s, 2.0)
        self.assertEqual(len(found.warnings), 4)

    def test_the_odd_key_of_migrate_is_understood(self) -> None:
        """The Go program's `migrate` has another key for the database."""
        found = self.load_file("cache: {database: {url: 'sqlite:/a'}}")
        self.assertEqual(str(found.cache.database_url), "sqlite:/a")
        self.assertIn("use cache.database-url", found.warnings[0])


class SecretTests(FileCase):
    def test_secrets_in_the_command_line_are_warned_of(self) -> None:
        """The warning says what is right, without the secret; other sources cause none."""
        (line,) = load_with({"cache-get-token": "hunter2"}).warnings
        self.assertIn("--cache-get-token-file", line)
        self.assertIn("CACHE_GET_TOKEN", line)
        self.assertNotIn("hunter2", line)
        self.assertEqual(load_with(CACHE_GET_TOKEN="hunter2").warnings, ())
        self.assertEqual(self.load_file("cache: {get-token: hunter2}").warnings, ())
        path = str(self.write("hunter2", "token"))
        self.assertEqual(load_with({"cache-get-token-file": path}).warnings, ())

    def test_an_address_without_a_password_is_no_secret(self) -> None:
        """The URL of a database may have no password."""
        self.assertEqual(load_with({"cache-database-url": "sqlite:/a"}).warnings, ())
        url = "postgresql://ncps:hunter2@box/ncps"
        (line,) = load_with({"cache-database-url": url}).warnings
        self.assertIn("--cache-database-url-file", line)


class FindFileTests(FileCase):
    def test_the_first_default_file_is_read(self) -> None:
        """A file in the configuration directory needs no flag; YAML comes first."""
        directory = self.write('{"log": {"level": "warn"}}', "config.json").parent
        found = load(surroundings=surroundings(config_dir=directory))
        self.assertEqual((found.log.level, found.config_file), ("warn", directory / "config.json"))
        (directory / "config.yaml").write_text("log: {level: error}")
        self.assertEqual(load(surroundings=surroundings(config_dir=directory)).log.level, "error")

    def test_a_directory_that_cannot_be_looked_into_has_no_file(self) -> None:
        """Without a readable home directory, the defaults are used."""
        around = surroundings(config_dir=Path("/" + "x" * 300))
        self.assertIsNone(load(surroundings=around).config_file)

    def test_the_environment_can_name_the_file(self) -> None:
        """NCPS_CONFIG_FILE names a file; --config overrides it."""
        file = self.write("log: {level: warn}")
        found = load_with(NCPS_CONFIG_FILE=str(file))
        self.assertEqual(found.log.level, "warn")
        other = self.write("log: {level: error}")
        found = load_with({"config": str(other)}, NCPS_CONFIG_FILE=str(file))
        self.assertEqual(found.log.level, "error")

    def test_a_named_file_must_be_there_and_whole(self) -> None:
        """A named file that is missing, broken or unreadable is an error."""
        missing = Path(self.mktemp()).absolute()
        self.assertEqual(
            problems_of({"config": str(missing)}),
            (f"file {missing}: cannot be read: No such file or directory",),
        )
        self.assertIn("Is a directory", problems_of({"config": "/"})[0])
        self.assertIn("should be a path", problems_of({"config": ""})[0])
        self.assertIn("line 2", self.problems_of_file("a: 1\n b: [\n")[0])

    def test_a_broken_default_file_is_an_error(self) -> None:
        """A broken file in the configuration directory is not skipped."""
        directory = self.write("[").parent
        with self.assertRaisesRegex(InvalidSettings, "config.yaml: line"):
            load(surroundings=surroundings(config_dir=directory))


class UpstreamTests(FileCase):
    def test_lists_are_separated_by_commas(self) -> None:
        """Several upstreams can be given in each source."""
        expected = ("http://a", "http://b")
        flags = load_with({"cache-upstream-url": ["http://a", "http://b"]})
        self.assertEqual(flags.cache.upstream.urls, expected)
        joined = load_with({"cache-upstream-url": "http://a, http://b,"})
        self.assertEqual(joined.cache.upstream.urls, expected)
        variable = load_with(CACHE_UPSTREAM_URLS="http://a,,http://b")
        self.assertEqual(variable.cache.upstream.urls, expected)
        file = self.load_file("cache: {upstream: {urls: ['http://a', '', {url: 'http://b'}]}}")
        self.assertEqual(file.cache.upstream.urls, expected)

    def test_timeouts_of_all_hold_where_an_upstream_has_none(self) -> None:
        """Each upstream has its own timeouts or the common ones."""
        found = load_with(
            {"cache-upstream-url": ["http://a?dialer-timeout=1s", "http://b?idle-timeout=2s"]},
            CACHE_UPSTREAM_DIALER_TIMEOUT="5s",
        )
        first, second = found.cache.upstream.upstreams
        self.assertEqual(
            (first.dialer_timeout_s, first.response_header_timeout_s, first.idle_timeout_s),
            (1.0, 3.0, 20.0),
        )
        self.assertEqual((second.dialer_timeout_s, second.idle_timeout_s), (5.0, 2.0))

    def test_duplicates_are_dropped_with_a_warning(self) -> None:
        """An upstream given twice is asked once."""
        found = load_with({"cache-upstream-url": ["http://u:p@a?priority=1", "http://A:80/"]})
        self.assertEqual(found.cache.upstream.urls, ("http://a",))
        self.assertEqual(found.cache.upstream.upstreams[0].priority, 1)
        self.assertEqual(
            found.warnings, ("upstream http://a is given twice: the first one counts",)
        )

    def test_at_least_one_is_needed(self) -> None:
        """A cache without upstreams is an error."""
        self.assertEqual(
            problems_of({"cache-upstream-url": ""}),
            ("cache-upstream-url: at least one upstream is needed",),
        )

    def test_the_key_of_nixos_belongs_to_nixos(self) -> None:
        """The well-known key is trusted only if cache.nixos.org is an upstream."""
        for url, given_keys, keys in (
            ("http://a", [], ()),
            ("http://a", [OTHER_KEY], (OTHER_KEY,)),
            ("https://cache.nixos.org/?priority=1", [], (NIXOS_KEY,)),
            ("https://cache.nixos.org", [OTHER_KEY], (OTHER_KEY, NIXOS_KEY)),
            ("https://cache.nixos.org", [NIXOS_KEY, NIXOS_KEY], (NIXOS_KEY,)),
            (
                "https://cache.nixos.org",
                ["cache.nixos.org-1" + OTHER_KEY[7:]],
                ("cache.nixos.org-1" + OTHER_KEY[7:],),
            ),
        ):
            found = load_with({"cache-upstream-url": url, "cache-upstream-public-key": given_keys})
            self.assertEqual(found.cache.upstream.public_keys, keys, (url, given_keys))

    def test_a_short_idle_timeout_earns_a_warning(self) -> None:
        """A server that closes connections before Nix does causes a warning."""
        self.assertIn("90s", load_with({"server-idle-timeout": "60s"}).warnings[0])
