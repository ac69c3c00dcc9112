"""The address of a Redis server or of a Sentinel, as a kind of value."""

from __future__ import annotations

import re

from attrs import frozen

from ncps.settings.setting import Kind

DEFAULT_PORT = 6379
_ADDRESS = "HOST, HOST:PORT or [IPV6]:PORT"
_PATTERN = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9_.-]+))(?::(?P<port>\d{1,5}))?", re.ASCII
)


@frozen
class RedisEndpoint:
    """The address at which a Redis server or a Sentinel listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_redis_address(text: str) -> RedisEndpoint:
    """Read HOST:PORT. Raises ValueError if it is wrong, with a hint if it is a URL."""
    if "://" in text:
        raise ValueError(
            f"should be {_ADDRESS}: user, password, database and TLS have settings of their own"
        )
    match = _PATTERN.fullmatch(text)
    port = int(match["port"] or DEFAULT_PORT) if match else 0
    if match is None or not 0 < port < 65536:
        raise ValueError(f"should be {_ADDRESS}, with a PORT from 1 to 65535")
    return RedisEndpoint(match["ipv6"] or match["host"], port)


REDIS_ADDRESS = Kind(metavar="ADDRESS", expected=_ADDRESS, parse=parse_redis_address)
