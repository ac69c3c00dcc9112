"""The schemas of the engines, compared with each other."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.trial.unittest import SynchronousTestCase

from ncps.database import migrate
from ncps.database.dialects.base import Transaction
from ncps.database.dialects.sqlite import SQLite
from tests.integration.databases import dialect_of
from tests.integration.servers import shared

OF_ONE_ENGINE = {"sqlite_sequence", "lease_fence", "lease_sessions"}
"""Tables that the other engines do not need."""


Columns = dict[tuple[str, str], tuple[str, bool, str | None]]


def _kind(declared: str) -> str:
    """Return a type in words that the engines share."""
    kind = declared.lower().replace("character varying", "varchar")
    kind = {"integer": "int", "mediumtext": "text", "longtext": "text"}.get(kind, kind)
    return kind.partition("(")[0] if kind.startswith(("bigint", "int", "smallint")) else kind


class SameSchemaTests(SynchronousTestCase):
    """All engines have the same tables."""

    def setUp(self) -> None:
        path = Path(self.mktemp()).absolute() / "db.sqlite"
        migrate.up(SQLite(path))
        self.sqlite = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
        self.addCleanup(self.sqlite.close)
        self.urls = {
            "pg": shared.postgresql().new_database(),
            "maria": shared.mariadb().new_database(),
            "my": shared.mysql().new_database(),
        }
        for url in self.urls.values():
            migrate.up(dialect_of(url))

    def rows(self, engine: str, statement: str) -> list[tuple[Any, ...]]:
        if engine == "sqlite":
            return self.sqlite.execute(statement).fetchall()
        name = self.urls[engine].rpartition("/")[2]
        ask = {"pg": shared.postgresql, "maria": shared.mariadb, "my": shared.mysql}
        return ask[engine]().execute(statement, name)

    def columns(self, engine: str) -> Columns:
        """Return type, NULL and default of each column."""
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
        # SQLite's row id is an integer as large as any.
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
        for engine in self.urls:
            self.assertEqual(self.columns(engine), expected, engine)

    def indexes(self, engine: str) -> dict[tuple[str, ...], tuple[bool, str]]:
        """Return the indexes by table and columns: unique or not, and our name."""
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
        """Tables, columns in their order, uniqueness, and our names."""
        expected = self.indexes("sqlite")
        self.assertEqual(expected["narinfos", "hash"], (True, ""))
        self.assertEqual(expected["nar_files", "last_used_at"], (False, "nar_files_last_used_at"))
        for engine in self.urls:
            self.assertEqual(self.indexes(engine), expected, engine)

    def test_texts_are_compared_byte_by_byte(self) -> None:
        """Keys that differ in case or accent are different, with any defaults of the server."""
        for engine in ("maria", "my"):
            rows = self.rows(
                engine,
                "SELECT DISTINCT collation_name FROM information_schema.columns"
                " WHERE table_schema = DATABASE() AND collation_name IS NOT NULL"
                " AND table_name <> 'schema_migrations'",
            )
            self.assertEqual(rows, [("utf8mb4_bin",)], engine)
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
        """Foreign keys, checks, uniqueness and lengths are the same on each engine."""
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
                insert("nar_files", good | {"name": "N"})  # another name, for all of them
                for table, row in (
                    ("nar_files", good),
                    ("nar_files", good | {"name": "a", "file_size": -1}),
                    ("nar_files", good | {"name": "a", "nar_size": -1}),
                    ("nar_files", good | {"name": "a", "stored_at": 1}),
                    ("nar_files", good | {"name": "a", "stored_size": 1}),
                    ("nar_files", good | {"name": None}),
                    ("narinfos", info),
                    ("narinfos", info | {"hash": "a", "verified": 2}),
                    # MySQL 9.7 does not check a foreign key where the rest of its index is NULL.
                    # The program itself locks the row of the NAR before it writes a narinfo.
                    ("narinfos", info | {"hash": "a", "nar_file_id": 17, "last_used_at": 1}),
                ):
                    self.assertRaises(dialect.errors, insert, table, row)
                cursor.execute("DELETE FROM nar_files WHERE id = 1000")
                cursor.execute("SELECT COUNT(*) FROM narinfos")
                self.assertEqual(cursor.fetchone()[0], 0, dialect.name)
