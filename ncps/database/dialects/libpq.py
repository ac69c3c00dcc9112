"""The default address of a PostgreSQL server, by the rules of libpq.

One difference: if there is neither a socket nor a directory for one, the address is localhost.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from attrs import evolve

from ncps.database.dialects.server import DatabaseServer

PORT = 5432
DIRECTORIES = ("/run/postgresql", "/var/run/postgresql")
"""The directories of the server's socket in distributions."""
LAST_DIRECTORY = "/tmp"  # noqa: S108 - PostgreSQL's own default
LOCALHOST = "localhost"


def completed(
    server: DatabaseServer,
    environ: Mapping[str, str],
    exists: Callable[[str], bool] = os.path.exists,
) -> DatabaseServer:
    """Return the server with host and port; libpq itself finds user and password.

    :param environ: the variables, such as PGHOST and PGPORT.
    """
    usual = _usual_port(environ)
    others = tuple((host, port or usual) for host, port in server.others)
    server = evolve(server, port=server.port or usual, others=others)
    if server.host or server.socket:
        return server
    place = environ.get("PGHOST", "") or _place_here(server.port, exists)
    if place.startswith("/"):
        return evolve(server, socket=place)
    first, *further = place.split(",")
    return evolve(server, host=first, others=tuple((host, server.port) for host in further))


def _usual_port(environ: Mapping[str, str]) -> int:
    text = environ.get("PGPORT", "")
    return int(text) if text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65536 else PORT


def _place_here(port: int, exists: Callable[[str], bool]) -> str:
    """Return the directory of the socket of a local server, which may not run yet, or a host."""
    for directory in (*DIRECTORIES, LAST_DIRECTORY):
        if exists(f"{directory}/.s.PGSQL.{port}"):
            return directory
    return next(filter(exists, DIRECTORIES), LOCALHOST)
