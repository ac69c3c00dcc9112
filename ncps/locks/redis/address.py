"""RedisAddress: the address and the login of Redis, with Sentinels or without."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from ncps.errors import NcpsError, Refused, Unavailable
from ncps.locks.redis.connection import TLS, RedisConnection, connect


@frozen(kw_only=True)
class Login:
    """The user and password of this process; empty if Redis asks for none."""

    username: str = ""
    password: str = field(default="", repr=False)


@frozen(kw_only=True)
class RedisAddress:
    """The address and the login of one Redis.

    :param addresses: host and port of the one server, or of each Sentinel.
    :param timeout_s: deadline of each attempt to connect and of each answer.
    :param master: the name of the server in the Sentinels; empty without Sentinels.
    :param tls: for Redis and Sentinels; None for connections without TLS.
    """

    addresses: tuple[tuple[str, int], ...]
    timeout_s: float
    master: str = ""
    db: int = 0
    login: Login = Login()
    sentinel_login: Login = Login()
    tls: TLS | None = None

    @property
    def label(self) -> str:
        """The server's name in metrics."""
        return self.master or self._where

    @property
    def _where(self) -> str:
        return ", ".join(f"{host}:{port}" for host, port in self.addresses)

    def __str__(self) -> str:
        where = self._where
        return f"Redis {self.master} (Sentinel {where})" if self.master else f"Redis ({where})"


async def join(reactor: Any, server: RedisAddress, *, is_subscriber: bool) -> RedisConnection:
    """Connect, log in, choose the database, and wait for an answer.

    Raises Refused if the configuration cannot work, Unavailable if it fails now.
    """
    if server.master:
        address = await _find_master(reactor, server)
    else:
        (address,) = server.addresses
    connection = await connect(
        reactor, address, tls=server.tls, timeout_s=server.timeout_s, is_subscriber=is_subscriber
    )
    try:
        await _log_in(connection, server.login)
        if server.master and (await connection.command("ROLE"))[0] != b"master":
            raise Unavailable(f"{connection.name} is not, or no longer, the master {server.master}")
        if server.db:
            await connection.command("SELECT", server.db)
        await connection.command("PING")
    except BaseException:
        connection.end()
        raise
    return connection


async def _log_in(connection: RedisConnection, login: Login) -> None:
    if login.username:
        await connection.command("AUTH", login.username, login.password)
    elif login.password:
        await connection.command("AUTH", login.password)


async def _find_master(reactor: Any, server: RedisAddress) -> tuple[str, int]:
    """Ask one Sentinel after the other. Raises the error of the last one if all fail."""
    failure: NcpsError | None = None
    for address in server.addresses:
        try:
            return await _ask_sentinel(reactor, server, address)
        except (Refused, Unavailable) as error:
            failure = error
    assert failure is not None, "there are addresses"
    raise failure


async def _ask_sentinel(
    reactor: Any, server: RedisAddress, address: tuple[str, int]
) -> tuple[str, int]:
    connection = await connect(reactor, address, tls=server.tls, timeout_s=server.timeout_s)
    try:
        await _log_in(connection, server.sentinel_login)
        found = await connection.command("SENTINEL", "get-master-addr-by-name", server.master)
    finally:
        connection.end()
    if not found:
        raise Unavailable(f"Sentinel {connection.name} knows no master {server.master}")
    host, port = found
    return host.decode(), int(port)
