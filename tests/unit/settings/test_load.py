from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path

import attrs
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ncps.nix.keys import SecretKey
from ncps.settings.load import load
from ncps.settings.problems import InvalidSettings
from ncps.settings.schema.tree import Settings
from ncps.settings.surroundings import Surroundings
from ncps.settings.table import TABLE
from ncps.settings.upstreams import NIXOS_KEY
from tests.unit.settings.around import load_with, problems_of, surroundings

OTHER_KEY = "other-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


class FileCase(SynchronousTestCase):
    """Loads configuration files written for one test."""

    def write(self, text: str, name: str = "config.yaml") -> Path:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir(parents=True)
        path = directory / name
        path.write_text(text)
        return path

    def load_file(
        self,
        text: str,
        name: str = "config.yaml",
        flags: Mapping[str, list[str]] | None = None,
        **environ: str,
    ) -> Settings:
        path = self.write(text, name)
        return load({"config": [str(path)], **(flags or {})}, surroundings=surroundings(environ))

    def problems_of_file(self, text: str, name: str = "config.yaml") -> tuple[str, ...]:
        """Return what is wrong with a file, without the part that names it."""
        path = self.write(text, name)
        with self.assertRaises(InvalidSettings) as caught:
            load({"config": [str(path)]}, surroundings=surroundings())
        for problem in caught.exception.problems:
            self.assertTrue(problem.startswith(f"file {path}: "), problem)
        return tuple(
            problem.removeprefix(f"file {path}: ") for problem in caught.exception.problems
        )


