"""URLs of databases."""

from __future__ import annotations

import contextlib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ncps.settings.kinds.database_url import DATABASE_URL, DatabaseURL, parse_database_url
from tests.unit.settings.around import load_with

SECRET = "p@ss/w:rd#%"
IN_URL = "p%40ss%2Fw%3Ard%23%25"


def shown(url: DatabaseURL) -> str:
    assert DATABASE_URL.show is not None
    return DATABASE_URL.show(url)


class FileTests(SynchronousTestCase):
    def test_sqlite_in_all_spellings(self) -> None:
        """Existing URLs of SQLite work."""
        for text in ("sqlite:/a/b.db", "sqlite:///a/b.db", "sqlite3:/a/b.db", "SQLite:/a/b.db"):
            url = parse_database_url(text)
            self.assertEqual((url.dialect, url.path), ("sqlite", Path("/a/b.db")))
            self.assertTrue(url.is_file)
            self.assertEqual(shown(url), "sqlite:/a/b.db")
        self.assertEqual(parse_database_url("sqlite:b.db").path, Path.cwd() / "b.db")

    def test_nonsense_is_refused(self) -> None:
        """A URL of SQLite must name a file, and every URL a known database."""
        for text in (
            "",
            "sqlite",
            "sqlite:",
            "sqlite:///",
            "sqlite://host/a",
            "sqlite::memory:",
            "sqlite:/a?mode=ro",
            "sqlite+unix:/a",
            "/a/b",
            "oracle:x",
            "postgresql",
        ):
            with self.assertRaises(ValueError, msg=text):
                parse_database_url(text)

    def test_a_slip_of_the_pen_is_seen(self) -> None:
        """For a mistyped name, the error suggests the right one."""
        with self.assertRaisesRegex(ValueError, "did you mean postgresql:"):
            parse_database_url("postgresq://u@h/d")


