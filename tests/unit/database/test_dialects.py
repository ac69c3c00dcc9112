"""The dialects translate SQL, errors and options, without a connection."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from typing import Any

import psycopg
import pymysql
from twisted.trial.unittest import SynchronousTestCase

from ncps import database
from ncps.database.dialects.base import Dialect, Transaction, Trouble
from ncps.database.dialects.mysql import MySQL, version_of
from ncps.database.dialects.postgresql import PostgreSQL
from ncps.database.dialects.server import DatabaseServer
from ncps.database.dialects.sqlite import SQLite
from ncps.errors import Corrupt, NcpsError, Refused, StorageFull, Unavailable

SERVER = DatabaseServer(
    host="db.example.org",
    port=17,
    user="me",
    password="hunter2",
    database="cache",
    connect_timeout_s=5.0,
    statement_timeout_s=10.0,
)


class Cursor:
    """A cursor that records its calls."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []

    def execute(self, statement: str, parameters: object) -> None:
        self.told.append((statement, parameters))

    executemany = execute


class TranslationTests(SynchronousTestCase):
    def test_parameters_and_percent_signs(self) -> None:
        """A question mark is a parameter, and a percent sign is a percent sign."""
        statement = "SELECT a FROM t WHERE b % 2 = ? AND c = ?"
        self.assertEqual(SQLite(Path("/a")).translate(statement), statement)
        for dialect in (PostgreSQL(SERVER), MySQL(SERVER)):
            self.assertEqual(
                dialect.translate(statement), "SELECT a FROM t WHERE b %% 2 = %s AND c = %s"
            )

    def test_rows_that_are_there_already(self) -> None:
        """MySQL has another syntax; INSERT IGNORE is not used, because it hides all errors."""
        plain = "INSERT INTO t (a) VALUES (?) ON CONFLICT DO NOTHING"
        upsert = "INSERT INTO t (a, b) VALUES (?, ?) ON CONFLICT (a) DO UPDATE SET b = excluded.b"
        mysql = MySQL(SERVER)
        self.assertEqual(
            mysql.translate(plain), "INSERT INTO t (a) VALUES (%s) ON DUPLICATE KEY UPDATE id = id"
        )
        self.assertEqual(
            mysql.translate(upsert),
            "INSERT INTO t (a, b) VALUES (%s, %s) ON DUPLICATE KEY UPDATE b = VALUES(b)",
        )
        for statement in (plain, upsert):
            self.assertEqual(SQLite(Path("/a")).translate(statement), statement)

    def test_locks_of_rows(self) -> None:
        """SQLite has one writer and needs no locks of rows."""
        statement = "SELECT a FROM t FOR UPDATE"
        self.assertEqual(SQLite(Path("/a")).translate(statement), "SELECT a FROM t")
        self.assertEqual(PostgreSQL(SERVER).translate(statement), statement)

    def test_no_statement_uses_returning(self) -> None:
        """No statement uses RETURNING: MySQL has none, MariaDB has it for some statements."""
        package = Path(database.__file__).parent
        found = [*package.rglob("*.py"), *(package.parent / "schema" / "mysql").rglob("*.sql")]
        self.assertGreater(len(found), 15)
        for path in found:
            self.assertNotRegex(path.read_text(), r"\bRETURNING\b", path.name)

    def test_statements_always_have_parameters(self) -> None:
        """Without parameters, drivers would not turn two percent signs into one."""
        cursor = Cursor()
        txn = Transaction(cursor, PostgreSQL(SERVER).translate)
        self.assertIs(txn.execute("SELECT 1 % 1"), cursor)
        txn.executemany("DELETE FROM t WHERE a = ?", [])
        txn.executemany("DELETE FROM t WHERE a = ?", [(1,)])
        self.assertEqual(
            cursor.told, [("SELECT 1 %% 1", ()), ("DELETE FROM t WHERE a = %s", [(1,)])]
        )


def refused_connection(text: str) -> Exception:
    return psycopg.OperationalError(f'connection to server at "h", port 1 failed: {text}')