class DefaultTests(SynchronousTestCase):
    def test_without_settings_the_cache_is_local_and_works(self) -> None:
        """Nothing needs to be configured to start (D2)."""
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
        """The form of the log follows standard output."""
        for is_terminal in (True, False):
            found = load(surroundings=surroundings(is_terminal=is_terminal))
            self.assertIs(found.log.console_writer_enabled, is_terminal)

    def test_systemd_says_where_the_state_goes(self) -> None:
        """StateDirectory= of a unit is used, the first one of several."""
        self.patch(__import__("os"), "environ", {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"})
        self.assertEqual(Surroundings.of_process().state_dir, Path("/var/lib/a"))

    def test_the_environment_is_kept_out_of_reprs(self) -> None:
        """Variables with secrets do not show in tracebacks."""
        self.assertNotIn("hunter2", repr(surroundings({"A": "hunter2"})))


class PrecedenceTests(FileCase):
    def test_flag_beats_environment_beats_file_beats_default(self) -> None:
        """The nearer to the start of the program, the stronger (D1)."""
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
        """A flag at the end of a command line corrects one before it."""
        self.assertEqual(load_with({"log-level": ["warn", "error"]}).log.level, "error")

    def test_an_empty_variable_is_not_set(self) -> None:
        """Unit files and charts may leave variables empty."""
        found = load_with(LOG_LEVEL="", CACHE_HOSTNAME="")
        self.assertEqual(found.origin("log.level"), "default")
        self.assertEqual(found.cache.hostname, "box")

    def test_names_of_old_work_with_a_warning_and_lose(self) -> None:
        """Deprecated names still work until the new one is used, wherever that is."""
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
        """The Go program's `migrate` read another key for the database than its `serve`."""
        found = self.load_file("cache: {database: {url: 'sqlite:/a'}}")
        self.assertEqual(str(found.cache.database_url), "sqlite:/a")
        self.assertIn("use cache.database-url", found.warnings[0])


class FindFileTests(FileCase):
    def test_the_first_default_file_is_read(self) -> None:
        """A file in the configuration directory needs no flag; YAML comes first."""
        directory = self.write('{"log": {"level": "warn"}}', "config.json").parent
        found = load(surroundings=surroundings(config_dir=directory))
        self.assertEqual((found.log.level, found.config_file), ("warn", directory / "config.json"))
        (directory / "config.yaml").write_text("log: {level: error}")
        self.assertEqual(load(surroundings=surroundings(config_dir=directory)).log.level, "error")

    def test_a_directory_that_cannot_be_looked_into_has_no_file(self) -> None:
        """A service without a usable home directory starts with the defaults."""
        around = surroundings(config_dir=Path("/" + "x" * 300))
        self.assertIsNone(load(surroundings=around).config_file)

    def test_the_environment_can_name_the_file(self) -> None:
        """NCPS_CONFIG_FILE names a file, --config another one that wins."""
        file = self.write("log: {level: warn}")
        found = load_with(NCPS_CONFIG_FILE=str(file))
        self.assertEqual(found.log.level, "warn")
        other = self.write("log: {level: error}")
        found = load_with({"config": str(other)}, NCPS_CONFIG_FILE=str(file))
        self.assertEqual(found.log.level, "error")

    def test_a_named_file_must_be_there_and_whole(self) -> None:
        """A missing, broken or unreadable file that somebody named is an error."""
        missing = Path(self.mktemp()).absolute()
        self.assertEqual(
            problems_of({"config": str(missing)}),
            (f"file {missing}: cannot be read: No such file or directory",),
        )
        self.assertIn("Is a directory", problems_of({"config": "/"})[0])
        self.assertIn("should be a path", problems_of({"config": ""})[0])
        self.assertIn("line 2", self.problems_of_file("a: 1\n b: [\n")[0])

    def test_a_broken_default_file_is_an_error(self) -> None:
        """A file found in the configuration directory is not skipped because it is broken."""
        directory = self.write("[").parent
        with self.assertRaisesRegex(InvalidSettings, "config.yaml: line"):
            load(surroundings=surroundings(config_dir=directory))


class StrictTests(FileCase):
    def test_unknown_keys_are_errors_with_a_suggestion(self) -> None:
        """A mistyped key is found at start."""
        for text, problem in {
            "cache: {hostnme: a}": "unknown key cache.hostnme: did you mean cache.hostname?",
            "cacche: {hostname: a, max-size: 1G}": "unknown key cacche.hostname",
            "opentelemetry: {enable: false}": "did you mean opentelemetry.enabled?",
            "cache: {upstream: {url: [a]}}": "did you mean cache.upstream.urls?",
            "zzzzzz: {qqqq: 1, rrrr: 2}": "unknown key zzzzzz",
            "cache: {max_size: 1G}": "did you mean cache.max-size?",
            "config: a": "unknown key config",
            '"a\\nb": 1': "unknown key 'a\\nb'",
        }.items():
            self.assertIn(problem, self.problems_of_file(text)[0])
        self.assertEqual(len(self.problems_of_file("zzzzzz: {qqqq: 1, rrrr: 2}")), 1)

    def test_tables_and_values_are_not_confused(self) -> None:
        """A value where a table should be, or the other way round, is told apart."""
        self.assertEqual(
            self.problems_of_file("cache: {hostname: {a: b}}"),
            ("key cache.hostname: should be a host name, not a table",),
        )
        self.assertEqual(
            self.problems_of_file("cache: a"), ("key cache: should be a table of settings",)
        )

    def test_wrong_types_say_what_would_be_right(self) -> None:
        """A value of the wrong type names the key and the right type."""
        for text, problem in {
            "cache: {hostname: no}": "key cache.hostname: should be a host name, not true or false",
            "log: {level: [info]}": "key log.level: should be one of",
            "cache: {negative: {ttl: 5}}": "key cache.negative.ttl: should be a duration",
            "prometheus: {enabled: 2}": "key prometheus.enabled: '2' should be true or false",
            "prometheus: {enabled: 'yes'}": "'yes' should be true or false",
            "server: {max-connections: true}": "should be a whole number, not true or false",
            "server: {max-connections: 1.5}": "should be a whole number, not a number",
            "server: {max-connections: 0x10000000000000000}": "should be a whole number",
            "server: {addr: 8501}": "should be a list, each an address",
            "cache: {hostname: 2024-01-01}": "not a date or time",
            "cache: {upstream: {urls: [1]}}": "should be a URL",
            "cache: {upstream: {public-keys: [{url: a}]}}": "should be a public key, not a table",
            "cache: {upstream: {urls: [{url: 'http://a', prio: 1}]}}": "did you mean priority?",
            f"cache: {{hostname: {'a' * 9000}}}": "longer than 8192",
        }.items():
            self.assertIn(problem, self.problems_of_file(text)[0])

    def test_text_stands_for_lists_and_numbers_too(self) -> None:
        """Text in a file is read like a variable."""
        found = self.load_file(
            "server: {addr: ':1, :2', max-connections: '7'}\nprometheus: {enabled: '1'}"
        )
        self.assertEqual(len(found.server.addr), 2)
        self.assertEqual(found.server.max_connections, 7)
        self.assertIs(found.prometheus.enabled, True)

    def test_everything_wrong_is_told_at_once(self) -> None:
        """One start shows all mistakes, of all sources."""
        path = self.write("cache: {hostnme: a, negative: {ttl: 5 s}}\n")
        problems = problems_of(
            {"config": str(path), "log-level": "inof", "cache-hostname": "http://x"},
            SERVER_IDLE_TIMEOUT="soon",
        )
        self.assertEqual(
            [problem.removeprefix(f"file {path}: ") for problem in problems],
            [
                "unknown key cache.hostnme: did you mean cache.hostname?",
                (
                    "flag --log-level: 'inof' should be one of trace, debug, info, warn, error,"
                    " fatal, panic: did you mean info?"
                ),
                (
                    "environment SERVER_IDLE_TIMEOUT: 'soon' should be a duration such as 300ms,"
                    " 5s, 10m or 1h30m"
                ),
                (
                    "flag --cache-hostname: 'http://x' should be a bare host name, without"
                    " scheme and path"
                ),
                (
                    "key cache.negative.ttl: '5 s' should be a duration such as 300ms, 5s, 10m or"
                    " 1h30m"
                ),
            ],
        )

    def test_unknown_flags_are_errors(self) -> None:
        """A mistyped flag is told the nearest one."""
        self.assertEqual(
            problems_of({"cache-hostnme": "a"}),
            ("unknown flag --cache-hostnme: did you mean --cache-hostname?",),
        )

    def test_unknown_variables_are_nobodys_business(self) -> None:
        """The environment belongs to others too."""
        self.assertEqual(problems_of(CACHE_HOSTNME="a", NCPS_X="y"), ())

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(sorted({part for row in TABLE for part in row.key.split(".")}))
                    | st.text(max_size=5),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=12,
        )
    )
    @hypothesis_settings(max_examples=60, deadline=None)
    def test_any_file_is_read_or_refused(self, tree: object) -> None:
        """No content of a file ends in anything but settings or a list of problems."""
        path = Path(self.mktemp())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(tree))
        try:
            load({"config": [str(path)]}, surroundings=surroundings())
        except InvalidSettings as error:
            self.assertTrue(all(problem.isprintable() for problem in error.problems))

    @given(st.dictionaries(st.sampled_from(TABLE), st.text()))
    @hypothesis_settings(max_examples=60, deadline=None)
    def test_any_text_in_variables_is_read_or_refused(self, texts: dict[object, str]) -> None:
        """No variable ends in anything but settings or a list of problems."""
        environ = {getattr(row, "environment", ""): text for row, text in texts.items()}
        environ.pop("NCPS_CONFIG_FILE", None)
        try:
            load(surroundings=surroundings(environ))
        except InvalidSettings as error:
            self.assertTrue(error.problems)


