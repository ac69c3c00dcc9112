"""Shares: what one worker of several may take, so that all together take what the settings grant.

Divided is what protects the machine, the upstreams and the memory as a whole; what bounds one
connection, request or file stays as it is. Connections are spread by chance, so a worker may
refuse some while another has room: limits are far from what a healthy installation needs.
"""

from __future__ import annotations

from attrs import evolve

from ncps.settings.model import Settings


def share(settings: Settings) -> Settings:
    """Return the settings of one of `server.workers` workers; rounded up, 0 stays "no limit"."""
    count = settings.server.workers

    def part(whole: int) -> int:
        return -(-whole // count)

    server, cache = settings.server, settings.cache
    download, negative, upstream = cache.download, cache.negative, cache.upstream
    pool = cache.database.pool
    return evolve(
        settings,
        server=evolve(
            server,
            max_connections=part(server.max_connections),
            max_connections_per_address=part(server.max_connections_per_address),
            max_requests=part(server.max_requests),
        ),
        cache=evolve(
            cache,
            database=evolve(
                cache.database,
                pool=evolve(
                    pool,
                    max_open_conns=part(pool.max_open_conns),
                    max_idle_conns=part(pool.max_idle_conns),
                ),
            ),
            narinfo_memory_size_bytes=part(cache.narinfo_memory_size_bytes),
            download=evolve(
                download,
                max_count=part(download.max_count),
                max_spool_size_bytes=part(download.max_spool_size_bytes),
            ),
            negative=evolve(negative, max_entries=part(negative.max_entries)),
            upstream=evolve(
                upstream,
                max_connections=part(upstream.max_connections),
                max_queries=part(upstream.max_queries),
                max_queue=part(upstream.max_queue),
            ),
        ),
    )