class ErrorTests(SynchronousTestCase):
    """Errors are classified by their remedy, and translated for the caller."""

    def judge(self, dialect: Dialect, error: Exception, trouble: Trouble, kind: type) -> NcpsError:
        self.assertIs(dialect.trouble(error), trouble, error)
        found = dialect.translated(error)
        self.assertIs(type(found), kind, error)
        self.assertNotIn("\n", str(found))
        self.assertNotIn("hunter2", str(found))
        return found

    def test_postgresql(self) -> None:
        """Errors are recognized by SQLSTATE, or by words if libpq gives no code."""
        dialect = PostgreSQL(SERVER)
        errors = psycopg.errors
        for error, trouble, kind in (
            (errors.SerializationFailure("x"), Trouble.CONFLICT, Unavailable),
            (errors.DeadlockDetected("x"), Trouble.CONFLICT, Unavailable),
            (errors.LockNotAvailable("x"), Trouble.CONFLICT, Unavailable),
            (errors.AdminShutdown("x"), Trouble.AWAY, Unavailable),
            (errors.TooManyConnections("x"), Trouble.AWAY, Unavailable),
            (psycopg.OperationalError("the connection is closed"), Trouble.AWAY, Unavailable),
            (refused_connection("Connection refused\n\tIs the"), Trouble.AWAY, Unavailable),
            (
                refused_connection("FATAL:  the database system is starting up"),
                Trouble.AWAY,
                Unavailable,
            ),
            (
                refused_connection("FATAL:  sorry, too many clients already"),
                Trouble.AWAY,
                Unavailable,
            ),
            (errors.UniqueViolation("x"), Trouble.FINAL, Corrupt),
            (errors.NumericValueOutOfRange("x"), Trouble.FINAL, Corrupt),
            (psycopg.DataError("cannot contain NUL"), Trouble.FINAL, Corrupt),
            (errors.DiskFull("x"), Trouble.FINAL, StorageFull),
            (errors.ReadOnlySqlTransaction("x"), Trouble.FINAL, StorageFull),
            (errors.InsufficientPrivilege("x"), Trouble.FINAL, Refused),
            (errors.UndefinedTable("x"), Trouble.FINAL, Refused),
            (errors.SyntaxError("x"), Trouble.FINAL, Unavailable),
            (
                refused_connection('FATAL:  password authentication failed for user "me"'),
                Trouble.FINAL,
                Refused,
            ),
            (refused_connection("fe_sendauth: no password supplied"), Trouble.FINAL, Refused),
            (
                refused_connection('FATAL:  database "cache" does not exist'),
                Trouble.FINAL,
                Refused,
            ),
            (refused_connection('FATAL:  role "me" does not exist'), Trouble.FINAL, Refused),
            (refused_connection("FATAL:  whatever else"), Trouble.AWAY, Unavailable),
            (refused_connection("SSL error: certificate verify failed"), Trouble.FINAL, Refused),
            (
                psycopg.OperationalError("SSL connection has been closed unexpectedly"),
                Trouble.AWAY,
                Unavailable,
            ),
        ):
            self.judge(dialect, error, trouble, kind)
        late = self.judge(dialect, errors.QueryCanceled("x"), Trouble.FINAL, Unavailable)
        assert isinstance(late, Unavailable)
        self.assertTrue(late.timed_out)

    def test_mysql(self) -> None:
        """Errors are recognized by the server's numbers and the driver's own."""
        dialect = MySQL(SERVER)
        for number, trouble, kind in (
            (1213, Trouble.CONFLICT, Unavailable),
            (1205, Trouble.CONFLICT, Unavailable),
            (2003, Trouble.AWAY, Unavailable),
            (2006, Trouble.AWAY, Unavailable),
            (2013, Trouble.AWAY, Unavailable),
            (1040, Trouble.AWAY, Unavailable),
            (1053, Trouble.AWAY, Unavailable),
            (1129, Trouble.AWAY, Unavailable),
            (1226, Trouble.AWAY, Unavailable),
            (1927, Trouble.AWAY, Unavailable),
            (1062, Trouble.FINAL, Corrupt),
            (1264, Trouble.FINAL, Corrupt),
            (1406, Trouble.FINAL, Corrupt),
            (4025, Trouble.FINAL, Corrupt),
            (1114, Trouble.FINAL, StorageFull),
            (1290, Trouble.FINAL, StorageFull),
            (1045, Trouble.FINAL, Refused),
            (1049, Trouble.FINAL, Refused),
            (1130, Trouble.FINAL, Refused),
            (1862, Trouble.FINAL, Refused),
            (2059, Trouble.FINAL, Refused),
            (3118, Trouble.FINAL, Refused),
            (4151, Trouble.FINAL, Refused),
            (1142, Trouble.FINAL, Refused),
            (1146, Trouble.FINAL, Refused),
            (2026, Trouble.FINAL, Refused),
            (1064, Trouble.FINAL, Unavailable),
        ):
            self.judge(dialect, pymysql.err.OperationalError(number, "x\ny"), trouble, kind)
        broken = pymysql.err.InternalError("Packet sequence number wrong")
        self.judge(dialect, broken, Trouble.AWAY, Unavailable)
        error = pymysql.err.OperationalError(1969, "max_statement_time exceeded")
        late = self.judge(dialect, error, Trouble.FINAL, Unavailable)
        assert isinstance(late, Unavailable)
        self.assertTrue(late.timed_out)

    def test_steps_that_were_done(self) -> None:
        """Only errors that say that a table exists, or does not, count as done."""
        for number, is_done in ((1050, True), (1060, True), (1061, True), (1091, True)):
            error = pymysql.err.OperationalError(number, "x")
            self.assertIs(MySQL(SERVER).is_done_already(error), is_done)
        for number in (1064, 1062, 2013):
            error = pymysql.err.OperationalError(number, "x")
            self.assertFalse(MySQL(SERVER).is_done_already(error))
        self.assertFalse(PostgreSQL(SERVER).is_done_already(psycopg.errors.DuplicateTable("x")))


