"""Parameters in the URLs of databases, for ncps and for the drivers.

A parameter that the driver knows goes to the driver, unless it would change something that ncps
needs. Such a parameter is refused, or ignored with a note if the Go program's driver accepts it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Final

from attrs import Factory, define

from ncps.settings.kinds.values import parse_duration

_OFF_OR_ON: Final = ("off", "on")
_FLAG: Final = ("0", "1")
_LIBPQ: Final[Mapping[str, tuple[str, ...]]] = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslrootcert": (),
    "sslcert": (),
    "sslkey": (),
    "sslpassword": (),
    "sslcrl": (),
    "sslcrldir": (),
    "sslcompression": _FLAG,
    "sslsni": _FLAG,
    "sslnegotiation": ("postgres", "direct"),
    "sslcertmode": ("disable", "allow", "require"),
    "ssl_min_protocol_version": (),
    "ssl_max_protocol_version": (),
    "channel_binding": ("disable", "prefer", "require"),
    "require_auth": (),
    "requirepeer": (),
    "gssencmode": ("disable", "prefer", "require"),
    "gssdelegation": _FLAG,
    "gsslib": (),
    "krbsrvname": (),
    "hostaddr": (),
    "passfile": (),
    "load_balance_hosts": ("disable", "random"),
    "target_session_attrs": ("any", "read-write", "primary"),
    "application_name": (),
    "fallback_application_name": (),
    "options": (),
}
_OPTIONS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "postgresql": {**_LIBPQ, "search_path": (), "prepare": _OFF_OR_ON},
    "mysql": {
        "ssl-mode": ("DISABLED", "PREFERRED", "REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"),
        "ssl-ca": (),
        "ssl-cert": (),
        "ssl-key": (),
    },
}
"""Parameters that the query may hold, with their allowed values if these are few."""

_SOCKETS: Final = {"postgresql": {"socket", "unix_socket"}, "mysql": {"socket", "unix_socket"}}
_PLACES: Final = {"host": "host", "port": "port", "user": "user", "password": "password"}
_TLS_OF_GO: Final = {
    "true": "VERIFY_IDENTITY",
    "false": "DISABLED",
    "skip-verify": "REQUIRED",
    "preferred": "PREFERRED",
}
_OF_GO: Final = {
    "mysql": {
        "parseTime",
        "loc",
        "charset",
        "collation",
        "multiStatements",
        "interpolateParams",
        "allowNativePasswords",
        "checkConnLiveness",
        "clientFoundRows",
        "columnsWithAlias",
        "connectionAttributes",
        "maxAllowedPacket",
        "rejectReadOnly",
    },
    "postgresql": {
        "default_query_exec_mode",
        "description_cache_capacity",
        "pool_health_check_period",
        "pool_max_conn_idle_time",
        "pool_max_conn_lifetime",
        "pool_max_conn_lifetime_jitter",
        "pool_max_conns",
        "pool_min_conns",
        "statement_cache_capacity",
    },
}
"""Parameters of the Go program's drivers; ncps ignores them, which changes nothing."""

_OVERRULED: Final[Mapping[str, Mapping[str, str]]] = {
    "postgresql": {
        "statement_timeout": "cache-database-statement-timeout says it",
        "lock_timeout": "cache-database-statement-timeout says it",
        "idle_in_transaction_session_timeout": "cache-database-statement-timeout says it",
        "keepalives": "connections are kept alive as this program needs it",
        "keepalives_idle": "connections are kept alive as this program needs it",
        "keepalives_interval": "connections are kept alive as this program needs it",
        "keepalives_count": "connections are kept alive as this program needs it",
        "tcp_user_timeout": "connections are kept alive as this program needs it",
        "client_encoding": "it is always UTF8",
        "timezone": "it is always UTC",
        "default_transaction_isolation": "each transaction says what it needs",
    },
    "mysql": {
        "readTimeout": "cache-database-statement-timeout says it",
        "writeTimeout": "cache-database-statement-timeout says it",
    },
}
"""Parameters ignored with a note, since ncps sets these things itself."""

_REFUSED: Final[Mapping[str, str]] = {
    "replication": "is for replication, and such a session cannot read tables",
    "service": "names a service: write host, port and user of it into the URL",
    "servicefile": "names services: write host, port and user of one into the URL",
}
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z_-]{0,39}", re.ASCII)


