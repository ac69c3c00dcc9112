"""Leases in PostgreSQL: advisory locks; one session has all locks of a process.

The server frees them when the session ends, so a killed process holds no lease, and there is no
time to live. But without a network a process cannot know whether its session still exists. After
`ttl_s` seconds without an answer its leases count as lost. The server waits `GRACE_S` seconds
longer before it ends a silent session.

    lock       64 bits of the SHA-256 of the name; names with the same bits exclude each other,
               which does no harm
    fence      the table lease_fence: time of the server in microseconds, or one more than the last
    address    the table lease_sessions, by the process id of the session
    releases   NOTIFY ncps_leases, the name
    notices    NOTIFY ncps_notices, see `ncps.locks.notices`
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

from twisted.logger import Logger

from ncps.aio.keyed import KeyedEvent
from ncps.errors import NcpsError, Refused, Unavailable
from ncps.locks.notices import SharedNotices
from ncps.locks.postgresql.session import (
    Engine,
    PostgresSession,
    PostgresSessions,
    SessionListener,
    Times,
)
from ncps.locks.shared import Grant, LeaseBackend, since_boot

RELEASES, NOTICES = "ncps_leases", "ncps_notices"
LONGEST_PAYLOAD = 7999
LONGEST_ANSWER_S = 10.0
GRACE_S = 15
"""Seconds that the server waits after `ttl_s` before it ends a silent session."""
IDLE_SESSIONS_END = 140_000
"""The first version of the server that can end idle sessions."""

_MICROSECONDS = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_TAKE = f"""
WITH taken AS MATERIALIZED (SELECT pg_try_advisory_lock(%s) AS is_ours),
counted AS (
    INSERT INTO lease_fence (id, fence) SELECT 1, {_MICROSECONDS} FROM taken WHERE is_ours
    ON CONFLICT (id) DO UPDATE SET fence = greatest(lease_fence.fence + 1, excluded.fence)
    RETURNING fence
)
SELECT fence FROM counted
"""  # noqa: S608 - a constant
_RELEASE = "SELECT pg_advisory_unlock(%s), pg_notify(%s, %s)"
_HOLDER = """
SELECT s.address FROM pg_locks l JOIN lease_sessions s ON s.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.classid = %s AND l.objid = %s
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_SWEEP = """
DELETE FROM lease_sessions
WHERE NOT EXISTS (SELECT 1 FROM pg_stat_activity a WHERE a.pid = lease_sessions.pid)
"""
_ENTER = """
INSERT INTO lease_sessions (pid, address) VALUES (pg_backend_pid(), %s)
ON CONFLICT (pid) DO UPDATE SET address = excluded.address
"""


