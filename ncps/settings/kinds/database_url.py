"""The kind of value that names a database."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from attrs import field, frozen

from ncps.settings.kinds.database_parameters import Parameters, read_parameters
from ncps.settings.kinds.values import parse_path
from ncps.settings.setting import Kind

_DIALECTS: Final = {
    "sqlite": "sqlite",
    "sqlite3": "sqlite",
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
}
_PORTS: Final = {"mysql": 3306}
"""Default ports; libpq has its own for PostgreSQL."""
_HOST: Final = re.compile(r"[A-Za-z0-9_.-]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.%\w-]*", re.ASCII)
_EXAMPLES: Final = (
    "sqlite:/var/lib/ncps/db/db.sqlite, postgresql://user@host/database or"
    " mysql://user@host/database"
)

_LARGEST_PORT: Final = 65535
_NO_PLACE: Final = (
    "has an invalid host or port; in a password, write / # and other characters with a meaning in "
    "URLs as %XX"
)
_SECRET_OPTIONS: Final = {"sslpassword"}
_PLACE: Final = re.compile(
    r"(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>\d{0,5}))?", re.ASCII
)


def _frozen(options: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(options))


@frozen(kw_only=True)
class DatabaseURL:
    """The place of a database.

    :param dialect: `sqlite`, `postgresql` or `mysql`.
    :param path: of SQLite: absolute path of the file.
    :param host: of a server; empty if it is reached by `socket`, or if the URL names none, which
        for PostgreSQL means, as for libpq, a server of this machine.
    :param port: 0 if the URL names none for a server of PostgreSQL, also in `others`.
    :param others: further hosts and ports, asked in turn; PostgreSQL.
    :param socket: PostgreSQL: directory of the socket; MySQL: the socket; empty for TCP.
    :param user: empty for the name of the user of the operating system.
    :param database: name of the database on the server.
    :param options: of TLS and the session, by name; secret ones are in `hidden`.
    :param connect_timeout_s: the value in the URL; None if there is none.
    :param notes: for people: parameters in the URL without effect, one line each.
    """

    dialect: str
    path: Path = Path()
    host: str = ""
    port: int = 0
    others: tuple[tuple[str, int], ...] = ()
    socket: str = ""
    user: str = ""
    password: str | None = field(default=None, repr=False)
    database: str = ""
    options: Mapping[str, str] = field(factory=dict, converter=_frozen, hash=False)
    hidden: Mapping[str, str] = field(factory=dict, converter=_frozen, hash=False, repr=False)
    connect_timeout_s: float | None = field(default=None, eq=False)
    notes: tuple[str, ...] = field(default=(), eq=False)

    @property
    def places(self) -> tuple[tuple[str, int], ...]:
        """Host and port of every server that may be asked."""
        return ((self.host, self.port), *self.others)

    @property
    def is_file(self) -> bool:
        """Whether the database is a file of this machine, for it alone."""
        return self.dialect == "sqlite"

    def __str__(self) -> str:
        """Return the URL without the password."""
        if self.is_file:
            return f"{self.dialect}:{self.path}"
        places = ",".join(_written(host, port) for host, port in self.places)
        # Sockets of PostgreSQL have the port in their names.
        unsaid = {0, _PORTS.get(self.dialect, 0)}
        place = places if self.host or self.port not in unsaid else ""
        pairs = ([("host", self.socket)] if self.socket else []) + sorted(self.options.items())
        query = "&".join(f"{name}={quote(value, safe='/')}" for name, value in pairs)
        user = f"{quote(self.user, safe='')}@" if self.user else ""
        address = f"{self.dialect}://{user}{place}/{quote(self.database, safe='')}"
        return f"{address}?{query}" if query else address


def parse_database_url(text: str) -> DatabaseURL:
    """Read the URL of a database of any dialect; see `docs/databases.md`."""
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


def _written(host: str, port: int) -> str:
    return (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")


def _parse_server(dialect: str, rest: str, *, is_socket: bool) -> DatabaseURL:
    if not rest.startswith("//"):
        rest = "//" + rest if rest.startswith("/") else f"///{rest}"
    try:
        parts = urlsplit(f"{dialect}:{rest}")
    except ValueError:
        raise ValueError(_NO_PLACE) from None
    if parts.fragment:
        raise ValueError("should have no fragment; write # in a password as %23")
    userinfo, _, authority = parts.netloc.rpartition("@")
    user, colon, password = userinfo.partition(":")
    said = read_parameters(dialect, parse_qsl(parts.query, keep_blank_values=True))
    socket, places = _places(authority, said)
    path = unquote(parts.path)
    if is_socket:
        if places[0][0] or socket:
            raise ValueError(f"should be like {dialect}+unix:///directory/database, without host")
        socket, _, name = path.rpartition("/")
    else:
        name = path.removeprefix("/")
    name = _one("database", name, said.database)
    _check_place(dialect, [host for host, _ in places], socket, name)
    return DatabaseURL(
        dialect=dialect,
        socket=socket,
        user=_one("user", unquote(user), said.user),
        password=_one("password", unquote(password), said.password) or ("" if colon else None),
        database=name,
        options={k: v for k, v in said.options.items() if k not in _SECRET_OPTIONS},
        hidden={k: v for k, v in said.options.items() if k in _SECRET_OPTIONS},
        connect_timeout_s=said.connect_timeout_s,
        notes=tuple(said.notes),
        **_usual(dialect, socket, places),
    )


def _one(what: str, in_front: str, in_query: str) -> str:
    """Return a text that a URL gives before or in its query. Raises ValueError if both differ."""
    if in_front and in_query and in_front != in_query:
        raise ValueError(f"has more than one {what}")
    return in_front or in_query


def _places(authority: str, said: Parameters) -> tuple[str, list[tuple[str, int]]]:
    """Return the path of the socket, or an empty text, and hosts with ports, 0 for no port."""
    if authority and said.host:
        raise ValueError("has more than one host")
    socket = said.socket
    hosts: list[str] = []
    ports: list[int] = []
    for text in (said.host or authority).split(","):
        match = _PLACE.fullmatch(text)
        if match is None or int(match["port"] or 0) > _LARGEST_PORT:
            raise ValueError(_NO_PLACE)
        host = unquote(match["ipv6"] or match["host"] or "")
        if host.startswith("/"):  # as libpq writes the directory of a socket
            socket, host = _one("socket", host, socket), ""
        hosts.append(host.lower())
        ports.append(int(match["port"] or 0))
    if said.port:
        given = said.port.split(",")
        if any(ports) or len(given) not in {1, len(ports)}:
            raise ValueError("should have one port for each host")
        ports = [_port(given[at % len(given)]) for at in range(len(ports))]
    return socket, list(zip(hosts, ports, strict=True))


def _port(text: str) -> int:
    if not re.fullmatch(r"\d{1,5}", text, re.ASCII) or int(text) > _LARGEST_PORT:
        raise ValueError("port should be a number up to 65535")
    return int(text)


def _usual(dialect: str, socket: str, places: list[tuple[str, int]]) -> dict[str, Any]:
    """Return hosts and ports, with the defaults filled in."""
    (host, port), *others = places
    if dialect == "mysql" and not socket:
        host = host or "localhost"
    return {"host": host, "port": port or _PORTS.get(dialect, 0), "others": tuple(others)}


def _check_place(dialect: str, hosts: list[str], socket: str, name: str) -> None:
    if any(hosts) and socket:
        raise ValueError("should have either a host or a socket")
    if len(hosts) > 1 and (dialect == "mysql" or not all(hosts)):
        raise ValueError("should name one host, as in //user@host:port/database")
    if any(host and _HOST.fullmatch(host) is None for host in hosts):
        raise ValueError("should name one host, as in //user@host:port/database")
    if socket and not socket.startswith("/"):
        raise ValueError("should have the socket as an absolute path")
    if not name or "/" in name:
        raise ValueError(f"should name one database, as in {dialect}://user@host/database")


DATABASE_URL = Kind(metavar="URL", expected="a database URL", parse=parse_database_url, show=str)