@define
class Parameters:
    """The contents of the query of a URL; a text that the query does not give is empty.

    :ivar socket: path of a socket.
    :ivar options: for the driver.
    :ivar connect_timeout_s: None if the URL does not give it, or gives 0, which means no limit
        there.
    :ivar notes: one line each, of parameters without effect.
    """

    socket: str = ""
    host: str = ""
    port: str = ""
    user: str = ""
    password: str = ""
    database: str = ""
    options: dict[str, str] = Factory(dict)
    connect_timeout_s: float | None = None
    notes: list[str] = Factory(list)


def shown_name(name: str, value: str) -> str:
    """Name an unknown parameter, unless it may be a secret instead of a name."""
    return f" {name!r}" if value and _NAME.fullmatch(name) else ""


def read_parameters(dialect: str, pairs: Iterable[tuple[str, str]]) -> Parameters:
    """Sort the parameters of a query. Raises ValueError, without a value, if one is wrong."""
    found = Parameters()
    for name, value in pairs:
        if not _read_place(dialect, found, name, value):
            _read_option(dialect, found, name, value)
    return found


def _read_place(dialect: str, found: Parameters, name: str, value: str) -> bool:
    """Store a parameter about the place of the database or our user; return whether it is one."""
    attribute = _PLACES.get(name, "")
    if name in _SOCKETS[dialect] or (name == "host" and value.startswith("/")):
        attribute = "socket"
    elif name == "dbname" and dialect == "postgresql":
        attribute = "database"
    if not attribute:
        return False
    if not value:
        raise ValueError(f"{name} should have a value")
    if getattr(found, attribute):
        raise ValueError(f"has more than one {attribute}")
    setattr(found, attribute, value)
    return True


def _read_option(dialect: str, found: Parameters, name: str, value: str) -> None:
    if name == ("timeout" if dialect == "mysql" else "connect_timeout"):
        found.connect_timeout_s = _seconds(dialect, name, value)
    elif name == "default_query_exec_mode" and dialect == "postgresql":
        # A site behind PgBouncer gives this to the Go program.
        if value in {"exec", "simple_protocol", "describe_exec", "cache_describe"}:
            found.options["prepare"] = "off"
    elif name == "tls" and dialect == "mysql":
        if value not in _TLS_OF_GO:
            raise ValueError(f"tls should be one of {', '.join(_TLS_OF_GO)}")
        found.options["ssl-mode"] = _TLS_OF_GO[value]
    elif why := _OVERRULED[dialect].get(name if dialect == "mysql" else name.lower()):
        found.notes.append(f"its parameter {name} has no effect: {why}")
    elif name in _REFUSED and dialect == "postgresql":
        raise ValueError(f"has the parameter {name}, which {_REFUSED[name]}")
    elif name not in _OF_GO[dialect]:
        spelled = _option(dialect, name, value)
        found.options[spelled] = _value(_OPTIONS[dialect][spelled], spelled, value)


def _seconds(dialect: str, name: str, value: str) -> float | None:
    """Read a connect timeout: whole seconds for PostgreSQL, a duration of Go for MySQL."""
    if dialect == "mysql":
        try:
            return parse_duration(value) or None
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None
    if not re.fullmatch(r"\d{1,6}", value, re.ASCII):
        raise ValueError(f"{name} should be a number of seconds, such as 10")
    return float(value) or None


def _option(dialect: str, name: str, value: str) -> str:
    known = _OPTIONS[dialect]
    spelled = name if name in known else name.replace("_", "-")
    if spelled not in known:
        close = difflib.get_close_matches(name[:64], known, n=1)
        hint = f": did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"
        raise ValueError(f"has an unknown parameter{shown_name(name, value)}{hint}")
    return spelled


def _value(allowed_words: tuple[str, ...], name: str, value: str) -> str:
    allowed = {choice.lower(): choice for choice in allowed_words}
    if allowed and value.lower() not in allowed:
        raise ValueError(f"{name} should be one of {', '.join(allowed_words)}")
    if not value:
        raise ValueError(f"{name} should have a value")
    return allowed.get(value.lower(), value)
