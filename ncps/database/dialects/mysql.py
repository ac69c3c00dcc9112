"""MySQL 8 and MariaDB 10.11 and newer, through PyMySQL."""

from __future__ import annotations

import hashlib
import importlib
import re
import ssl
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

OLDEST: Final = {"MySQL": (8, 0, 16), "MariaDB": (10, 11, 0)}
LOCK_PAUSE_S: Final = 0.1
_GRACE_S: Final = 5.0

# Deadlock, lock wait timeout, a row that changed under a snapshot.
_CONFLICTS = frozenset({1213, 1205, 1020})
# Cannot connect, gone, lost, shutting down, killed, no room for another connection.
_AWAY = frozenset(
    {0, 1040, 1053, 1077, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1203, 1927}
    | {2002, 2003, 2006, 2013, 2014, 2055, 3169, 4031}
)
# No room on the disk; a server that is read-only.
_FULL = frozenset({3, 28, 1021, 1114, 1290, 1792, 1836})
_CORRUPT = frozenset({1048, 1062, 1264, 1366, 1406, 1451, 1452, 3819, 4025, 1022, 1265, 1292})
_LATE = frozenset({1969, 3024, 1317})
_DONE_ALREADY = frozenset({1050, 1060, 1061, 1091, 1826, 3822})
_NOT_LET_IN = (
    "{where} does not accept the user or the password: {says}; check cache-database-url, its TLS"
    " options, or the password file"
)
_REFUSED = {
    1045: _NOT_LET_IN,
    1698: _NOT_LET_IN,
    1044: "the user may not use {where}: {says}; grant it, or correct cache-database-url",
    1049: "there is no database {where}: create it, or correct cache-database-url",
    1142: "the user may not do this in {where}: {says}; grant it, or let `ncps migrate up` be run"
    " by a user who may",
    1143: "the user may not do this in {where}: {says}",
    1227: "the user may not do this in {where}: {says}",
    1370: "the user may not do this in {where}: {says}",
    2026: "{where} and we do not agree on TLS: {says}; correct the options in cache-database-url",
    1054: "columns are missing in {where}: {says}; run `ncps migrate up`",
    1146: "tables are missing in {where}: {says}; run `ncps migrate up`",
}


BORROWED: Final = ("pymysql.connections.Connection._sock",)
"""Private names of the library that this module uses; see `tests/structure/test_borrowed.py`."""


class MySQL(ServerDialect):
    """See `ServerDialect`.

    Sessions commit each statement by themselves unless a transaction was begun, see what others
    committed (READ COMMITTED), and are strict about values, whatever the server's configuration
    says.
    """

    name = "mysql"
    has_transactional_ddl = False
    begin_read = (
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    )
    begin_write = ("START TRANSACTION READ WRITE",)
    lock_patience_s = 300.0
    """How long other processes may take to migrate."""
    begin_migration = ()

    def __init__(self, server: DatabaseServer) -> None:
        """Load the driver; Refused if it is not installed or a TLS file is not usable."""
        try:
            self._driver: Any = importlib.import_module("pymysql")
        except ImportError as error:
            raise Refused(
                "MySQL and MariaDB need the package PyMySQL, which is not installed:"
                " pip install PyMySQL"
            ) from error
        self._server = server
        self._tls = _tls(server.options)

    @property
    def where(self) -> str:
        return self._server.where

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        return (self._driver.Error,)

    def connect(self) -> Any:
        return self._connect(self._server.statement_timeout_s)

    def _connect(self, statement_timeout_s: float) -> Any:
        server = self._server
        connection = self._driver.connect(
            host=server.host or None,
            port=server.port,
            unix_socket=server.socket or None,
            user=server.user or None,
            # As bytes: the driver would take text for latin1.
            password=(server.password or "").encode(),
            database=server.database,
            charset="utf8mb4",
            collation="utf8mb4_bin",
            autocommit=True,
            client_flag=self._driver.constants.CLIENT.FOUND_ROWS,
            connect_timeout=server.connect_timeout_s,
            read_timeout=statement_timeout_s + _GRACE_S,
            write_timeout=statement_timeout_s + _GRACE_S,
            **({"ssl_disabled": True} if server.socket else self._tls),
        )
        try:
            self._set_up(connection, statement_timeout_s)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up(self, connection: Any, statement_timeout_s: float) -> None:
        kind, version = version_of(connection.get_server_info())
        if version < OLDEST[kind]:
            needed = ".".join(map(str, OLDEST[kind]))
            found = ".".join(map(str, version))
            raise Refused(
                f"the server of {self.where} is {kind} {found}; {needed} or newer is needed"
            )
        seconds = max(1, round(statement_timeout_s))
        limit = (
            f"max_statement_time = {statement_timeout_s}"
            if kind == "MariaDB"
            else f"max_execution_time = {round(statement_timeout_s * 1000)}"
        )
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            cursor.execute(
                "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION',"
                f" time_zone = '+00:00', lock_wait_timeout = {seconds},"
                f" innodb_lock_wait_timeout = {seconds}, {limit}"
            )

    def file_number(self, connection: Any) -> int:
        # The driver has no public way to it.
        number: int = connection._sock.fileno()
        return number

    def inspect(self) -> Any:
        return self.connect()

    def prepare(self) -> None:
        """There is nothing to make: a database is created by its administrator."""

    @contextmanager
    def alone(self, connection: Any, sleep: Sleep) -> Iterator[None]:
        end = time.monotonic() + self.lock_patience_s
        # Tries instead of one long wait, which would look like a server that hangs.
        while not self._try_lock(connection):
            if time.monotonic() > end:
                raise Unavailable(
                    f"another process has been migrating {self.where} for more than"
                    f" {self.lock_patience_s:.0f} s"
                )
            sleep(LOCK_PAUSE_S)
        yield  # the lock goes with the connection

    def _try_lock(self, connection: Any) -> bool:
        # Locks are the server's, names have at most 64 characters.
        name = f"ncps {hashlib.sha256(self._server.database.encode()).hexdigest()[:32]}"
        with connection.cursor() as cursor:
            cursor.execute("SELECT GET_LOCK(%s, 0)", (name,))
            return bool(cursor.fetchone()[0])

    def translate(self, statement: str) -> str:
        return _translate(statement)

    def tables(self, connection: Any) -> set[str]:
        return self._names(
            connection,
            "SELECT table_name FROM information_schema.tables"
            " WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE'",
        )

    def columns(self, connection: Any, table: str) -> set[str]:
        return self._names(
            connection,
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_schema = DATABASE() AND table_name = ?",
            table,
        )

    def _names(self, connection: Any, statement: str, *parameters: object) -> set[str]:
        with connection.cursor() as cursor:
            txn = Transaction(cursor, self.translate)
            return {name for (name,) in txn.execute(statement, parameters).fetchall()}

    def is_done_already(self, error: Exception) -> bool:
        return _code(error) in _DONE_ALREADY

    def trouble(self, error: Exception) -> Trouble:
        code = _code(error)
        if code in _CONFLICTS:
            return Trouble.CONFLICT
        # What the driver finds wrong with the stream (InternalError without a code) is a lost one.
        return Trouble.AWAY if code in _AWAY else Trouble.FINAL

    def translated(self, error: Exception) -> NcpsError:
        code, says = _code(error), _says(error)
        if code in _REFUSED:
            return Refused(_REFUSED[code].format(where=self.where, says=says))
        if code in _FULL:
            return StorageFull(f"the database cannot be written: {says}")
        if code in _CORRUPT or isinstance(error, self._driver.err.DataError):
            return Corrupt(f"the database refuses these facts: {says}")
        if self.trouble(error) is Trouble.AWAY:
            return Unavailable(f"the database {self.where} does not answer: {says}", retry_after=5)
        return Unavailable(f"the database fails: {says}", retry_after=1.0, timed_out=code in _LATE)


