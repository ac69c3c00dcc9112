"""ncps finds databases of the Go program, names them, and does not change them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ncps.assembly.databases import dialect
from ncps.assembly.former import refuse_former
from ncps.database import migrate
from ncps.errors import Refused
from ncps.settings.schema.tree import Settings
from tests.unit.settings.around import load_with

NAR, CHUNK = "1bn7c3bf5z32cdgylhbp9nzhh6ydib5ngsm6mdhsvf233g0nh1ac", "9f" * 32
TABLES = """
CREATE TABLE schema_migrations (id INTEGER, version_id INTEGER, is_applied INTEGER, tstamp TEXT);
CREATE TABLE narinfos (id INTEGER, hash TEXT);
CREATE TABLE nar_files (id INTEGER, hash TEXT);
CREATE TABLE narinfo_nar_files (id INTEGER);
CREATE TABLE chunks (id INTEGER, hash TEXT);
"""


def write(path: Path, data: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


class FormerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.top = Path(self.mktemp()).absolute()
        self.root = self.top / "ncps"
        self.nar = self.root / "store" / "nar" / "1" / "1b" / f"{NAR}.nar.xz"
        write(self.nar)

    def settings(self, database: str = "new.sqlite") -> Settings:
        url = f"sqlite:{self.top / database}"
        return load_with({"cache-storage-local": str(self.root), "cache-database-url": url})

    def make(self, name: str, *, script: str = TABLES, hash_: str = NAR) -> Path:
        """Make a database as the Go program does: in WAL mode, closed properly."""
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(script)
            if "nar_files" in script:
                connection.execute("INSERT INTO nar_files VALUES (1, ?)", (hash_,))
                connection.execute("INSERT INTO chunks VALUES (1, ?)", (CHUNK,))
                connection.commit()
        return path

    def everything(self) -> dict[Path, tuple[int, bytes]]:
        """Return all files and directories that are not ours, with time of change and bytes."""
        return {
            path: (0, b"") if path.is_dir() else (path.stat().st_mtime_ns, path.read_bytes())
            for path in self.top.rglob("*")
            if not (path.name.startswith("new.sqlite") and (self.top / "new.sqlite").exists())
        }

    def refused(self, found: Path, database: str = "new.sqlite") -> None:
        before = self.everything()
        message = str(self.assertRaises(Refused, refuse_former, self.settings(database)))
        for words in (str(found), "Go program", "cannot take it over yet", "has changed nothing"):
            self.assertIn(words, message)
        self.assertNotIn("rebuild", message)
        self.assertEqual(before, self.everything())

    def test_places_of_the_settings(self) -> None:
        """The settings of the Go program name the database."""
        self.refused(self.make("ncps/db/db.sqlite"), "ncps/db/db.sqlite")

    def test_inside_the_store(self) -> None:
        """The database is at a usual place in the store, with or without files of that store."""
        for name in ("db.sqlite", "db/db.sqlite", "var/ncps/db/db.sqlite", "db/ncps.db"):
            path = self.make(f"ncps/{name}", hash_="0" * 52)
            self.refused(path)
            path.unlink()

    def test_beside_the_store(self) -> None:
        """The database is beside the store and names a NAR or a chunk of it."""
        for name in ("db.sqlite", "db/db.sqlite", "var/ncps/db/db.sqlite"):
            path = self.make(name)
            self.refused(path)
            path.unlink()
        write(self.root / "store" / "chunk" / "9" / "9f" / CHUNK)
        self.refused(self.make("db.sqlite", hash_="0" * 52))

    def test_beside_the_new_database(self) -> None:
        """The database is in the directory of the new database, with another name."""
        self.refused(self.make("far/away/db.sqlite"), "far/away/new.sqlite")

    def test_databases_of_others(self) -> None:
        """Databases of another store or program, and other files, do not prevent a start."""
        self.make("db.sqlite", hash_="0" * 52)
        self.make("other.db", script="CREATE TABLE narinfos (hash TEXT);")
        write(self.top / "text.db", b"text")
        write(self.top / "broken.db", b"SQLite format 3\0 and no more")
        (self.top / "directory.db").mkdir()
        (self.top / "nowhere.db").symlink_to("/nowhere")
        refuse_former(self.settings())

    def test_store_that_is_in_use_by_this_program(self) -> None:
        """After the catalog was lost, ncps ignores databases beside a store that it has used."""
        self.make("db.sqlite")
        write(self.root / "store" / "ncps.lock")
        refuse_former(self.settings())

    def test_catalog_that_is_in_use(self) -> None:
        """It does so if the catalog has narinfos; an empty one may be from `ncps migrate up`."""
        former = self.make("db.sqlite")
        migrate.up(dialect(self.settings()))
        self.refused(former)
        with closing(sqlite3.connect(self.top / "new.sqlite")) as connection:
            connection.execute("PRAGMA ignore_check_constraints = ON")
            columns = connection.execute("PRAGMA table_info(narinfos)").fetchall()
            values = ", ".join("0" if kind == "INTEGER" else "'x'" for _, _, kind, *_ in columns)
            connection.execute(f"INSERT INTO narinfos VALUES ({values})")
            connection.commit()
        refuse_former(self.settings())

    def test_nothing_there(self) -> None:
        """A start without such a database succeeds."""
        refuse_former(self.settings())
        self.nar.unlink()
        refuse_former(self.settings("none/yet.sqlite"))
        self.assertFalse((self.top / "none").exists())
