"""PostgreSQL 12 and newer, through psycopg 3."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final

from ncps.database.dialects.base import (
    DatabaseServer,
    ServerDialect,
    Sleep,
    Transaction,
    Trouble,
    one_line,
)
from ncps.errors import Corrupt, NcpsError, Refused, StorageFull, Unavailable

OLDEST: Final = 12
MIGRATION_LOCK: Final = 0x6E637073
"""Key of the advisory lock; "ncps" in ASCII."""
LOCK_PAUSE_S: Final = 0.1
_GRACE_S: Final = 5.0

_OURS = {"application_name", "search_path", "prepare", "options"}
"""Options that are not passed on to libpq as they are."""

_CONFLICTS = frozenset({"40001", "40P01", "55P03"})
# The server is told to end, starts, has cut the connection or no room for another.
_AWAY = frozenset({"57P01", "57P02", "57P03", "57P05", "53300", "25P03"})
# No room on the disk; a standby.
_FULL = frozenset({"53100", "25006"})
_REFUSED = {
    "28P01": "{where} does not accept the password: check cache-database-url or the password file",
    "28000": "{where} does not let this user in: {says}",
    "3D000": "there is no database {where}: create it, or correct cache-database-url",
    "42501": "the user may not do this in {where}: {says}; grant it, or let `ncps migrate up` be"
    " run by a user who may",
    "TLS": "{where} and we do not agree on TLS: {says}; correct the options in cache-database-url",
    "42P01": "tables are missing in {where}: {says}; run `ncps migrate up`",
    "42703": "columns are missing in {where}: {says}; run `ncps migrate up`",
}
_TOLD = (
    ("the database system is ", "57P03"),
    ("password authentication failed", "28P01"),
    ("no password supplied", "28P01"),
    ("no pg_hba.conf entry", "28000"),
    (r'role ".*" (does not exist|is not permitted)', "28000"),
    ("permission denied for database", "42501"),
    (r'database ".*" does not exist', "3D000"),
    ("too many connections", "53300"),
    ("too many clients", "53300"),
    ("remaining connection slots", "53300"),
    ("does not support SSL", "TLS"),
    ("certificate verify failed", "TLS"),
    ("root certificate file", "TLS"),
    ("server certificate for", "TLS"),
    ("certificate file", "TLS"),
    ("private key file", "TLS"),
)
"""What is said where a connection is refused, of which libpq passes on no code."""


class PostgreSQL(ServerDialect):
    """See `ServerDialect`.

    Sessions commit each statement by themselves unless a transaction was begun; the default
    isolation is READ COMMITTED whatever the server's configuration says.
    """

    name = "postgresql"
    has_transactional_ddl = True
    begin_read = ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",)
    begin_write = ("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",)
    lock_patience_s = 300.0
    """How long other processes may take to migrate."""
    begin_migration = begin_write

    def __init__(self, server: DatabaseServer) -> None:
        """Load the driver; Refused if it is not installed."""
        try:
            self._driver: Any = importlib.import_module("psycopg")
        except ImportError as error:
            raise Refused(
                "PostgreSQL needs the package psycopg, which is not installed or lacks libpq:"
                f" pip install 'psycopg[binary]' ({one_line(error)})"
            ) from error
        self._server = server

    @property
    def where(self) -> str:
        return self._server.where

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        return (self._driver.Error,)

    def connect(self) -> Any:
        return self._connect(self._server.statement_timeout_s)

    def _connect(self, statement_timeout_s: float) -> Any:
        connection = self._driver.connect(**self._arguments(statement_timeout_s))
        version = connection.info.server_version // 10000
        if version < OLDEST:
            connection.close()
            raise Refused(
                f"the server of {self.where} is PostgreSQL {version}; {OLDEST} or newer is needed"
            )
        return connection

    def _arguments(self, statement_timeout_s: float) -> dict[str, Any]:
        server = self._server
        options = server.options
        milliseconds = round(statement_timeout_s * 1000)
        session = {
            "statement_timeout": str(milliseconds),
            "idle_in_transaction_session_timeout": str(milliseconds),
            "default_transaction_isolation": "read\\ committed",
            "TimeZone": "UTC",
        }
        if "search_path" in options:
            session["search_path"] = re.sub(r"([\\ ])", r"\\\1", options["search_path"])
        settings = [f"-c {name}={value}" for name, value in session.items()]  # the last one counts
        places = ((server.socket or server.host, server.port), *server.others)
        if len(places) > 1:  # of which one may be a standby, where nothing can be written
            options = {"target_session_attrs": "read-write", **options}
        arguments: dict[str, Any] = {
            "host": ",".join(host for host, _ in places),
            "port": ",".join(str(port) for _, port in places),
            "user": server.user or None,
            "password": server.password,
            "dbname": server.database,
            "autocommit": True,
            "application_name": options.get("application_name", "ncps"),
            "client_encoding": "utf8",
            "connect_timeout": max(2, round(server.connect_timeout_s)),
            "options": " ".join([*filter(None, [options.get("options")]), *settings]),
            # Who is connected to a machine that has vanished learns it before long.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": round((server.statement_timeout_s + _GRACE_S) * 1000),
            **{name: value for name, value in options.items() if name not in _OURS},
        }
        if options.get("prepare") == "off":
            arguments["prepare_threshold"] = None
        return arguments

    def file_number(self, connection: Any) -> int:
        number: int = connection.fileno()
        return number

    def inspect(self) -> Any:
        return self._connect(self._server.statement_timeout_s)

    def prepare(self) -> None:
        """There is nothing to make: a database is created by its administrator."""

    @contextmanager
    def alone(self, connection: Any, sleep: Sleep) -> Iterator[None]:
        end = time.monotonic() + self.lock_patience_s
        # Tries instead of one long wait, which a transaction that is cut off would leave behind.
        while not self._try_lock(connection):
            if time.monotonic() > end:
                raise Unavailable(
                    f"another process has been migrating {self.where} for more than"
                    f" {self.lock_patience_s:.0f} s"
                )
            sleep(LOCK_PAUSE_S)
        # Indexes of large tables take their time; locks that others hold are not waited for long.
        connection.execute("SET statement_timeout = 0")
        connection.execute("SET lock_timeout = '30s'")
        yield  # the lock goes with the connection

    def _try_lock(self, connection: Any) -> bool:
        found = connection.execute("SELECT pg_try_advisory_lock(%s)", (MIGRATION_LOCK,)).fetchone()
        return bool(found[0])

    def translate(self, statement: str) -> str:
        return _translate(statement)

    def tables(self, connection: Any) -> set[str]:
        return self._names(
            connection,
            "SELECT table_name FROM information_schema.tables"
            " WHERE table_schema = current_schema() AND table_type = 'BASE TABLE'",
        )

    def columns(self, connection: Any, table: str) -> set[str]:
        return self._names(
            connection,
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_schema = current_schema() AND table_name = ?",
            table,
        )

    def _names(self, connection: Any, statement: str, *parameters: object) -> set[str]:
        txn = Transaction(connection.cursor(), self.translate)
        return {name for (name,) in txn.execute(statement, parameters).fetchall()}

    def is_done_already(self, error: Exception) -> bool:
        return False

    def trouble(self, error: Exception) -> Trouble:
        code = self._code(error)
        if code in _CONFLICTS:
            return Trouble.CONFLICT
        if code in _AWAY or code.startswith("08"):
            return Trouble.AWAY
        # Without a code it comes from libpq: a connection that broke or was not to be had.
        lost = (self._driver.OperationalError, self._driver.InterfaceError)
        return Trouble.AWAY if not code and isinstance(error, lost) else Trouble.FINAL

    def translated(self, error: Exception) -> NcpsError:
        code, says = self._code(error), one_line(error).partition(" Is the server running")[0]
        if code in _REFUSED:
            return Refused(_REFUSED[code].format(where=self.where, says=says))
        if code in _FULL:
            return StorageFull(f"the database cannot be written: {says}")
        if code[:2] in {"22", "23"} or isinstance(error, self._driver.DataError):
            return Corrupt(f"the database refuses these facts: {says}")
        if self.trouble(error) is Trouble.AWAY:
            return Unavailable(f"the database {self.where} does not answer: {says}", retry_after=5)
        is_late = code == "57014"
        return Unavailable(f"the database fails: {says}", retry_after=1.0, timed_out=is_late)

    def _code(self, error: Exception) -> str:
        """SQLSTATE, also of a connection that was refused; empty if there is none."""
        code: str | None = getattr(error, "sqlstate", None)
        if code is not None:
            return code
        if not isinstance(error, self._driver.OperationalError):
            return ""
        told = str(error)
        return next((code for pattern, code in _TOLD if re.search(pattern, told)), "")


@lru_cache(maxsize=256)
def _translate(statement: str) -> str:
    return statement.replace("%", "%%").replace("?", "%s")
