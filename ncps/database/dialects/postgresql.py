"""PostgreSQL 12 and newer, through psycopg 3."""

from __future__ import annotations

import importlib
import re
from functools import lru_cache
from typing import Any, Final

from ncps.aio.imports import how_to_install
from ncps.database.dialects.base import Trouble, one_line
from ncps.database.dialects.server import GRACE_S, DatabaseServer, ServerDialect
from ncps.errors import Refused

OLDEST: Final = 12
MIGRATION_LOCK: Final = 0x6E637073
"""Key of the advisory lock; "ncps" in ASCII."""

_OURS = {"application_name", "search_path", "prepare", "options"}
"""Options that libpq does not get as they are."""

_CONFLICTS = frozenset({"40001", "40P01", "55P03"})
# The server ends or starts, has cut the connection, or has no room for another one.
_AWAY = frozenset({"57P01", "57P02", "57P03", "57P05", "53300", "25P03"})
# No room on the disk; a standby.
_FULL = frozenset({"53100", "25006"})
_REFUSED = {
    "28P01": "{where} does not accept the password: check cache-database-url or the password file",
    "28000": "{where} refuses this user: {says}",
    "3D000": "there is no database {where}: create it, or correct cache-database-url",
    "42501": "the user may not do this in {where}: {says}; grant it, or run `ncps migrate up`"
    " as a user that may",
    "TLS": "{where} and ncps do not agree on TLS: {says}; correct the options in"
    " cache-database-url",
    "42P01": "tables are missing in {where}: {says}; run `ncps migrate up`",
    "42703": "columns are missing in {where}: {says}; run `ncps migrate up`",
}
_CODES_OF_TEXTS = (
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
"""Messages about refused connections, for which libpq gives no code."""


class PostgreSQL(ServerDialect):
    """The dialect of PostgreSQL, through psycopg.

    Outside a transaction each statement commits itself. The isolation is READ COMMITTED, whatever
    the configuration of the server says.
    """

    name = "postgresql"
    has_transactional_ddl = True
    begin_read = ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",)
    begin_write = ("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",)
    begin_migration = begin_write
    schema = "current_schema()"
    full = _FULL
    late = frozenset({"57014"})
    refused = _REFUSED

    def __init__(self, server: DatabaseServer) -> None:
        """Load the driver. Raises Refused if it is not installed."""
        try:
            driver = importlib.import_module("psycopg")
        except ImportError as error:
            raise Refused(
                "PostgreSQL needs the package psycopg, which is not installed or lacks libpq:"
                f" {how_to_install('psycopg[binary]')} ({one_line(error)})"
            ) from error
        super().__init__(server, driver)

    def connect(self) -> Any:
        connection = self._driver.connect(**self._arguments())
        version = connection.info.server_version // 10000
        if version < OLDEST:
            connection.close()
            raise Refused(
                f"the server of {self.where} is PostgreSQL {version}; {OLDEST} or newer is needed"
            )
        return connection

    def _arguments(self) -> dict[str, Any]:
        server = self._server
        options = server.options
        milliseconds = round(server.statement_timeout_s * 1000)
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
        if len(places) > 1:  # one of them may be a read-only standby
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
            # The connection to a dead machine fails after 25 s.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": round((server.statement_timeout_s + GRACE_S) * 1000),
            **{name: value for name, value in options.items() if name not in _OURS},
        }
        if options.get("prepare") == "off":
            arguments["prepare_threshold"] = None
        return arguments

    def file_number(self, connection: Any) -> int:
        number: int = connection.fileno()
        return number

    def _prepare_migration(self, connection: Any) -> None:
        # An index of a large table may take long; a lock of another session must not.
        connection.execute("SET statement_timeout = 0")
        connection.execute("SET lock_timeout = '30s'")

    def _try_lock(self, connection: Any) -> bool:
        found = connection.execute("SELECT pg_try_advisory_lock(%s)", (MIGRATION_LOCK,)).fetchone()
        return bool(found[0])

    def translate(self, statement: str) -> str:
        return _translate(statement)

    def trouble(self, error: Exception) -> Trouble:
        code = self._code(error)
        if code in _CONFLICTS:
            return Trouble.CONFLICT
        if code in _AWAY or code.startswith("08"):
            return Trouble.AWAY
        # Without a code the error is libpq's: the connection broke, or could not be made.
        lost = (self._driver.OperationalError, self._driver.InterfaceError)
        return Trouble.AWAY if not code and isinstance(error, lost) else Trouble.FINAL

    def _is_corrupt(self, error: Exception) -> bool:
        return self._code(error)[:2] in {"22", "23"} or isinstance(error, self._driver.DataError)

    def _says(self, error: Exception) -> str:
        return one_line(error).partition(" Is the server running")[0]

    def _code(self, error: Exception) -> str:
        """Return SQLSTATE, also for a refused connection; empty if there is none."""
        code: str | None = getattr(error, "sqlstate", None)
        if code is not None:
            return code
        if not isinstance(error, self._driver.OperationalError):
            return ""
        text = str(error)
        return next((code for pattern, code in _CODES_OF_TEXTS if re.search(pattern, text)), "")


@lru_cache(maxsize=256)
def _translate(statement: str) -> str:
    return statement.replace("%", "%%").replace("?", "%s")