class ServerTests(SynchronousTestCase):
    def test_everything_in_a_url(self) -> None:
        """User, password, host, port and database are separated and decoded."""
        for scheme, dialect in (
            ("postgresql", "postgresql"),
            ("postgres", "postgresql"),
            ("mysql", "mysql"),
            ("mariadb", "mysql"),
            ("MySQL+tcp", "mysql"),
        ):
            url = parse_database_url(f"{scheme}://n%40me:{IN_URL}@db.example.org:7000/d%2Db")
            self.assertEqual(
                url,
                DatabaseURL(
                    dialect=dialect,
                    host="db.example.org",
                    port=7000,
                    user="n@me",
                    password=SECRET,
                    database="d-b",
                ),
            )
            self.assertFalse(url.is_file)

    def test_omitted_parts_have_usual_values(self) -> None:
        """Defaults are MySQL's port and this machine; libpq has its own defaults."""
        for text, host, port in (
            ("postgres:///d", "", 0),
            ("mysql:///d", "localhost", 3306),
            ("mysql://u@h/d", "h", 3306),
            ("postgres://u@[::1]/d", "::1", 0),
        ):
            url = parse_database_url(text)
            self.assertEqual((url.host, url.port, url.password), (host, port, None))
            self.assertEqual(parse_database_url(shown(url)), url)

    def test_sockets_in_all_spellings(self) -> None:
        """Sockets are paths after schemes of their own, or parameters."""
        for text, socket in (
            ("postgres+unix:///run/postgresql/d", "/run/postgresql"),
            ("postgres+unix://u@/run/postgresql/d", "/run/postgresql"),
            ("postgres+unix:/run/postgresql/d", "/run/postgresql"),
            ("postgresql:///d?host=/run/postgresql", "/run/postgresql"),
            ("mysql+unix:///run/mysqld/mysqld.sock/d", "/run/mysqld/mysqld.sock"),
            ("mysql://u:p@/d?socket=/run/mysqld/mysqld.sock", "/run/mysqld/mysqld.sock"),
            ("mysql://u@/d?unix_socket=%2Frun%2Fmysqld%2Fmysqld.sock", "/run/mysqld/mysqld.sock"),
        ):
            url = parse_database_url(text)
            self.assertEqual((url.host, url.socket, url.database), ("", socket, "d"), text)
            self.assertEqual(parse_database_url(shown(url)).socket, socket)
        url = parse_database_url("postgresql://u@:5433/d?host=/run/postgresql")
        self.assertEqual((url.socket, url.port), ("/run/postgresql", 5433))
        self.assertEqual(parse_database_url(shown(url)), url)

    def test_options_of_tls(self) -> None:
        """The names are those of the engines, in any case, and those of the Go program."""
        for text, options in (
            (
                "postgres://u@h/d?sslmode=verify-full&sslrootcert=/etc/ca.pem",
                {"sslmode": "verify-full", "sslrootcert": "/etc/ca.pem"},
            ),
            (
                "mysql://u@h/d?ssl_mode=verify_ca&ssl-ca=/etc/ca.pem",
                {"ssl-mode": "VERIFY_CA", "ssl-ca": "/etc/ca.pem"},
            ),
            ("mysql://u@h/d?tls=true&parseTime=true&loc=UTC", {"ssl-mode": "VERIFY_IDENTITY"}),
            ("mysql://u@h/d?tls=skip-verify", {"ssl-mode": "REQUIRED"}),
            ("postgres://u@h/d?default_query_exec_mode=exec", {"prepare": "off"}),
            ("postgres://u@h/d?default_query_exec_mode=cache_statement", {}),
        ):
            url = parse_database_url(text)
            self.assertEqual(dict(url.options), options, text)
            self.assertEqual(parse_database_url(shown(url)), url)

    def test_parameters_of_libpq(self) -> None:
        """The query may name user and place; the driver gets the parameters that it knows."""
        url = parse_database_url(
            "postgresql:///d?host=db.example&user=me&port=7000&password=hunter2&passfile=/p"
            "&require_auth=scram-sha-256&options=-c%20jit%3Doff&sslpassword=hunter2"
        )
        self.assertEqual((url.host, url.port, url.user), ("db.example", 7000, "me"))
        self.assertEqual(url.password, "hunter2")
        self.assertEqual(
            dict(url.options),
            {"passfile": "/p", "require_auth": "scram-sha-256", "options": "-c jit=off"},
        )
        self.assertEqual(dict(url.hidden), {"sslpassword": "hunter2"})
        self.assertNotIn("hunter2", repr(url) + shown(url))
        socket = parse_database_url("postgresql:///ncps?host=/run/postgresql&user=ncps&port=5433")
        self.assertEqual((socket.socket, socket.port), ("/run/postgresql", 5433))
        self.assertEqual(parse_database_url("postgresql://u@h?dbname=d").database, "d")
        self.assertEqual(parse_database_url("postgresql://%2Frun%2Fpg/d").socket, "/run/pg")

    def test_several_hosts_of_postgresql(self) -> None:
        """Each host has a port, or all hosts share one."""
        for text, places in (
            ("postgresql://u@h1:1,h2,[::1]:3/d", (("h1", 1), ("h2", 0), ("::1", 3))),
            ("postgresql://u@h1,h2/d?port=7", (("h1", 7), ("h2", 7))),
            ("postgresql:///d?host=h1,h2&port=7,8", (("h1", 7), ("h2", 8))),
        ):
            url = parse_database_url(text)
            self.assertEqual(url.places, places)
            self.assertEqual(parse_database_url(shown(url)), url)

    def test_parameters_that_override_ours_are_noted(self) -> None:
        """A note also names a connect timeout that a setting overrides."""
        url = parse_database_url(
            "postgresql://u@h/d?statement_timeout=1&timezone=Europe/Berlin&connect_timeout=10"
        )
        self.assertEqual((len(url.notes), dict(url.options)), (2, {}))
        self.assertEqual(url.connect_timeout_s, 10.0)
        url = parse_database_url("mysql://u@h/d?timeout=1m30s&readTimeout=5s&rejectReadOnly=true")
        self.assertEqual((len(url.notes), dict(url.options)), (1, {}))
        self.assertEqual(url.connect_timeout_s, 90.0)
        self.assertIsNone(parse_database_url("postgres://h/d?connect_timeout=0").connect_timeout_s)

    def test_time_to_connect_is_that_of_the_setting(self) -> None:
        """The connect timeout of the URL counts if no setting gives one."""
        url = "postgresql://u@h/d?connect_timeout=10&lock_timeout=1"
        found = load_with({"cache-database-url": url})
        self.assertEqual(found.cache.database.connect_timeout_s, 10.0)
        self.assertEqual(len(found.warnings), 1)
        found = load_with({"cache-database-url": url, "cache-database-connect-timeout": "3s"})
        self.assertEqual(found.cache.database.connect_timeout_s, 3.0)
        self.assertEqual(len(found.warnings), 2)

    def test_passwords_are_never_shown(self) -> None:
        """No password is in the shown settings, in a `repr`, or in a message."""
        url = parse_database_url(f"postgresql://u:{IN_URL}@h/d?sslmode=require")
        for text in (shown(url), str(url), repr(url)):
            self.assertNotIn(SECRET, text)
            self.assertNotIn(IN_URL, text)

    def test_wrong_urls_are_explained(self) -> None:
        """Each message says what is wrong, without the password."""
        for text, reason in (
            ("postgresql://u:hunter2@h", "one database"),
            ("postgresql://u:hunter2@h/", "one database"),
            ("postgresql://u:hunter2@h/a/b", "one database"),
            ("mysql://u:hunter2@h:port/d", "host or port"),
            ("mysql://u:hunter2/x@h/d", "host or port"),
            ("mysql://u:hunter2@h:99999/d", "host or port"),
            ("mysql://u:hunter2#x@h/d", "%23"),
            ("mysql://u:hunter2@h/d#x", "%23"),
            ("mysql://u:hunter2@h1,h2/d", "one host"),
            ("postgresql://u:hunter2@h1,/d", "one host"),
            ("postgresql://u:hunter2@h1,h2,h3/d?port=1,2", "one port"),
            ("postgresql://u:hunter2@h1/d?port=1,2", "one port"),
            ("postgresql://u:hunter2@h1/d?port=hunter2", "up to 65535"),
            ("postgresql://u:hunter2@h1/d?user=hunter2", "more than one user"),
            ("postgresql://u:hunter2@h1/d?hunter2", "unknown parameter;"),
            ("postgresql://u:hunter2@h1/d?connect_timeout=5s", "number of seconds"),
            ("postgresql://u:hunter2@h1/d?replication=database", "replication"),
            ("postgresql://u:hunter2@h1/d?service=hunter2", "host, port and user"),
            ("postgresql://u:hunter2@h1/d?target_session_attrs=standby", "read-write"),
            ("postgresql://u:hunter2@h/d?host=/run", "either a host or a socket"),
            ("postgresql://u:hunter2@/d?socket=run", "absolute"),
            ("postgresql://u:hunter2@/d?host=/run&socket=/run", "more than one"),
            ("postgres+unix://u:hunter2@h/run/d", "without host"),
            ("postgresql://u:hunter2@h/d?sslmod=require", "did you mean sslmode"),
            ("postgresql://u:hunter2@h/d?sslmode=verify", "verify-full"),
            ("postgresql://u:hunter2@h/d?sslcert=", "should have a value"),
            ("mysql://u:hunter2@h/d?sslmode=require", "did you mean ssl-mode"),
            ("mysql://u:hunter2@h/d?tls=maybe", "skip-verify"),
            ("mysql://u:hunter 2@h/d", "spaces"),
        ):
            with self.assertRaises(ValueError, msg=text) as caught:
                parse_database_url(text)
            self.assertIn(reason, str(caught.exception))
            self.assertNotIn("hunter2", str(caught.exception))

    @given(st.text(alphabet="postgremysql+unix:/@[]?=&#%1.", max_size=40) | st.text())
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        """No text breaks the parser; a valid one can be shown and read again."""
        for prefix in ("", "postgres://", "mysql:"):
            with contextlib.suppress(ValueError):
                url = parse_database_url(prefix + text)
                self.assertEqual(shown(parse_database_url(shown(url))), shown(url))
