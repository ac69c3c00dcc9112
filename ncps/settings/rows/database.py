"""Settings of databases on servers; a file needs none of them."""

from __future__ import annotations

from ncps.settings.setting import Setting
from ncps.settings.values import TEXT, duration, integer

GROUP = "Database server"

ROWS = (
    Setting(
        flag="cache-database-password",
        key="cache.database.password",
        kind=TEXT,
        default="",
        is_secret=True,
        group=GROUP,
        help="Password of the database user, if it does not stand in the URL.",
    ),
    Setting(
        flag="cache-database-pool-max-open-conns",
        key="cache.database.pool.max-open-conns",
        kind=integer(at_most=1000),
        default="0",
        group=GROUP,
        help="Connections to the database server at most, each with a thread, for all workers "
        "together; 0 for 10 of each worker. All replicas together must stay below what the server "
        "takes.",
    ),
    Setting(
        flag="cache-database-pool-max-idle-conns",
        key="cache.database.pool.max-idle-conns",
        kind=integer(at_most=1000),
        default="0",
        group=GROUP,
        help="Connections to the database server that stay open while they have nothing to do; 0 "
        "for as many as may be open.",
    ),
    Setting(
        flag="cache-database-connect-timeout",
        key="cache.database.connect-timeout",
        kind=duration(at_least_s=1.0),
        default="5s",
        group=GROUP,
        help="Time for connecting to the database server.",
    ),
    Setting(
        flag="cache-database-statement-timeout",
        key="cache.database.statement-timeout",
        kind=duration(at_least_s=1.0),
        default="10s",
        group=GROUP,
        help="Time for one statement on the database server, waits for locks included. Schema "
        "migrations may take longer.",
    ),
)
