"""The schema: making it, finding it, and refusing a database."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ncps.database import migrate
from ncps.database.dialects.sqlite import SQLite
from ncps.database.migration import Migration, known
from ncps.errors import NcpsError, Refused, StorageFull, Unavailable
from tests.integration.processes import together

TABLES = {
    "accounts",
    "facts",
    "lease_fence",
    "lease_sessions",
    "nar_files",
    "narinfos",
    "replicas",
    "schema_migrations",
    "wrong_files",
    "tokens",
    "pins",
    "realisations",
    "pinned_paths",
    "blocked_paths",
    "blocked_files",
    "sqlite_sequence",
}

UP = """
import json, sys
from pathlib import Path
from ncps.database import migrate
from ncps.database.dialects.sqlite import SQLite
dialect = SQLite(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps([migration.version for migration in migrate.up(dialect)]))
"""


class MigrateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute() / "new" / "db.sqlite"
        self.dialect = SQLite(self.path)
        self.ours = known("sqlite")

    def execute(self, *statements: str) -> list[tuple[object, ...]]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            for statement in statements:
                rows = connection.execute(statement).fetchall()
        return rows

    def tables(self) -> set[object]:
        rows = self.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {name for (name,) in rows}

    def refusal(self) -> str:
        """Return the message of `status`, which `up` has, too; check that the file is unchanged."""
        before = self.path.read_bytes()
        message = str(self.assertRaises(Refused, migrate.status, self.dialect))
        self.assertEqual(str(self.assertRaises(Refused, migrate.up, self.dialect)), message)
        self.assertEqual(self.path.read_bytes(), before)
        return message

    def test_a_new_database_gets_everything(self) -> None:
        """The first start makes directory, file and tables; the second has nothing to do."""
        self.assertEqual(migrate.status(self.dialect).pending, self.ours)
        self.assertFalse(self.path.exists())
        self.assertEqual(migrate.up(self.dialect), self.ours)
        self.assertEqual(self.tables(), TABLES)
        self.assertEqual(self.path.parent.stat().st_mode & 0o777, 0o700)
        self.assertEqual(migrate.up(self.dialect), ())
        status = migrate.status(self.dialect)
        self.assertEqual((status.applied, status.pending), (self.ours, ()))

    def test_an_empty_file_is_a_new_database(self) -> None:
        """A file without tables is filled."""
        self.path.parent.mkdir(parents=True)
        self.path.write_bytes(b"")
        self.assertEqual(migrate.up(self.dialect), self.ours)

    def test_applied_migrations_are_recorded(self) -> None:
        """The table of migrations has version, name, checksum and time."""
        migrate.up(self.dialect)
        rows = self.execute("SELECT * FROM schema_migrations ORDER BY version")
        self.assertEqual(
            [row[:3] for row in rows], [(m.version, m.name, m.checksum) for m in self.ours]
        )
        for row in rows:
            assert isinstance(row[3], int)
            self.assertGreater(row[3], 1_700_000_000_000)

    def test_a_newer_schema_is_refused(self) -> None:
        """A database of a newer program is not changed, and the message says what to do."""
        migrate.up(self.dialect)
        self.execute("INSERT INTO schema_migrations VALUES (99, 'future', 'x', 0)")
        message = self.refusal()
        self.assertIn("99", message)
        self.assertIn("newer", message)

    def test_a_schema_of_other_making_is_refused(self) -> None:
        """A step that was applied in another form is an error."""
        migrate.up(self.dialect)
        self.execute("UPDATE schema_migrations SET checksum = 'other' WHERE version = 1")
        self.assertIn("0001_initial", self.refusal())

    def test_the_go_programs_database_is_refused(self) -> None:
        """A database of the Go program, of both its migration tools, is refused and unchanged."""
        for tracking in (
            "schema_migrations (id INTEGER, version_id INTEGER, is_applied INTEGER, tstamp TEXT)",
            "schema_migrations (version VARCHAR(128) PRIMARY KEY)",
        ):
            self.path.unlink(missing_ok=True)
            self.execute(
                f"CREATE TABLE {tracking}",
                "CREATE TABLE narinfos (id INTEGER)",
                "CREATE TABLE nar_files (id INTEGER)",
                "CREATE TABLE narinfo_nar_files (id INTEGER)",
            )
            message = self.refusal()
            for part in (
                "Go program",
                "cannot take it over yet",
                "moving that file",
                str(self.path),
            ):
                self.assertIn(part, message)

    def test_a_database_of_another_program_is_refused(self) -> None:
        """A database with other tables is not changed, not even its journal mode."""
        self.execute("CREATE TABLE bookmarks (id INTEGER)")
        self.assertIn("another program", self.refusal())

    def test_a_file_that_is_not_a_database_is_refused(self) -> None:
        """A text file or a directory under the name is an error and unchanged."""
        self.path.parent.mkdir(parents=True)
        self.path.write_bytes(b"not a database, " * 1000)
        self.assertIn(str(self.path), self.refusal())
        self.path.unlink()
        self.path.mkdir()
        self.assertIn(str(self.path), str(self.assertRaises(Refused, migrate.up, self.dialect)))

    def test_a_file_in_the_way_of_the_directory_is_refused(self) -> None:
        """A directory that cannot be made is a start-up error."""
        self.path.parent.parent.mkdir(parents=True)
        self.path.parent.write_bytes(b"")
        told = str(self.assertRaises(Refused, migrate.up, self.dialect))
        self.assertIn("cannot be made", told)
        self.assertIn("cache-database-url should name a directory", told)

    def test_a_step_that_fails_leaves_nothing(self) -> None:
        """A failed step leaves no part of it."""
        broken = Migration(
            version=98, name="broken", text="CREATE TABLE more (id INTEGER);\nCREATE TABLE more;\n"
        )
        self.patch(migrate, "known", lambda _: (*self.ours, broken))
        self.assertRaises(NcpsError, migrate.up, self.dialect)
        self.assertEqual(self.tables(), TABLES)
        self.patch(migrate, "known", lambda _: self.ours)
        self.assertEqual(migrate.up(self.dialect), ())

    def test_later_steps_are_added_to_what_is_there(self) -> None:
        """An upgrade applies the new steps and keeps the old ones."""
        migrate.up(self.dialect)
        more = Migration(
            version=98, name="more", text="-- why\nCREATE TABLE more (\n    id INTEGER\n);\n"
        )
        self.patch(migrate, "known", lambda _: (*self.ours, more))
        self.assertEqual(migrate.status(self.dialect).pending, (more,))
        self.assertEqual(migrate.up(self.dialect), (more,))
        self.assertEqual(self.tables(), TABLES | {"more"})

    def test_comments_do_not_change_a_checksum(self) -> None:
        """A changed comment in a released migration does not change its checksum."""
        one = Migration(version=1, name="a", text="-- old\nCREATE TABLE a (id INT);\n")
        two = Migration(version=1, name="a", text="-- new\n\nCREATE TABLE a\n(id INT);\n")
        other = Migration(version=1, name="a", text="CREATE TABLE b (id INT);\n")
        self.assertEqual(one.checksum, two.checksum)
        self.assertNotEqual(one.checksum, other.checksum)

    def test_a_lock_that_stays_is_given_up(self) -> None:
        """A database that stays locked is a start-up error after 20 attempts."""
        migrate.up(self.dialect)
        more = Migration(version=98, name="more", text="CREATE TABLE more (id INTEGER);\n")
        self.patch(migrate, "known", lambda _: (*self.ours, more))
        waits: list[float] = []
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            self.patch(SQLite, "arguments", self.dialect.arguments | {"timeout": 0.0})
            connect = SQLite.connect
            self.patch(SQLite, "connect", lambda dialect: connect(dialect, timeout_s=0.0))
            self.assertRaises(Unavailable, migrate.up, self.dialect, waits.append)
        self.assertEqual(waits, [migrate.PAUSE_S] * (migrate.ATTEMPTS - 1))

    def test_no_room_for_the_schema_is_said(self) -> None:
        """A full disk at the first start is a clear error."""
        set_up = SQLite.set_up

        def narrow(dialect: SQLite, connection: sqlite3.Connection, *, read_only: bool) -> None:
            set_up(dialect, connection, read_only=read_only)
            connection.execute("PRAGMA max_page_count = 3")

        self.patch(SQLite, "set_up", narrow)
        self.assertRaises(StorageFull, migrate.up, self.dialect)

    def test_processes_that_start_together_apply_once(self) -> None:
        """Of several processes on a new database one makes the schema and all continue."""
        outputs = together(UP, [str(self.path)], 4)
        applied = [version for output in outputs for version in json.loads(output)]
        self.assertEqual(sorted(applied), [migration.version for migration in self.ours])
        rows = self.execute("SELECT version FROM schema_migrations ORDER BY version")
        self.assertEqual([version for (version,) in rows], sorted(applied))