class SecretTests(FileCase):
    def test_secrets_may_stand_in_files(self) -> None:
        """A secret need not stand in a process list, and a final line end does not count."""
        path = self.write("sqlite:/a/b\n", "url")
        flag = load_with({"cache-database-url-file": str(path)})
        self.assertEqual(str(flag.cache.database_url), "sqlite:/a/b")
        self.assertEqual(flag.origin("cache.database-url"), "flag --cache-database-url-file")
        variable = load_with(CACHE_DATABASE_URL_FILE=str(path))
        self.assertEqual(variable.cache.database_url, flag.cache.database_url)
        file = self.load_file(f"cache: {{database-url-file: '{path}'}}")
        self.assertEqual(file.cache.database_url, flag.cache.database_url)

    def test_a_file_with_a_secret_must_be_readable_text(self) -> None:
        """What is wrong with the file is told without what is in it."""
        path = self.write("hunter2")
        (problem,) = problems_of(CACHE_DATABASE_URL_FILE=str(path / "x"))
        self.assertIn(f"a file under {path} cannot be read: Not a directory", problem)
        self.assertNotIn("hunter2", problems_of(CACHE_DATABASE_URL_FILE=str(path))[0])
        path.write_bytes(b"\xff")
        self.assertIn("not UTF-8", problems_of(CACHE_DATABASE_URL_FILE=str(path))[0])
        path.write_bytes(b"x" * 70000)
        self.assertIn("larger than 64 KiB", problems_of(CACHE_DATABASE_URL_FILE=str(path))[0])
        self.assertIn(
            "should be a path, not a number",
            self.problems_of_file("cache: {database-url-file: 1}")[0],
        )

    def test_a_secret_in_place_of_its_file_is_not_shown(self) -> None:
        """Of a name that is of no file only the directory is shown that there is."""
        for secret in ("hunter2", "/hunter2/+w", "a" * 5000):
            (problem,) = problems_of(CACHE_REDIS_PASSWORD_FILE=secret)
            self.assertNotIn(secret[:7], problem)
            self.assertIn("should name a file that holds the value", problem)
        directory = Path(self.mktemp()).absolute()
        directory.mkdir(parents=True)
        (problem,) = problems_of(CACHE_REDIS_PASSWORD_FILE=str(directory / "missing"))
        self.assertIn(f"a file under {directory} cannot be read: No such file", problem)

    def test_secrets_in_place_of_other_values_are_not_shown(self) -> None:
        """A key among public keys, a password in a URL's parameters or as a bucket's name."""
        key = SecretKey.generate("mine-1").export()
        token = "xw3Kd9_" * 6
        problems = problems_of(
            {
                "cache-upstream-public-key": [key],
                "cache-upstream-url": "https://a?token=hunter2&hunter2",
                "cache-storage-s3-bucket": "wJalr/hunter2",
                "cache-storage-s3-region": "eu/hunter2",
                "cache-storage-s3-endpoint": "https://s3?key=hunter2",
                "cluster-advertise-url": "http://a/?hunter2",
                "cache-trusted-upload-key": key.rstrip("="),
                "cache-hostname": "a/" + token,
                "cache-secret-key-path": key,
                "cache-redis-addrs": "default:hunter2@host:port",
                "cache-lock-backend": "redis://redis?password=hunter2",
            }
        )
        self.assertEqual(len(problems), 11, problems)
        for problem in problems:
            for secret in (key[7:20], "hunter2", token[:9]):
                self.assertNotIn(secret, problem)
        told = "\n".join(problems)
        self.assertEqual(told.count("'mine-1:***' is a secret key"), 2)
        self.assertIn("cache-secret-key-path: 'mine-1:***' should be the name of a file", told)
        self.assertIn("'https://a?***' has an unknown parameter 'token'", told)
        self.assertIn("'a/***' should be a bare host name", told)

    def test_what_is_no_secret_is_shown_as_it_is(self) -> None:
        """A schedule has an @, and nothing in front of it."""
        (problem,) = problems_of({"cache-max-size": "1G", "cache-lru-schedule": "@every 5"})
        self.assertIn("'@every 5' should be", problem)

    def test_value_and_file_together_are_an_error(self) -> None:
        """Two answers to one question are refused, but a stronger source wins."""
        path = self.write("sqlite:/b")
        problems = problems_of(CACHE_DATABASE_URL="sqlite:/a", CACHE_DATABASE_URL_FILE=str(path))
        self.assertIn("either this or the value itself", problems[0])
        found = load_with({"cache-database-url": "sqlite:/a"}, CACHE_DATABASE_URL_FILE=str(path))
        self.assertEqual(str(found.cache.database_url), "sqlite:/a")

    def test_wrong_secrets_are_never_repeated(self) -> None:
        """No message holds a password, a token or the credentials of a URL."""
        for problem in problems_of(
            {
                "cache-database-url": "hunter2",
                "cache-get-token": "hunter2",
                "cache-redis-password": "hunter2",
                "cache-storage-s3-secret-access-key": "hunter2",
                "cache-upstream-url": ["http://me:hunter2@a:b", "me:hunter2@host"],
                "cache-hostname": "me:hunter2@host",
            }
        ):
            self.assertNotIn("hunter2", problem)
        found = load_with({"cache-upstream-url": "http://me:hunter2@a"})
        self.assertEqual(found.cache.upstream.upstreams[0].password, "hunter2")
        self.assertNotIn("hunter2", repr(found) + str(attrs.asdict(found)["warnings"]))


