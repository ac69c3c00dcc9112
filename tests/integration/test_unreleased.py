"""Databases of the versions before the first release: upgraded from each of their numbers."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ncps.database import migrate
from ncps.database.dialects.base import Dialect, Transaction
from ncps.database.dialects.sqlite import SQLite
from ncps.database.migration import Migration, known, unreleased
from ncps.errors import Refused
from tests.integration.databases import dialect_of
from tests.integration.servers import shared
from tests.integration.servers.database import DatabaseServer

NUMBERS = [1, 2, 4, 10, 11, 12, 14]
MADE_AT = 1_700_000_000_000
STORED = (
    "INSERT INTO nar_files (name, extension, compression, encoding, upstream, origin_url,"
    " stored_size, stored_at) VALUES ('n', 'xz', 'xz', 'xz', '', '', 100, 1)"
)
MORE = Migration(version=2, name="more", text="CREATE TABLE more (id INTEGER);\n")

Description = dict[str, Any]


class UnreleasedMigrations:
    """The tests that every engine passes."""

    case: SynchronousTestCase

    def setUp(self) -> None:
        assert isinstance(self, SynchronousTestCase)
        self.case = self

    def new(self) -> Dialect:
        """Return the dialect of a new, empty database."""
        raise NotImplementedError

    def execute(self, dialect: Dialect, *statements: str) -> list[tuple[Any, ...]]:
        """Execute statements; return the rows of the last one that has any."""
        rows: list[tuple[Any, ...]] = []
        with closing(dialect.connect()) as connection:
            txn = Transaction(connection.cursor(), dialect.translate)
            for statement in statements:
                cursor = txn.execute(statement)
                rows = [tuple(row) for row in cursor.fetchall()] if cursor.description else rows
        return rows

    def made(self, newest: int, *statements: str) -> Dialect:
        """Make a database as a version with that number left it."""
        dialect = self.new()
        dialect.prepare()
        self.execute(dialect, migrate._TABLE)
        for migration in unreleased(dialect.name):
            if migration.version <= newest:
                row = f"{migration.version}, '{migration.name}', '{migration.checksum}', {MADE_AT}"
                self.execute(dialect, *migration.statements)
                self.execute(dialect, f"INSERT INTO schema_migrations VALUES ({row})")
        self.execute(dialect, *statements)
        return dialect

    def rows(self, dialect: Dialect) -> list[tuple[Any, ...]]:
        return self.execute(
            dialect, "SELECT version, checksum FROM schema_migrations ORDER BY version"
        )

    def describe(self, dialect: Dialect) -> Description:
        """Return tables, columns, constraints and indexes, as the engine describes them."""
        raise NotImplementedError

    def test_each_number_becomes_the_schema_of_a_new_database(self) -> None:
        """Tables, columns, constraints and indexes are the same, and no row is lost."""
        fresh = self.new()
        self.case.assertEqual(migrate.up(fresh), known(fresh.name))
        expected = self.describe(fresh)
        self.case.assertEqual(NUMBERS, [m.version for m in unreleased(fresh.name)])
        for number in NUMBERS:
            dialect = self.made(number)
            # The counters of stored NARs came with number 4; transactions update them since.
            self.execute(dialect, STORED)
            if number >= 4:
                self.execute(dialect, "UPDATE accounts SET nars = 1, bytes = 100")
            old = tuple(m for m in unreleased(fresh.name) if m.version > number)
            pending = (*old, *known(fresh.name)[1:])
            self.case.assertEqual(migrate.status(dialect).pending, pending)
            self.case.assertEqual(migrate.up(dialect), pending)
            self.case.assertEqual(migrate.up(dialect), ())
            migrate.probe(dialect)
            self.case.assertEqual(expected, self.describe(dialect), number)
            self.case.assertEqual(
                [("n", 100, 0)],
                self.execute(dialect, "SELECT name, stored_size, fence FROM nar_files"),
            )
            self.case.assertEqual(
                [("stored", 1, 100)],
                self.execute(dialect, "SELECT name, nars, bytes FROM accounts"),
            )

    def test_a_version_before_the_release_can_start_beside_this_one(self) -> None:
        """Before a later step, the rows keep the numbers that it needs."""
        dialect = self.made(12)
        initial = known(dialect.name)[0]
        self.case.patch(migrate, "known", lambda _: (initial,))
        migrate.up(dialect)
        self.case.assertEqual(
            self.rows(dialect), [(m.version, m.checksum) for m in unreleased(dialect.name)]
        )

    def test_a_later_step_gives_the_rows_new_numbers(self) -> None:
        """After that the database is like one with the new numbers from the beginning."""
        for number in (11, 14):
            dialect = self.made(number, STORED)
            initial = known(dialect.name)[0]
            pending = (*(m for m in unreleased(dialect.name) if m.version > number), MORE)
            self.case.patch(migrate, "known", lambda _, initial=initial: (initial, MORE))
            self.case.assertEqual(migrate.status(dialect).pending, pending)
            self.case.assertEqual(migrate.up(dialect), pending)
            self.case.assertEqual(self.rows(dialect), [(1, initial.checksum), (2, MORE.checksum)])
            self.case.assertEqual(migrate.status(dialect).applied, (initial, MORE))
            self.case.assertEqual(migrate.up(dialect), ())
            self.case.assertEqual(
                [(MADE_AT,)], self.execute(dialect, "SELECT MIN(applied_at) FROM schema_migrations")
            )
            self.case.assertEqual([("n",)], self.execute(dialect, "SELECT name FROM nar_files"))
            self.case.patch(migrate, "known", known)

    def test_unknown_steps_are_refused(self) -> None:
        """An unknown number, or another form of an old step, is refused and unchanged."""
        dialect = self.made(14, f"INSERT INTO schema_migrations VALUES (15, 'x', 'x', {MADE_AT})")
        self.case.assertIn("newer", str(self.case.assertRaises(Refused, migrate.up, dialect)))
        self.execute(
            dialect,
            "DELETE FROM schema_migrations WHERE version = 15",
            "UPDATE schema_migrations SET checksum = 'other' WHERE version = 12",
        )
        message = str(self.case.assertRaises(Refused, migrate.up, dialect))
        self.case.assertIn("0012_vouching", message)


class SQLiteUnreleasedTests(UnreleasedMigrations, SynchronousTestCase):
    def new(self) -> SQLite:
        return SQLite(Path(self.mktemp()).absolute() / "db.sqlite")

    def describe(self, dialect: Dialect) -> Description:
        tables = self.execute(dialect, "SELECT name, sql FROM sqlite_master WHERE type = 'table'")
        found: Description = {}
        for table, sql in tables:
            indexes = self.execute(
                dialect,
                f"SELECT name, \"unique\", origin FROM pragma_index_list('{table}') ORDER BY name",
            )
            found[table] = (
                self.execute(dialect, f"PRAGMA table_info({table})"),
                self.execute(dialect, f"PRAGMA foreign_key_list({table})"),
                [
                    (*index, self.execute(dialect, f"PRAGMA index_xinfo({index[0]})"))
                    for index in indexes
                ],
                sorted(re.findall(r"CHECK \([^,\n]*\)", sql)),
            )
        return found


class ServerUnreleasedMigrations(UnreleasedMigrations):
    """The same on a server."""

    server: Callable[[], DatabaseServer]

    def new(self) -> Dialect:
        return dialect_of(type(self).server().new_database())


class PostgreSQLUnreleasedTests(ServerUnreleasedMigrations, SynchronousTestCase):
    server = staticmethod(shared.postgresql)

    def describe(self, dialect: Dialect) -> Description:
        return {
            "columns": self.execute(
                dialect,
                "SELECT table_name, ordinal_position, column_name, data_type,"
                " character_maximum_length, collation_name, is_nullable, column_default,"
                " is_identity FROM information_schema.columns"
                " WHERE table_schema = 'public' ORDER BY 1, 2",
            ),
            "constraints": self.execute(
                dialect,
                "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)"
                " FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2",
            ),
            "indexes": self.execute(
                dialect,
                "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
            ),
        }


class MariaDBUnreleasedTests(ServerUnreleasedMigrations, SynchronousTestCase):
    server: Callable[[], DatabaseServer] = staticmethod(shared.mariadb)

    def describe(self, dialect: Dialect) -> Description:
        with closing(dialect.connect()) as connection:
            tables = dialect.tables(connection)
        return {
            table: re.sub(
                r" AUTO_INCREMENT=\d+",
                "",
                self.execute(dialect, f"SHOW CREATE TABLE {table}")[0][1],
            )
            for table in tables
        }


class MySQLUnreleasedTests(MariaDBUnreleasedTests):
    server = staticmethod(shared.mysql)
