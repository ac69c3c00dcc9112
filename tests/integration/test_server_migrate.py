"""The schema on PostgreSQL, MariaDB and MySQL: making it, finding it, refusing a database."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ncps.database import migrate
from ncps.database.migration import Migration, known
from ncps.errors import Refused, StorageFull, Unavailable
from tests.integration.databases import dialect_of
from tests.integration.processes import together
from tests.integration.servers import shared
from tests.integration.servers.database import DatabaseServer

UP = """
import json, sys
from ncps.database import migrate
from tests.integration.databases import dialect_of
dialect = dialect_of(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps([migration.version for migration in migrate.up(dialect)]))
"""


class ServerMigrations:
    """The tests that every server passes."""

    server: Callable[[], DatabaseServer]
    case: SynchronousTestCase

    def setUp(self) -> None:
        self.url = type(self).server().new_database()
        self.name = self.url.rpartition("/")[2]
        self.dialect = dialect_of(self.url)
        self.ours = known(self.dialect.name)
        assert isinstance(self, SynchronousTestCase)
        self.case = self

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        return type(self).server().execute(statement, self.name)

    def refusal(self) -> str:
        """Return the message of `status`, which `up` has, too."""
        message = str(self.case.assertRaises(Refused, migrate.status, self.dialect))
        self.case.assertEqual(
            str(self.case.assertRaises(Refused, migrate.up, self.dialect)), message
        )
        return message

    def test_a_new_database_gets_everything(self) -> None:
        """The first start makes the tables; the second has nothing to do."""
        self.case.assertEqual(migrate.status(self.dialect).pending, self.ours)
        self.case.assertEqual(migrate.up(self.dialect), self.ours)
        self.case.assertEqual(migrate.up(self.dialect), ())
        status = migrate.status(self.dialect)
        self.case.assertEqual((status.applied, status.pending), (self.ours, ()))
        migrate.probe(self.dialect)

    def test_ten_processes_at_once_apply_once(self) -> None:
        """Of ten replicas on an empty database one does each step, and all continue."""
        outputs = together(UP, [self.url], 10)
        applied = [version for output in outputs for version in json.loads(output)]
        self.case.assertEqual(sorted(applied), [migration.version for migration in self.ours])
        self.case.assertEqual(migrate.status(self.dialect).pending, ())

    def test_a_newer_schema_is_refused(self) -> None:
        """A database of a newer program is not changed, also during its migration."""
        migrate.up(self.dialect)
        for applied_at in (1, -1):
            self.execute(f"INSERT INTO schema_migrations VALUES (99, 'future', 'x', {applied_at})")
            message = self.refusal()
            self.case.assertIn("99", message)
            self.case.assertIn("newer", message)
            self.execute("DELETE FROM schema_migrations WHERE version = 99")

    def test_the_go_programs_database_is_refused(self) -> None:
        """Its database is recognised and not changed."""
        for statement in (
            "CREATE TABLE schema_migrations (id INTEGER, version_id BIGINT)",
            "CREATE TABLE narinfos (id INTEGER)",
            "CREATE TABLE nar_files (id INTEGER)",
            "CREATE TABLE narinfo_nar_files (id INTEGER)",
        ):
            self.execute(statement)
        message = self.refusal()
        for part in ("Go program", "cannot take it over yet", "cache-database-url", self.name):
            self.case.assertIn(part, message)

    def test_a_database_of_another_program_is_refused(self) -> None:
        """A database with other tables is not changed."""
        self.execute("CREATE TABLE bookmarks (id INTEGER)")
        self.case.assertIn("another program", self.refusal())

    def test_later_steps_are_added_to_what_is_there(self) -> None:
        """An upgrade applies the new steps and keeps the old ones."""
        migrate.up(self.dialect)
        more = Migration(version=98, name="more", text="CREATE TABLE more (id INTEGER);\n")
        self.case.patch(migrate, "known", lambda _: (*self.ours, more))
        self.case.assertEqual(migrate.up(self.dialect), (more,))
        self.case.assertEqual(self.execute("SELECT id FROM more"), [])

    def test_a_lock_that_stays_is_given_up(self) -> None:
        """A start does not wait for ever for a process that migrates."""
        self.case.patch(type(self.dialect), "lock_patience_s", 0.2)
        with (
            closing(self.dialect.connect()) as other,
            self.dialect.alone(other, lambda _: None),
            self.case.assertRaises(Unavailable) as caught,
        ):
            migrate.up(self.dialect)
        self.case.assertIn("another process", str(caught.exception))
        self.case.assertEqual(migrate.up(self.dialect), self.ours)

    def user(self, *grants: str) -> str:
        """Return the URL of the database for a new user with these rights."""
        raise NotImplementedError

    def test_a_user_who_may_make_no_tables_is_told(self) -> None:
        """A start without the right to make the schema names the missing right."""
        message = str(self.case.assertRaises(Refused, migrate.up, dialect_of(self.user())))
        self.case.assertIn("may not", message)
        self.case.assertIn("ncps migrate up", message)

    def test_a_user_who_may_not_write_is_told(self) -> None:
        """A start without the right to write rows fails, instead of a later write."""
        migrate.up(self.dialect)
        dialect = dialect_of(self.user("SELECT"))
        self.case.assertEqual(migrate.up(dialect), ())
        self.case.assertIn("may not", str(self.case.assertRaises(Refused, migrate.probe, dialect)))

    def test_rights_to_rows_are_enough(self) -> None:
        """If another user makes the schema, the daemon needs rights to rows only."""
        migrate.up(self.dialect)
        dialect = dialect_of(self.user("SELECT", "INSERT", "UPDATE", "DELETE"))
        self.case.assertEqual(migrate.up(dialect), ())
        migrate.probe(dialect)


class PostgreSQLMigrateTests(ServerMigrations, SynchronousTestCase):
    server = staticmethod(shared.postgresql)

    def user(self, *grants: str) -> str:
        name = f"u_{self.name}"
        self.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
        if grants:
            self.execute(f"GRANT {', '.join(grants)} ON ALL TABLES IN SCHEMA public TO {name}")
        return shared.postgresql().url(self.name, user=name, password="secret")

    def test_a_step_that_fails_leaves_nothing(self) -> None:
        """A failed step leaves no part of it."""
        migrate.up(self.dialect)
        broken = Migration(
            version=98, name="broken", text="CREATE TABLE more (id INTEGER);\nCREATE TABLE more;\n"
        )
        self.patch(migrate, "known", lambda _: (*self.ours, broken))
        self.assertRaises(Unavailable, migrate.up, self.dialect)
        self.assertNotIn("more", str(self.execute("SELECT tablename FROM pg_tables")))
        self.patch(migrate, "known", lambda _: self.ours)
        self.assertEqual(migrate.up(self.dialect), ())

    def test_a_standby_is_read_only(self) -> None:
        """A server that accepts no writes is an error at the start."""
        migrate.up(self.dialect)
        self.execute(f"ALTER DATABASE {self.name} SET default_transaction_read_only = on")
        self.patch(type(self.dialect), "begin_write", ("BEGIN",))
        self.assertRaises(StorageFull, migrate.probe, self.dialect)


class MariaDBMigrateTests(ServerMigrations, SynchronousTestCase):
    server: Callable[[], DatabaseServer] = staticmethod(shared.mariadb)

    def user(self, *grants: str) -> str:
        name = f"u_{self.name}"
        self.execute(f"CREATE USER {name}@'127.0.0.1' IDENTIFIED BY 'secret'")
        rights = ", ".join(grants or ("SELECT",))
        self.execute(f"GRANT {rights} ON {self.name}.* TO {name}@'127.0.0.1'")
        return type(self).server().url(self.name, user=name, password="secret")

    def test_a_process_that_died_in_the_middle_is_followed(self) -> None:
        """A migration continues after the last executed statement, recorded or not."""
        migrate.up(self.dialect)
        text = (
            "CREATE TABLE one (id INTEGER);\n"
            "CREATE TABLE two (id INTEGER);\n"
            "INSERT INTO one VALUES (1);\n"
            "CREATE TABLE three (id INTEGER);\n"
        )
        more = Migration(version=98, name="more", text=text)
        self.patch(migrate, "known", lambda _: (*self.ours, more))
        statements = more.statements
        for done, noted in ((0, 0), (1, 0), (1, 1), (2, 1), (2, 2), (3, 3), (4, 3), (4, 4)):
            row = f"98, 'more', '{more.checksum}', {-noted - 1}"
            self.execute(f"INSERT INTO schema_migrations VALUES ({row})")
            for statement in statements[:done]:
                self.execute(statement)
            self.assertEqual(migrate.up(self.dialect), (more,), (done, noted))
            self.assertEqual(self.execute("SELECT id FROM one"), [(1,)])
            ((at,),) = self.execute("SELECT applied_at FROM schema_migrations WHERE version = 98")
            self.assertGreater(at, 1_700_000_000_000)
            self.execute("DROP TABLE one, two, three")
            self.execute("DELETE FROM schema_migrations WHERE version = 98")

    def test_a_statement_that_fails_is_not_skipped(self) -> None:
        """A table of that name that no earlier try has made is an error."""
        migrate.up(self.dialect)
        more = Migration(version=98, name="more", text="CREATE TABLE nar_files (id INTEGER);\n")
        self.patch(migrate, "known", lambda _: (*self.ours, more))
        self.assertRaises(Unavailable, migrate.up, self.dialect)
        self.assertEqual(migrate.status(self.dialect).pending, (more,))


class MySQLMigrateTests(MariaDBMigrateTests):
    server = staticmethod(shared.mysql)
