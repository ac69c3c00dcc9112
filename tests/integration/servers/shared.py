"""One server of each kind per test process, started when a test first needs it.

A test that ends one of them starts it again.
"""

from __future__ import annotations

import atexit
from functools import cache
from typing import TypeVar

from tests.integration.servers.mariadb import MariaDB
from tests.integration.servers.mysql import MySQL
from tests.integration.servers.postgresql import PostgreSQL
from tests.integration.servers.radosgw import RadosGW
from tests.integration.servers.redis import Redis

S = TypeVar("S", PostgreSQL, MariaDB, MySQL, RadosGW, Redis)


def kept(server: S) -> S:
    """Start a server that runs until the test process ends."""
    atexit.register(server.close)
    server.start()
    return server


@cache
def postgresql() -> PostgreSQL:
    """Return the PostgreSQL that tests share, each with a database of its own."""
    return kept(PostgreSQL())


@cache
def mariadb() -> MariaDB:
    """Return the MariaDB that tests share, each with a database of its own."""
    return kept(MariaDB())


@cache
def mysql() -> MySQL:
    """Return the MySQL that tests share, each with a database of its own."""
    return kept(MySQL())


@cache
def radosgw() -> RadosGW:
    """Return the S3 server that tests share, each with a bucket of its own."""
    return kept(RadosGW())


@cache
def redis() -> Redis:
    """Return the Redis that tests share, each with a key prefix of its own."""
    return kept(Redis())


@cache
def redis_servers() -> tuple[Redis, Redis, Redis]:
    """Return three independent servers that tests share, each with a key prefix of its own."""
    return (redis(), kept(Redis()), kept(Redis()))
