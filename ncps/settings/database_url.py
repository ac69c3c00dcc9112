"""The kind of value that names a database."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from attrs import field, frozen

from ncps.settings.setting import Kind
from ncps.settings.values import parse_path

_DIALECTS: Final = {
    "sqlite": "sqlite",
    "sqlite3": "sqlite",
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
}
_PORTS: Final = {"postgresql": 5432, "mysql": 3306}
_HOST: Final = re.compile(r"[A-Za-z0-9_.-]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.%\w-]*", re.ASCII)
_EXAMPLES: Final = (
    "sqlite:/var/lib/ncps/db/db.sqlite, postgresql://user@host/database or"
    " mysql://user@host/database"
)

_OFF_OR_ON: Final = ("off", "on")
_OPTIONS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "postgresql": {
        "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
        "sslrootcert": (),
        "sslcert": (),
        "sslkey": (),
        "sslcrl": (),
        "channel_binding": ("disable", "prefer", "require"),
        "application_name": (),
        "search_path": (),
        "prepare": _OFF_OR_ON,
    },
    "mysql": {
        "ssl-mode": ("DISABLED", "PREFERRED", "REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"),
        "ssl-ca": (),
        "ssl-cert": (),
        "ssl-key": (),
    },
}
"""What may stand in the query, with the values that are allowed where they are few."""

_SOCKETS: Final = {"host", "socket", "unix_socket"}
_TLS_OF_GO: Final = {
    "true": "VERIFY_IDENTITY",
    "false": "DISABLED",
    "skip-verify": "REQUIRED",
    "preferred": "PREFERRED",
}
_OF_GO: Final = {
    "mysql": {"parseTime", "loc", "charset", "collation", "multiStatements", "interpolateParams"},
    "postgresql": {"default_query_exec_mode", "statement_cache_capacity", "pool_max_conns"},
}
"""Known to the drivers of the Go program; what they ask for goes without saying here."""


def _frozen(options: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(options))


@frozen(kw_only=True)
class DatabaseURL:
    """Which database.

    :param dialect: `sqlite`, `postgresql` or `mysql`.
    :param path: of SQLite: absolute path of the file.
    :param host: of a server; empty if it is reached by `socket`.
    :param socket: PostgreSQL: directory of the socket; MySQL: the socket; empty for TCP.
    :param user: empty for the name of the user of the operating system.
    :param database: name of the database on the server.
    :param options: of TLS and the session, by name.
    """

    dialect: str
    path: Path = Path()
    host: str = ""
    port: int = 0
    socket: str = ""
    user: str = ""
    password: str | None = field(default=None, repr=False)
    database: str = ""
    options: Mapping[str, str] = field(factory=dict, converter=_frozen, hash=False)

    @property
    def is_file(self) -> bool:
        """Whether the database is a file of this machine, for it alone."""
        return self.dialect == "sqlite"

    def __str__(self) -> str:
        """The URL without the password."""
        if self.is_file:
            return f"{self.dialect}:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        # Sockets of PostgreSQL bear the port in their names.
        has_port = not self.socket or self.port != _PORTS[self.dialect]
        place = f"{host}:{self.port}" if has_port else ""
        pairs = ([("host", self.socket)] if self.socket else []) + sorted(self.options.items())
        query = "&".join(f"{name}={quote(value, safe='/')}" for name, value in pairs)
        user = f"{quote(self.user, safe='')}@" if self.user else ""
        address = f"{self.dialect}://{user}{place}/{quote(self.database, safe='')}"
        return f"{address}?{query}" if query else address


def parse_database_url(text: str) -> DatabaseURL:
    """Read the URL of a database of any dialect; see `docs/operations.md`."""
    scheme, colon, rest = text.partition(":")
    base, _, transport = scheme.lower().partition("+")
    dialect = _DIALECTS.get(base) if colon else None
    if dialect is None:
        close = difflib.get_close_matches(base[:32], _DIALECTS, n=1) if colon else []
        hint = f": did you mean {close[0]}:?" if close else ""
        raise ValueError(f"should be like {_EXAMPLES}{hint}")
    if transport not in ({""} if dialect == "sqlite" else {"", "unix", "tcp"}):
        raise ValueError(f"should be like {_EXAMPLES}")
    if dialect == "sqlite":
        return _parse_file(rest)
    if not text.isprintable() or " " in text:
        raise ValueError("holds spaces or characters that cannot be printed; write them as %XX")
    return _parse_server(dialect, rest, is_socket=transport == "unix")


def _parse_file(rest: str) -> DatabaseURL:
    if rest.startswith("//"):
        rest = rest[2:]
        if rest and not rest.startswith("/"):
            raise ValueError("should have no host: write sqlite:/path or sqlite:///path")
    if "?" in rest:
        raise ValueError("should have no parameters after the path")
    if rest in {"", "/"} or rest.endswith(":memory:"):
        raise ValueError("should name a file, like sqlite:/var/lib/ncps/db/db.sqlite")
    return DatabaseURL(dialect="sqlite", path=parse_path(rest))


def _parse_server(dialect: str, rest: str, *, is_socket: bool) -> DatabaseURL:
    if not rest.startswith("//"):
        rest = "//" + rest if rest.startswith("/") else f"///{rest}"
    try:
        parts = urlsplit(f"{dialect}:{rest}")
        port = parts.port
    except ValueError:
        raise ValueError(
            "has a host or port that makes no sense; are characters of the password that mean"
            " something in URLs, such as / and #, written as %XX?"
        ) from None
    if parts.fragment:
        raise ValueError("should have no fragment; write # in a password as %23")
    socket, options = _parse_query(dialect, parts.query)
    path = unquote(parts.path)
    host = unquote(parts.hostname or "")
    if is_socket:
        if host or socket:
            raise ValueError(f"should be like {dialect}+unix:///directory/database, without host")
        socket, _, name = path.rpartition("/")
    else:
        name = path.removeprefix("/")
    _check_place(dialect, host, socket, name)
    return DatabaseURL(
        dialect=dialect,
        host="" if socket else host or "localhost",
        port=port or _PORTS[dialect],
        socket=socket,
        user=unquote(parts.username or ""),
        password=None if parts.password is None else unquote(parts.password),
        database=name,
        options=options,
    )


def _check_place(dialect: str, host: str, socket: str, name: str) -> None:
    if host and socket:
        raise ValueError("should have either a host or a socket")
    if host and _HOST.fullmatch(host) is None:
        raise ValueError("should name one host, as in //user@host:port/database")
    if socket and not socket.startswith("/"):
        raise ValueError("should have the socket as an absolute path")
    if not name or "/" in name:
        raise ValueError(f"should name one database, as in {dialect}://user@host/database")


def _parse_query(dialect: str, query: str) -> tuple[str, dict[str, str]]:
    """The path of a socket, if there is one, and the options."""
    socket, options = "", dict[str, str]()
    known = _OPTIONS[dialect]
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in _SOCKETS:
            if socket:
                raise ValueError("has more than one socket")
            socket = value
        elif name == "default_query_exec_mode" and dialect == "postgresql":
            # What a site behind PgBouncer tells the Go program.
            if value in {"exec", "simple_protocol", "describe_exec", "cache_describe"}:
                options["prepare"] = "off"
        elif name == "tls" and dialect == "mysql":
            if value not in _TLS_OF_GO:
                raise ValueError(f"tls should be one of {', '.join(_TLS_OF_GO)}")
            options["ssl-mode"] = _TLS_OF_GO[value]
        elif name in _OF_GO[dialect]:
            continue
        else:
            options[_option(known, name)] = _value(known, name, value)
    return socket, options


def _option(known: Mapping[str, tuple[str, ...]], name: str) -> str:
    spelled = name if name in known else name.replace("_", "-")
    if spelled not in known:
        close = difflib.get_close_matches(name[:64], known, n=1)
        hint = f": did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"
        raise ValueError(f"has an unknown parameter {name[:64]!r}{hint}")
    return spelled


def _value(known: Mapping[str, tuple[str, ...]], name: str, value: str) -> str:
    spelled = _option(known, name)
    allowed = {choice.lower(): choice for choice in known[spelled]}
    if allowed and value.lower() not in allowed:
        raise ValueError(f"{spelled} should be one of {', '.join(known[spelled])}")
    if not value:
        raise ValueError(f"{spelled} should have a value")
    return allowed.get(value.lower(), value)


DATABASE_URL = Kind(metavar="URL", expected="a database URL", parse=parse_database_url, show=str)