def key_of(name: str) -> int:
    """Return the number of a name's lock, a signed 64-bit integer."""
    digest = hashlib.sha256(b"ncps lease " + name.encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


class PostgresGrant(Grant):
    """A lease; the end of its session ends it."""

    def __init__(
        self, backend: PostgresBackend, name: str, session: PostgresSession, fence: int
    ) -> None:
        self._backend = backend
        self._name = name
        self._session = session
        self._fence = fence
        self._is_lost = False

    @property
    def fence(self) -> int:
        return self._fence

    @property
    def is_lost(self) -> bool:
        if not self._is_lost and not self._backend.is_certain(self._session):
            self._is_lost = True  # for ever: a caller may have acted on it
        return self._is_lost

    async def give_back(self) -> None:
        await self._backend.give_back(self._name, self._session)


class PostgresBackend(LeaseBackend, SessionListener):
    """The leases of one process, all in one session.

    :param engine: the database.
    :param ttl_s: seconds without an answer after which leases count as lost.
    :param subject: the consequence for users while the server is away, for the log.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        engine: Engine,
        *,
        ttl_s: float,
        address: str = "",
        subject: str = "NARs that are not stored cannot be fetched",
    ) -> None:
        self.freed = KeyedEvent()
        self.notices = SharedNotices(self._say)
        self._address = address
        self._ttl_s = ttl_s
        self._held: set[str] = set()
        self._sessions = PostgresSessions(
            reactor,
            engine,
            self,
            times=Times(
                deadline_s=min(ttl_s * 2 / 3, LONGEST_ANSWER_S),
                ping_s=min(ttl_s / 3, LONGEST_ANSWER_S / 2),
                now=since_boot,
            ),
            subject=subject,
        )

    @property
    def trouble(self) -> str:
        return self._sessions.trouble

    async def start(self) -> None:
        await self._sessions.start()

    async def stop(self) -> None:
        await self._sessions.stop()

    async def take(self, name: str) -> PostgresGrant | None:
        if name in self._held:  # the server would grant it to one session twice
            return None
        self._held.add(name)
        grant = None
        try:
            grant = await self._take(name)
        finally:
            if grant is None:
                self._held.discard(name)
        return grant

    async def _take(self, name: str) -> PostgresGrant | None:
        session = await self._sessions.current()
        try:
            return await self._take_in(session, name)
        except Unavailable as error:
            # The end of the session has freed the lock: attempt once more in the next session.
            if error.timed_out or not session.is_dead:
                raise
        return await self._take_in(await self._sessions.current(), name)

    async def _take_in(self, session: PostgresSession, name: str) -> PostgresGrant | None:
        key = key_of(name)
        try:
            row = await session.run(lambda connection: connection.execute(_TAKE, (key,)).fetchone())
        except NcpsError as error:
            # This session may have the lock although the rest of the statement failed.
            await self._release(name, session)
            if isinstance(error, Unavailable):
                raise
            raise Unavailable(str(error)) from error
        return PostgresGrant(self, name, session, row[0]) if row is not None else None

    async def holder(self, name: str) -> str:
        session = await self._sessions.current()
        key = key_of(name) & (2**64 - 1)
        halves = (key >> 32, key & (2**32 - 1))
        try:
            row = await session.run(
                lambda connection: connection.execute(_HOLDER, halves).fetchone()
            )
        except NcpsError as error:
            raise Unavailable(str(error)) from error
        address: str = row[0] if row is not None else ""
        return address

    def is_certain(self, session: PostgresSession) -> bool:
        """Return whether a session certainly still has its locks."""
        return not session.is_dead and since_boot() < session.confirmed + self._ttl_s

    async def give_back(self, name: str, session: PostgresSession) -> None:
        """Release the lock; if the server does not answer, end the session, which frees it."""
        await self._release(name, session)
        self._held.discard(name)
        self.freed.set(name)

    async def _release(self, name: str, session: PostgresSession) -> None:
        if session.is_dead:
            return
        payload = name if len(name.encode()) <= LONGEST_PAYLOAD else ""
        words = (key_of(name), RELEASES, payload)
        try:
            await session.run(lambda connection: connection.execute(_RELEASE, words))
        except NcpsError as error:
            # Else the session might keep a lock that this process has forgotten.
            session.end(error)

    async def _say(self, text: str) -> None:
        session = await self._sessions.current()
        try:
            await session.run(
                lambda connection: connection.execute("SELECT pg_notify(%s, %s)", (NOTICES, text))
            )
        except NcpsError as error:
            raise Unavailable(str(error)) from error

    def received(self, channel: str, text: str) -> None:
        """See `SessionListener`."""
        if channel == NOTICES:
            self.notices.received(text)
        elif text:
            self.freed.set(text)
        else:
            self.freed.set_all()

    def connected(self, is_first: bool) -> None:
        """See `SessionListener`: before any session but the first, messages may be lost."""
        if not is_first:
            self.freed.set_all()
            self.notices.missed()

    def greet_blocking(self, connection: Any) -> None:
        """See `SessionListener`: set the settings, channels and the address of this process."""
        pid, is_standby = connection.execute(
            "SELECT pg_backend_pid(), pg_is_in_recovery()"
        ).fetchone()
        where = self._sessions.where
        if pid != connection.info.backend_pid:
            raise Refused(
                f"cache-lock-backend: {where} is reached through a connection pooler, which keeps"
                " no session, and so no lock, for one client: name the server itself in"
                " cache-database-url, or use Redis"
            )
        if is_standby:
            raise Refused(f"cache-lock-backend: {where} is a standby, which accepts no writes")
        silent_ms = (math.ceil(self._ttl_s) + GRACE_S) * 1000
        settings = [
            ("statement_timeout", f"{math.ceil(LONGEST_ANSWER_S * 1000)}"),
            # After this time the server frees the locks of a dead client.
            ("tcp_keepalives_idle", f"{math.ceil(self._ttl_s)}"),
            ("tcp_keepalives_interval", f"{GRACE_S // 3}"),
            ("tcp_keepalives_count", "3"),
            ("tcp_user_timeout", f"{silent_ms}"),
            ("synchronous_commit", "off"),
        ]
        if connection.info.server_version >= IDLE_SESSIONS_END:
            # The kernel answers keepalives even if the process is stopped or hangs.
            settings.append(("idle_session_timeout", f"{silent_ms}"))
        for name, value in settings:
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        connection.execute(f"LISTEN {RELEASES}")
        connection.execute(f"LISTEN {NOTICES}")
        connection.execute(_SWEEP)
        connection.execute(_ENTER, (self._address,))