class WithoutEffectTests(FileCase):
    def test_what_cannot_be_done_yet_is_an_error(self) -> None:
        """A setting whose absence would be unsafe stops the start."""
        self.assertEqual(
            problems_of({"cache-get-token": "x"}),
            ("flag --cache-get-token: not supported by this version of ncps: leave it out",),
        )
        self.assertEqual(len(problems_of({"cache-get-token-file": "/nonexistent"})), 1)
        self.assertEqual(len(problems_of({"cache-allow-put-verb": "maybe"})), 1)

    def test_their_defaults_are_welcome(self) -> None:
        """An existing configuration that switches such a thing off works."""
        found = load_with(
            {
                "cache-max-size": "",
                "cache-allow-put-verb": "false",
                "cache-lock-backend": "local",
                "cache-redis-addrs": "",
                "cache-redis-db": "0",
                "analytics-reporting-enabled": "0",
                "cache-cdc-min": "16384",
                "cache-lock-lru-ttl": "30m",
            }
        )
        self.assertEqual(found.warnings, ())

    def test_what_cannot_hurt_earns_one_warning(self) -> None:
        """Settings of the Go program without meaning here are accepted."""
        found = load_with(
            {"analytics-reporting-enabled": "true", "cache-cdc-background-workers": "3"},
            XZ_BINARY_PATH="/bin/xz",
        )
        self.assertEqual(
            found.warnings,
            (
                (
                    "flag --analytics-reporting-enabled has no effect: Nothing is ever reported to"
                    " anybody."
                ),
                (
                    "environment XZ_BINARY_PATH has no effect: Nothing here runs the xz program: a"
                    " library decompresses."
                ),
                (
                    "flag --cache-cdc-background-workers has no effect: Tuning of content-defined"
                    " chunking, which is off."
                ),
            ),
        )
        self.assertIn("should be a duration", problems_of(CACHE_LOCK_LRU_TTL="5")[0])

    def test_uploads_are_refused_and_not_the_start(self) -> None:
        """Who has switched them on is told that there are none."""
        found = load_with({"cache-allow-put-verb": "true"}, CACHE_ALLOW_DELETE_VERB="true")
        self.assertEqual(
            found.warnings,
            (
                (
                    "flag --cache-allow-put-verb has no effect: There are no uploads yet: every PUT"
                    " is refused."
                ),
                (
                    "environment CACHE_ALLOW_DELETE_VERB has no effect: There are no deletions by"
                    " clients yet: every DELETE is refused."
                ),
            ),
        )

    def test_a_table_that_only_documents_had_is_passed_over(self) -> None:
        """Whatever is in it: the Go program has never read it."""
        for text in ("otel: {enabled: false, endpoint: x}", "otel: yes", "otel: [{a: 1}]"):
            (warning,) = self.load_file(text).warnings
            self.assertRegex(warning, r"^file .*: key otel has no effect: .* called opentelemetry$")
        self.assertIn("unknown key otell", self.problems_of_file("otell: {enabled: true}")[0])

    def test_names_of_elsewhere_are_answered_with_ours(self) -> None:
        """Where no letter is alike, too."""
        for flag, hint in (
            ("server-listen", "server-addr"),
            ("cache-storage-s3-use-ssl", "cache-storage-s3-endpoint"),
        ):
            (problem,) = problems_of({flag: "true"})
            self.assertIn(f"unknown flag --{flag}: ", problem)
            self.assertIn(hint, problem)
            (problem,) = self.problems_of_file(f"{flag.replace('-', ': {', 1)}: true}}")
            self.assertIn(hint, problem)
            (warning,) = load_with({}, **{flag.upper().replace("-", "_"): "true"}).warnings
            self.assertIn(hint, warning)


