"""The schema on PostgreSQL and MariaDB: made once, found again, refused, the same everywhere."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.trial.unittest import SynchronousTestCase

from ncps.database import migrate
from ncps.database.dialects.base import Transaction
from ncps.database.dialects.sqlite import SQLite
from ncps.database.migration import Migration, known
from ncps.errors import Refused, StorageFull, Unavailable
from tests.integration.databases import dialect_of
from tests.integration.processes import together
from tests.integration.servers import shared
from tests.integration.servers.mariadb import MariaDB
from tests.integration.servers.postgresql import PostgreSQL

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
    """What holds on every server."""

    server: Callable[[], PostgreSQL | MariaDB]
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
        """What both ways of looking at the database say."""
        message = str(self.case.assertRaises(Refused, migrate.status, self.dialect))
        self.case.assertEqual(
            str(self.case.assertRaises(Refused, migrate.up, self.dialect)), message
        )
        return message

    def test_a_new_database_gets_everything(self) -> None:
        """The first start makes the tables; the second finds nothing to do."""
        self.case.assertEqual(migrate.status(self.dialect).pending, self.ours)
        self.case.assertEqual(migrate.up(self.dialect), self.ours)
        self.case.assertEqual(migrate.up(self.dialect), ())
        status = migrate.status(self.dialect)
        self.case.assertEqual((status.applied, status.pending), (self.ours, ()))
        migrate.probe(self.dialect)

    def test_ten_processes_at_once_apply_once(self) -> None:
        """Of ten replicas on an empty database each step is done by one, and all go on."""
        outputs = together(UP, [self.url], 10)
        applied = [version for output in outputs for version in json.loads(output)]
        self.case.assertEqual(sorted(applied), [migration.version for migration in self.ours])
        self.case.assertEqual(migrate.status(self.dialect).pending, ())

    def test_a_newer_schema_is_refused(self) -> None:
        """A database of a newer program is left alone, also where that is not through with it."""
        migrate.up(self.dialect)
        for applied_at in (1, -1):
            self.execute(f"INSERT INTO schema_migrations VALUES (99, 'future', 'x', {applied_at})")
            message = self.refusal()
            self.case.assertIn("99", message)
            self.case.assertIn("newer", message)
            self.execute("DELETE FROM schema_migrations WHERE version = 99")

    def test_the_go_programs_database_is_refused(self) -> None:
        """Its database is recognised and left alone."""
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

    def test_a_strangers_database_is_refused(self) -> None:
        """A database with other tables is not ours to change."""
        self.execute("CREATE TABLE bookmarks (id INTEGER)")
        self.case.assertIn("another program", self.refusal())

    def test_later_steps_are_added_to_what_is_there(self) -> None:
        """An upgrade applies what is new and leaves the rest."""
        migrate.up(self.dialect)
        more = Migration(version=98, name="more", text="CREATE TABLE more (id INTEGER);\n")
        self.case.patch(migrate, "known", lambda _: (*self.ours, more))
        self.case.assertEqual(migrate.up(self.dialect), (more,))
        self.case.assertEqual(self.execute("SELECT id FROM more"), [])

    def test_a_lock_that_stays_is_given_up(self) -> None:
        """A process that migrates for ever is not waited for so long."""
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
        """URL of the database for a new user with these rights to it."""
        raise NotImplementedError

    def test_a_user_who_may_make_no_tables_is_told(self) -> None:
        """A start without the right to make the schema says what is missing."""
        message = str(self.case.assertRaises(Refused, migrate.up, dialect_of(self.user())))
        self.case.assertIn("may not", message)
        self.case.assertIn("ncps migrate up", message)

    def test_a_user_who_may_not_write_is_told(self) -> None:
        """A start without the right to write rows says so, instead of failing later."""
        migrate.up(self.dialect)
        dialect = dialect_of(self.user("SELECT"))
        self.case.assertEqual(migrate.up(dialect), ())
        self.case.assertIn("may not", str(self.case.assertRaises(Refused, migrate.probe, dialect)))

    def test_rights_to_rows_are_enough(self) -> None:
        """Where the schema is made by somebody else, the daemon needs rights to rows only."""
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
        """Half a migration never stays."""
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
        """A server that takes no writes is found out at the start."""
        migrate.up(self.dialect)
        self.execute(f"ALTER DATABASE {self.name} SET default_transaction_read_only = on")
        self.patch(type(self.dialect), "begin_write", ("BEGIN",))
        self.assertRaises(StorageFull, migrate.probe, self.dialect)


class MariaDBMigrateTests(ServerMigrations, SynchronousTestCase):
    server = staticmethod(shared.mariadb)

    def user(self, *grants: str) -> str:
        name = f"u_{self.name}"
        self.execute(f"CREATE USER {name}@'127.0.0.1' IDENTIFIED BY 'secret'")
        rights = ", ".join(grants or ("SELECT",))
        self.execute(f"GRANT {rights} ON {self.name}.* TO {name}@'127.0.0.1'")
        return shared.mariadb().url(self.name, user=name, password="secret")

    def test_a_process_that_died_in_the_middle_is_followed(self) -> None:
        """A migration goes on after the last statement that was executed, written down or not."""
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
        """A table of that name which no earlier try had made is no success."""
        migrate.up(self.dialect)
        more = Migration(version=98, name="more", text="CREATE TABLE nar_files (id INTEGER);\n")
        self.patch(migrate, "known", lambda _: (*self.ours, more))
        self.assertRaises(Unavailable, migrate.up, self.dialect)
        self.assertEqual(migrate.status(self.dialect).pending, (more,))


OF_ONE_ENGINE = {"sqlite_sequence", "lease_fence", "lease_sessions"}
"""Tables that the others have no use for."""

Columns = dict[tuple[str, str], tuple[str, bool, str | None]]


def _kind(declared: str) -> str:
    """A type in words that the three engines share."""
    kind = declared.lower().replace("character varying", "varchar")
    kind = {"integer": "int", "mediumtext": "text", "longtext": "text"}.get(kind, kind)
    return kind.partition("(")[0] if kind.startswith(("bigint", "int", "smallint")) else kind


class SameSchemaTests(SynchronousTestCase):
    """The three engines, asked what they have."""

    def setUp(self) -> None:
        path = Path(self.mktemp()).absolute() / "db.sqlite"
        migrate.up(SQLite(path))
        self.sqlite = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
        self.addCleanup(self.sqlite.close)
        self.urls = {
            "pg": shared.postgresql().new_database(),
            "my": shared.mariadb().new_database(),
        }
        for url in self.urls.values():
            migrate.up(dialect_of(url))

    def rows(self, engine: str, statement: str) -> list[tuple[Any, ...]]:
        if engine == "sqlite":
            return self.sqlite.execute(statement).fetchall()
        name = self.urls[engine].rpartition("/")[2]
        server = shared.postgresql() if engine == "pg" else shared.mariadb()
        return server.execute(statement, name)

    def columns(self, engine: str) -> Columns:
        """Type, whether it may be NULL, and default of each column."""
        if engine == "sqlite":
            rows = self.rows(
                engine,
                'SELECT m.name, c.name, c.type, c."notnull" OR c.pk, c.dflt_value'
                " FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table'",
            )
        elif engine == "pg":
            rows = self.rows(
                engine,
                "SELECT table_name, column_name, data_type ||"
                " coalesce('(' || character_maximum_length || ')', ''), is_nullable = 'NO',"
                " column_default FROM information_schema.columns WHERE table_schema = 'public'",
            )
        else:
            rows = self.rows(
                engine,
                "SELECT table_name, column_name, column_type, is_nullable = 'NO', column_default"
                " FROM information_schema.columns WHERE table_schema = DATABASE()",
            )
        # The integer that is SQLite's row id is as large as any.
        return {
            (table, column): (
                "bigint" if column == "id" else _kind(kind),
                bool(required),
                None if default in (None, "NULL") else str(default),
            )
            for table, column, kind, required, default in rows
            if table not in OF_ONE_ENGINE
        }

    def test_columns_are_the_same(self) -> None:
        """Names, types, NULLs and defaults."""
        expected = self.columns("sqlite")
        self.assertIn(("nar_files", "fence"), expected)
        self.assertGreater(len(expected), 25)
        for engine in ("pg", "my"):
            self.assertEqual(self.columns(engine), expected, engine)

    def indexes(self, engine: str) -> dict[tuple[str, ...], tuple[bool, str]]:
        """Whether it is unique, and its name if we gave one, by table and columns."""
        if engine == "sqlite":
            rows = self.rows(
                engine,
                'SELECT m.name, i.name, i."unique", (SELECT group_concat(c.name) FROM'
                " (SELECT name FROM pragma_index_info(i.name) ORDER BY seqno) c)"
                " FROM sqlite_master m, pragma_index_list(m.name) i"
                " WHERE m.type = 'table' AND i.origin <> 'pk'",
            )
        elif engine == "pg":
            rows = self.rows(
                engine,
                "SELECT t.relname, i.relname, x.indisunique, (SELECT string_agg(a.attname, ','"
                " ORDER BY k.n) FROM unnest(x.indkey) WITH ORDINALITY k(att, n) JOIN pg_attribute a"
                " ON a.attrelid = t.oid AND a.attnum = k.att) FROM pg_index x"
                " JOIN pg_class t ON t.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid"
                " JOIN pg_namespace s ON s.oid = t.relnamespace"
                " WHERE s.nspname = 'public' AND NOT x.indisprimary",
            )
        else:
            rows = self.rows(
                engine,
                "SELECT table_name, index_name, non_unique = 0,"
                " GROUP_CONCAT(column_name ORDER BY seq_in_index)"
                " FROM information_schema.statistics"
                " WHERE table_schema = DATABASE() AND index_name <> 'PRIMARY'"
                " GROUP BY table_name, index_name, non_unique",
            )
        return {
            (table, *columns.split(",")): (bool(unique), "" if unique else name)
            for table, name, unique, columns in rows
            if table not in OF_ONE_ENGINE
        }

    def test_indexes_are_the_same(self) -> None:
        """Tables, columns in their order, uniqueness, and the names we gave."""
        expected = self.indexes("sqlite")
        self.assertEqual(expected["narinfos", "hash"], (True, ""))
        self.assertEqual(expected["nar_files", "last_used_at"], (False, "nar_files_last_used_at"))
        for engine in ("pg", "my"):
            self.assertEqual(self.indexes(engine), expected, engine)

    def test_texts_are_compared_byte_by_byte(self) -> None:
        """Keys that differ in case or in an accent are two, whatever the server's defaults are."""
        rows = self.rows(
            "my",
            "SELECT DISTINCT collation_name FROM information_schema.columns"
            " WHERE table_schema = DATABASE() AND collation_name IS NOT NULL"
            " AND table_name <> 'schema_migrations'",
        )
        self.assertEqual(rows, [("utf8mb4_bin",)])
        names = ["a", "A", "\u00e4", "\u00c4", "a\u0308"]
        for dialect in (
            SQLite(Path(self.sqlite.execute("PRAGMA database_list").fetchone()[2])),
            *map(dialect_of, self.urls.values()),
        ):
            with closing(dialect.connect()) as connection:
                txn = Transaction(connection.cursor(), dialect.translate)
                for number, name in enumerate(names, 1):
                    txn.execute(
                        "INSERT INTO nar_files (id, name, extension, compression, encoding,"
                        " upstream, origin_url) VALUES (?, ?, '', '', '', '', '')",
                        (number, name),
                    )
                    txn.execute(
                        "INSERT INTO narinfos (hash, nar_file_id, store_path_name, narinfo,"
                        " upstream, upstream_url, verified, fetched_at)"
                        " VALUES (?, ?, '', '', '', '', 1, 1)",
                        (name, number),
                    )
                for number, name in enumerate(names, 1):
                    for statement in (
                        "SELECT id FROM nar_files WHERE name = ?",
                        "SELECT nar_file_id FROM narinfos WHERE hash = ?",
                    ):
                        found = txn.execute(statement, (name,)).fetchall()
                        self.assertEqual([(number,)], [tuple(row) for row in found], dialect.name)

    def test_rows_that_make_no_sense_are_refused_alike(self) -> None:
        """Foreign keys, checks, uniqueness and lengths hold on each engine."""
        good = {
            "name": "n",
            "extension": "xz",
            "compression": "xz",
            "encoding": "xz",
            "upstream": "",
            "origin_url": "",
        }
        info = {
            "hash": "h",
            "nar_file_id": 1000,
            "store_path_name": "p",
            "narinfo": "",
            "upstream": "",
            "upstream_url": "",
            "verified": 1,
            "fetched_at": 1,
        }
        for dialect in (
            SQLite(Path(self.sqlite.execute("PRAGMA database_list").fetchone()[2])),
            *map(dialect_of, self.urls.values()),
        ):
            with closing(dialect.connect()) as connection:
                cursor = connection.cursor()

                def insert(
                    table: str, row: dict[str, Any], *, run: Any = (dialect, cursor)
                ) -> None:
                    run[1].execute(
                        run[0].translate(
                            f"INSERT INTO {table} ({', '.join(row)})"
                            f" VALUES ({', '.join('?' * len(row))})"
                        ),
                        tuple(row.values()),
                    )

                insert("nar_files", {"id": 1000} | good)
                insert("narinfos", info)
                insert("nar_files", good | {"name": "N"})  # another name, to all of them
                for table, row in (
                    ("nar_files", good),
                    ("nar_files", good | {"name": "a", "file_size": -1}),
                    ("nar_files", good | {"name": "a", "nar_size": -1}),
                    ("nar_files", good | {"name": "a", "stored_at": 1}),
                    ("nar_files", good | {"name": "a", "stored_size": 1}),
                    ("nar_files", good | {"name": None}),
                    ("narinfos", info),
                    ("narinfos", info | {"hash": "a", "verified": 2}),
                    ("narinfos", info | {"hash": "a", "nar_file_id": 17}),
                ):
                    self.assertRaises(dialect.errors, insert, table, row)
                cursor.execute("DELETE FROM nar_files WHERE id = 1000")
                cursor.execute("SELECT COUNT(*) FROM narinfos")
                self.assertEqual(cursor.fetchone()[0], 0, dialect.name)