class ServerTests(SynchronousTestCase):
    """A dialect before its first connection."""

    def test_passwords_are_never_shown(self) -> None:
        """Neither `where` nor `repr` shows the password."""
        self.assertEqual(SERVER.where, "'cache' at db.example.org:17 as 'me'")
        self.assertNotIn("hunter2", repr(SERVER))

    def test_a_missing_driver_is_named(self) -> None:
        """The error says which package to install."""
        for module, command, make in (
            ("psycopg", f"{sys.executable} -m pip install 'psycopg[binary]'", PostgreSQL),
            ("pymysql", f"{sys.executable} -m pip install PyMySQL", MySQL),
        ):
            self.patch(sys, "modules", {**sys.modules, module: None})
            with self.assertRaises(Refused) as caught:
                make(SERVER)
            self.assertIn(command, str(caught.exception))

    def test_versions_of_servers(self) -> None:
        """MySQL and MariaDB are distinguished, also if MariaDB pretends to be older."""
        for text, kind, version in (
            ("8.0.36", "MySQL", (8, 0, 36)),
            ("9.7.4-1", "MySQL", (9, 7, 4)),
            ("5.5.5-10.11.6-MariaDB-0+deb12u1", "MariaDB", (10, 11, 6)),
            ("11.4.2-MariaDB-log", "MariaDB", (11, 4, 2)),
        ):
            self.assertEqual(version_of(text), (kind, version))

    def test_old_servers_are_refused(self) -> None:
        """Servers without constraints, or without the needed READ COMMITTED, are refused."""

        class Old:
            info: Any = None
            closed = False

            def close(self) -> None:
                self.closed = True

            def get_server_info(self) -> str:
                return "5.7.44"

        old = Old()
        old.info = type("Info", (), {"server_version": 110022})
        for dialect, words in ((PostgreSQL(SERVER), "PostgreSQL 11"), (MySQL(SERVER), "MySQL 5.7")):
            old.closed = False
            driver = type("Driver", (), {"connect": staticmethod(lambda **_: old)})
            driver.constants = pymysql.constants  # type: ignore[attr-defined]
            dialect._driver = driver
            with self.assertRaises(Refused) as caught:
                dialect.connect()
            self.assertIn(words, str(caught.exception))
            self.assertIn("or newer is needed", str(caught.exception))
            self.assertTrue(old.closed)

    def test_files_of_tls_that_are_not_there(self) -> None:
        """A missing TLS file is an error before the first connection."""
        server = DatabaseServer(
            host="h",
            port=1,
            user="u",
            database="d",
            options={"ssl-ca": "/nonexistent"},
            connect_timeout_s=1.0,
            statement_timeout_s=1.0,
        )
        self.assertRaises(Refused, MySQL, server)


class DamageTests(SynchronousTestCase):
    def test_a_damaged_file_is_reported_with_a_remedy(self) -> None:
        """The error says where to move the files, and how to fill a new database."""
        dialect = SQLite(Path("/var/lib/ncps/db.sqlite"))
        for code in (
            sqlite3.SQLITE_NOTADB,
            sqlite3.SQLITE_CORRUPT,
            sqlite3.SQLITE_CORRUPT_INDEX,
            sqlite3.SQLITE_IOERR_SHORT_READ,
        ):
            error = sqlite3.DatabaseError("database disk image is malformed")
            error.sqlite_errorcode = code
            found = dialect.translated(error)
            self.assertIsInstance(found, Refused)
            for part in ("/var/lib/ncps/db.sqlite,", "db.sqlite-wal", "ncps rebuild", "malformed"):
                self.assertIn(part, str(found))
        other = sqlite3.OperationalError("disk I/O error")
        other.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
        self.assertIsInstance(dialect.translated(other), Unavailable)
