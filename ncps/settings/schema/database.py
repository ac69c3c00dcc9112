"""Settings of database servers; SQLite needs none of them."""

from __future__ import annotations

from attrs import frozen

from ncps.settings.declare import branch, setting
from ncps.settings.kinds.values import TEXT, duration, integer


@frozen(kw_only=True)
class DatabasePoolSettings:
    """The number of connections to a database server."""

    max_open_conns: int = setting(
        integer(at_most=1000),
        "0",
        "Connections to the database server, at most, each with a thread, for all workers "
        "together; 0 for 10 per worker. All replicas together must stay below the limit of the "
        "server.",
        shared=True,
    )
    max_idle_conns: int = setting(
        integer(at_most=1000),
        "0",
        "Connections to the database server that stay open while they are idle; 0 for all of them.",
        shared=True,
    )


@frozen(kw_only=True)
class DatabaseSettings:
    """The password, the connections and the timeouts of a database server.

    :ivar password: empty where the URL has it or none is needed.
    """

    password: str = setting(
        TEXT,
        "",
        "Password of the database user, if it is not in the URL.",
        is_secret=True,
    )
    pool: DatabasePoolSettings = branch(DatabasePoolSettings)
    connect_timeout_s: float = setting(
        duration(at_least_s=1.0),
        "5s",
        "Time to connect to the database server.",
    )
    statement_timeout_s: float = setting(
        duration(at_least_s=1.0),
        "10s",
        "Time for one statement on the database server, including waits for locks. Schema "
        "migrations may take longer.",
    )
