"""One server of each kind per test process, started when first asked for."""

from __future__ import annotations

import atexit
from functools import cache
from typing import TypeVar

from tests.integration.servers.mariadb import MariaDB
from tests.integration.servers.postgresql import PostgreSQL
from tests.integration.servers.radosgw import RadosGW
from tests.integration.servers.redis import Redis

S = TypeVar("S", PostgreSQL, MariaDB, RadosGW, Redis)


def kept(server: S) -> S:
    """Start a server that runs until the test process ends."""
    atexit.register(server.close)
    server.start()
    return server


@cache
def postgresql() -> PostgreSQL:
    """The PostgreSQL that tests share, each with a database of its own; not to be stopped."""
    return kept(PostgreSQL())


@cache
def mariadb() -> MariaDB:
    """The MariaDB that tests share, each with a database of its own; not to be stopped."""
    return kept(MariaDB())


@cache
def radosgw() -> RadosGW:
    """The S3 server that tests share, each with a bucket of its own; not to be stopped."""
    return kept(RadosGW())


@cache
def redis() -> Redis:
    """The Redis that tests share, each with a key prefix of its own; not to be stopped."""
    return kept(Redis())