class VariableTests(SynchronousTestCase):
    """Variables that are none of ours, and nearly are."""

    def test_the_singular_of_a_list_is_understood(self) -> None:
        """As its flag has it, with a warning; the right one wins."""
        found = load_with({}, CACHE_UPSTREAM_URL="http://a", CACHE_UPSTREAM_PUBLIC_KEY=OTHER_KEY)
        self.assertEqual(found.cache.upstream.urls, ("http://a",))
        self.assertEqual(found.cache.upstream.public_keys, (OTHER_KEY,))
        self.assertEqual(
            found.warnings,
            (
                "environment CACHE_UPSTREAM_URL is called otherwise: use CACHE_UPSTREAM_URLS",
                (
                    "environment CACHE_UPSTREAM_PUBLIC_KEY is called otherwise: use"
                    " CACHE_UPSTREAM_PUBLIC_KEYS"
                ),
            ),
        )
        both = load_with({}, CACHE_UPSTREAM_URL="http://a", CACHE_UPSTREAM_URLS="http://b")
        self.assertEqual(both.cache.upstream.urls, ("http://b",))
        self.assertIn("is called otherwise and not used", both.warnings[0])

    def test_a_slip_of_the_pen_is_told_with_what_was_meant(self) -> None:
        """Without its value, which may be a secret."""
        for name, meant in (
            ("CACHE_HOSTNAM", "CACHE_HOSTNAME"),
            ("CACHE_DATABASE_URL_FILES", "CACHE_DATABASE_URL_FILE"),
            ("NCPS_CACHE_MAX_SIZE", "CACHE_MAX_SIZE"),
            ("SERVER_ADDRS", "SERVER_ADDR"),
            ("SERVER_TRUSTED_PROXY", "SERVER_TRUSTED_PROXIES"),
            ("CACHE_REDIS_ADDR", "CACHE_REDIS_ADDRS"),
            ("UPSTREAM_CACHE", "UPSTREAM_CACHES"),
        ):
            found = load_with({}, **{name: "hunter2"})
            self.assertEqual(
                found.warnings, (f"environment {name} is not a setting: did you mean {meant}?",)
            )
        (warning,) = load_with({}, CACHE_HOSTNAME_FILE="/x").warnings
        self.assertIn("only secrets are read from files", warning)

    def test_variables_of_others_are_their_own(self) -> None:
        """What only begins like ours is nobody's mistake."""
        others = ("CACHE_DIR", "CACHE_URL", "SERVER_NAME", "SERVER_PORT", "LOG_FILE", "OTEL_X")
        found = load_with({}, **dict.fromkeys((*others, "NCPS_WORKER", "XCACHE_HOSTNAM"), "x"))
        self.assertEqual(found.warnings, ())
        self.assertEqual(load_with({}, CACHE_HOSTNAM="").warnings, ())

    def test_what_is_wrong_is_told_with_what_was_misspelt(self) -> None:
        """The one may be the reason for the other."""
        with self.assertRaises(InvalidSettings) as caught:
            load_with({}, CACHE_MAX_SIZ="1G", CACHE_LRU_SCHEDULE="@daily")
        self.assertIn("did you mean CACHE_MAX_SIZE?", caught.exception.warnings[0])


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
        """Each upstream knows its timeouts, its own or those of all."""
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
        """A cache of nothing is a mistake."""
        self.assertEqual(
            problems_of({"cache-upstream-url": ""}),
            ("cache-upstream-url: at least one upstream is needed",),
        )

    def test_the_key_of_nixos_belongs_to_nixos(self) -> None:
        """The well-known key is trusted where its cache is an upstream, and only there."""
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
        """Whoever closes connections before Nix does is told so."""
        self.assertIn("90s", load_with({"server-idle-timeout": "60s"}).warnings[0])
