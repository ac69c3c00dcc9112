"""Wrong settings stop the start, and no message shows a secret."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ncps.nix.keys import SecretKey
from ncps.settings.load import load
from ncps.settings.problems import InvalidSettings
from ncps.settings.table import TABLE
from tests.unit.settings.around import FileCase, load_with, problems_of, surroundings


class StrictTests(FileCase):
    def test_unknown_keys_are_errors_with_a_suggestion(self) -> None:
        """A mistyped key is an error at the start."""
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
        """A value in place of a table, or a table in place of a value, is an error."""
        self.assertEqual(
            self.problems_of_file("cache: {hostname: {a: b}}"),
            ("key cache.hostname: should be a host name, not a table",),
        )
        self.assertEqual(
            self.problems_of_file("cache: a"), ("key cache: should be a table of settings",)
        )

    def test_wrong_types_say_what_would_be_right(self) -> None:
        """The error names the key and the right type."""
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
        """Text in a file is read like text in a variable."""
        found = self.load_file(
            "server: {addr: ':1, :2', max-connections: '7'}\nprometheus: {enabled: '1'}"
        )
        self.assertEqual(len(found.server.addr), 2)
        self.assertEqual(found.server.max_connections, 7)
        self.assertIs(found.prometheus.enabled, True)

    def test_everything_wrong_is_told_at_once(self) -> None:
        """One start reports all mistakes of all sources."""
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
        """The error for a mistyped flag suggests the nearest one."""
        self.assertEqual(
            problems_of({"cache-hostnme": "a"}),
            ("unknown flag --cache-hostnme: did you mean --cache-hostname?",),
        )

    def test_unknown_variables_are_ignored(self) -> None:
        """Variables of other programs are no errors."""
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
        """Every content of a file gives settings or a list of problems."""
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
        """Every variable gives settings or a list of problems."""
        environ = {getattr(row, "environment", ""): text for row, text in texts.items()}
        environ.pop("NCPS_CONFIG_FILE", None)
        try:
            load(surroundings=surroundings(environ))
        except InvalidSettings as error:
            self.assertTrue(error.problems)


class SecretTests(FileCase):
    def test_secrets_may_stand_in_files(self) -> None:
        """A secret need not be in a process list; a line end at its end is removed."""
        path = self.write("sqlite:/a/b\n", "url")
        flag = load_with({"cache-database-url-file": str(path)})
        self.assertEqual(str(flag.cache.database_url), "sqlite:/a/b")
        self.assertEqual(flag.origin("cache.database-url"), "flag --cache-database-url-file")
        variable = load_with(CACHE_DATABASE_URL_FILE=str(path))
        self.assertEqual(variable.cache.database_url, flag.cache.database_url)
        file = self.load_file(f"cache: {{database-url-file: '{path}'}}")
        self.assertEqual(file.cache.database_url, flag.cache.database_url)

    def test_a_file_with_a_secret_must_be_readable_text(self) -> None:
        """Messages about the file do not show its contents."""
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
        """Of a path without a file, only the existing directory is shown."""
        for secret in ("hunter2", "/hunter2/+w", "a" * 5000):
            (problem,) = problems_of(CACHE_REDIS_PASSWORD_FILE=secret)
            self.assertNotIn(secret[:7], problem)
            self.assertIn("should name a file that holds the value", problem)
        directory = Path(self.mktemp()).absolute()
        directory.mkdir(parents=True)
        (problem,) = problems_of(CACHE_REDIS_PASSWORD_FILE=str(directory / "missing"))
        self.assertIn(f"a file under {directory} cannot be read: No such file", problem)

    def test_secrets_in_place_of_other_values_are_not_shown(self) -> None:
        """A key as a public key, a password in a URL or as a bucket's name."""
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

    def test_public_values_are_shown_unchanged(self) -> None:
        """A schedule begins with an @, so no user is before it."""
        (problem,) = problems_of({"cache-max-size": "1G", "cache-lru-schedule": "@every 5"})
        self.assertIn("'@every 5' should be", problem)

    def test_value_and_file_together_are_an_error(self) -> None:
        """Within one source both are refused; a stronger source wins."""
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