def version_of(text: str) -> tuple[str, tuple[int, ...]]:
    """Which server it is and which version, from what it says: `5.5.5-10.11.6-MariaDB-0+deb12`."""
    kind = "MariaDB" if "mariadb" in text.lower() else "MySQL"
    text = text.removeprefix("5.5.5-") if kind == "MariaDB" else text
    return kind, tuple(map(int, re.findall(r"\d+", text)[:3]))


def _tls(options: dict[str, str]) -> dict[str, Any]:
    """Arguments of the driver for the TLS options. Refused if a file is not usable.

    Where certificates are named they are checked, unless `ssl-mode` says otherwise.
    """
    ca = options.get("ssl-ca")
    mode = options.get("ssl-mode", "PREFERRED" if ca is None else "VERIFY_IDENTITY").upper()
    if mode == "DISABLED":
        return {"ssl_disabled": True}
    if mode == "PREFERRED":
        return {}
    try:
        context = ssl.create_default_context(cafile=ca)
        if "ssl-cert" in options:
            context.load_cert_chain(options["ssl-cert"], options.get("ssl-key"))
    except OSError as error:
        raise Refused(
            f"cache-database-url: the certificates cannot be loaded: {one_line(error)}"
        ) from error
    context.check_hostname = mode == "VERIFY_IDENTITY"
    context.verify_mode = ssl.CERT_NONE if mode == "REQUIRED" else ssl.CERT_REQUIRED
    return {"ssl": context}


@lru_cache(maxsize=256)
def _translate(statement: str) -> str:
    statement = statement.replace("%", "%%").replace("?", "%s")
    # No INSERT IGNORE: it would also ignore values that do not fit.
    statement = statement.replace("ON CONFLICT DO NOTHING", "ON DUPLICATE KEY UPDATE id = id")
    statement = re.sub(r"ON CONFLICT \([^)]*\) DO UPDATE SET", "ON DUPLICATE KEY UPDATE", statement)
    return re.sub(r"\bexcluded\.(\w+)", r"VALUES(\1)", statement)


def _code(error: Exception) -> int:
    """Number of the error; 0 if it is not the server's but the driver's own."""
    code = error.args[0] if error.args else 0
    return code if isinstance(code, int) else 0


def _says(error: Exception) -> str:
    """What the server or the driver says, the number last."""
    if len(error.args) == 2:
        return f"{' '.join(str(error.args[1]).split())[:500]} ({error.args[0]})"
    return one_line(error)
