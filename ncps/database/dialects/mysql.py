"""MySQL 8.0.16 and MariaDB 10.11 and newer, through PyMySQL."""

from __future__ import annotations

import hashlib
import importlib
import re
import ssl
from functools import lru_cache
from typing import Any, Final

from ncps.aio.imports import how_to_install
from ncps.database.dialects.base import Trouble, one_line
from ncps.database.dialects.server import GRACE_S, DatabaseServer, ServerDialect
from ncps.errors import Refused

OLDEST: Final = {"MySQL": (8, 0, 16), "MariaDB": (10, 11, 0)}

# Deadlock, lock wait timeout, a row that changed under a snapshot.
_CONFLICTS = frozenset({1213, 1205, 1020})
# Cannot connect, gone, lost, shutting down, killed, no room for another connection (of this user).
_AWAY = frozenset(
    {0, 1040, 1053, 1077, 1079, 1080, 1129, 1152, 1158, 1159, 1160, 1161, 1203, 1226, 1927}
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
_NOT_NOW = (
    "{where} does not let the user in: {says}; unlock the account, or renew its password there"
)
_NO_METHOD = (
    "{where} wants a login method that ncps does not have: {says}; let the user log in by"
    " caching_sha2_password, ed25519 or mysql_native_password"
)
_NO_AGREEMENT = (
    "{where} and ncps do not agree on TLS: {says}; correct the options in cache-database-url"
)
_REFUSED = {
    1045: _NOT_LET_IN,
    1698: _NOT_LET_IN,
    1130: "{where} is not open to this machine: {says}; allow its address there",
    1820: _NOT_NOW,
    1862: _NOT_NOW,
    3118: _NOT_NOW,
    4151: _NOT_NOW,
    1251: _NO_METHOD,
    1524: _NO_METHOD,
    2059: _NO_METHOD,
    1044: "the user may not use {where}: {says}; grant it, or correct cache-database-url",
    1049: "there is no database {where}: create it, or correct cache-database-url",
    1142: "the user may not do this in {where}: {says}; grant it, or run `ncps migrate up` as a"
    " user that may",
    1143: "the user may not do this in {where}: {says}",
    1227: "the user may not do this in {where}: {says}",
    1370: "the user may not do this in {where}: {says}",
    2026: _NO_AGREEMENT,
    3159: _NO_AGREEMENT,
    1054: "columns are missing in {where}: {says}; run `ncps migrate up`",
    1146: "tables are missing in {where}: {says}; run `ncps migrate up`",
}


BORROWED: Final = ("pymysql.connections.Connection._sock",)
"""Private names of the library that this module uses; see `tests/structure/test_borrowed.py`."""


class MySQL(ServerDialect):
    """The dialect of MySQL and MariaDB, through PyMySQL.

    Outside a transaction each statement commits itself. Sessions see all commits of others (READ
    COMMITTED) and refuse invalid values, whatever the configuration of the server says.
    """

    name = "mysql"
    has_transactional_ddl = False
    begin_read = (
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    )
    begin_write = ("START TRANSACTION READ WRITE",)
    begin_migration = ()
    schema = "DATABASE()"
    full = _FULL
    late = _LATE
    refused = _REFUSED

    def __init__(self, server: DatabaseServer) -> None:
        """Load the driver. Raises Refused if it is not installed, or a TLS file is unusable."""
        try:
            driver = importlib.import_module("pymysql")
        except ImportError as error:
            raise Refused(
                "MySQL and MariaDB need the package PyMySQL, which is not installed:"
                f" {how_to_install('PyMySQL')}"
            ) from error
        super().__init__(server, driver)
        self._tls = _tls(server.options)

    def connect(self) -> Any:
        server = self._server
        timeout_s = server.statement_timeout_s + GRACE_S
        connection = self._driver.connect(
            host=server.host or None,
            port=server.port,
            unix_socket=server.socket or None,
            user=server.user or None,
            # As bytes: the driver would encode text as latin1.
            password=(server.password or "").encode(),
            database=server.database,
            charset="utf8mb4",
            collation="utf8mb4_bin",
            autocommit=True,
            client_flag=self._driver.constants.CLIENT.FOUND_ROWS,
            connect_timeout=server.connect_timeout_s,
            read_timeout=timeout_s,
            write_timeout=timeout_s,
            **({"ssl_disabled": True} if server.socket else self._tls),
        )
        try:
            self._set_up(connection, server.statement_timeout_s)
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
        # The driver has no public method for it.
        number: int = connection._sock.fileno()
        return number

    def _try_lock(self, connection: Any) -> bool:
        # A lock is valid on the whole server; its name has at most 64 characters.
        name = f"ncps {hashlib.sha256(self._server.database.encode()).hexdigest()[:32]}"
        with connection.cursor() as cursor:
            cursor.execute("SELECT GET_LOCK(%s, 0)", (name,))
            return bool(cursor.fetchone()[0])

    def translate(self, statement: str) -> str:
        return _translate(statement)

    def is_done_already(self, error: Exception) -> bool:
        return self._code(error) in _DONE_ALREADY

    def trouble(self, error: Exception) -> Trouble:
        code = self._code(error)
        if code in _CONFLICTS:
            return Trouble.CONFLICT
        # An InternalError without a code is the driver's, about the stream: _AWAY contains 0.
        return Trouble.AWAY if code in _AWAY else Trouble.FINAL

    def _code(self, error: Exception) -> int:
        """Return the number of a server's error; 0 for an error of the driver itself."""
        code = error.args[0] if error.args else 0
        return code if isinstance(code, int) else 0

    def _is_corrupt(self, error: Exception) -> bool:
        return self._code(error) in _CORRUPT or isinstance(error, self._driver.err.DataError)

    def _says(self, error: Exception) -> str:
        """Return the message of the server or the driver, with the number at the end."""
        if len(error.args) == 2:
            return f"{' '.join(str(error.args[1]).split())[:500]} ({error.args[0]})"
        return one_line(error)


def version_of(text: str) -> tuple[str, tuple[int, ...]]:
    """Read kind and version of a server from its own text: `5.5.5-10.11.6-MariaDB-0+deb12`."""
    kind = "MariaDB" if "mariadb" in text.lower() else "MySQL"
    text = text.removeprefix("5.5.5-") if kind == "MariaDB" else text
    return kind, tuple(map(int, re.findall(r"\d+", text)[:3]))


def _tls(options: dict[str, str]) -> dict[str, Any]:
    """Return the driver's arguments for the TLS options. Raises Refused if a file is unusable.

    With a CA, certificates are checked, unless `ssl-mode` says otherwise.
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
    # No INSERT IGNORE: it would also ignore invalid values.
    statement = statement.replace("ON CONFLICT DO NOTHING", "ON DUPLICATE KEY UPDATE id = id")
    statement = re.sub(r"ON CONFLICT \([^)]*\) DO UPDATE SET", "ON DUPLICATE KEY UPDATE", statement)
    return re.sub(r"\bexcluded\.(\w+)", r"VALUES(\1)", statement)
