"""The log line of each start, and the text that the first start writes to a terminal."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Final

from twisted.logger import Logger

from ncps import __version__
from ncps.assembly.role import Entrance
from ncps.cache.upkeep.identity import CacheIdentity
from ncps.observe import log_queue
from ncps.settings.kinds.values import show_size
from ncps.settings.schema.tree import Settings

_EVERYWHERE: Final = ("0.0.0.0:", "[::]:")
_log = Logger()


def tell(settings: Settings, identity: CacheIdentity, entrances: Sequence[Entrance]) -> None:
    """Log addresses and key of this cache; on a terminal, greet at the first start."""
    key = str(identity.key.public)
    _log.info(
        "ncps {version} serves {hostname} on {addresses}, public key {key}, cluster {cluster}",
        version=__version__,
        hostname=settings.cache.hostname,
        addresses=addresses(entrances),
        key=key,
        cluster=identity.cluster,
    )
    if identity.is_new and settings.log.console_writer_enabled and is_terminal():
        log_queue.say(greeting(settings, key, entrances))


def addresses(entrances: Sequence[Entrance]) -> str:
    """Return all addresses that clients may use, for people."""
    return ", ".join(entrance.address for entrance in entrances)


def is_terminal() -> bool:
    """Whether standard output is a terminal."""
    try:
        return os.isatty(1)
    except OSError:
        return False


def greeting(settings: Settings, key: str, entrances: Sequence[Entrance]) -> str:
    """Return the text for the first start."""
    cache = settings.cache
    s3 = cache.storage.s3
    root = cache.storage.local
    store = f"the bucket {s3.bucket}" if root is None else str(root)
    url = cache.database_url
    index = str(url.path) if url.is_file else str(url)
    lines = [
        "",
        "This is the first start of this cache.",
        f"  Data      {store}",
        f"  Index     {index}",
        f"  Upstream  {', '.join(map(_shown, cache.upstream.urls))}",
        f"  Size      {_size(settings)}",
        "",
        "Add these two lines to /etc/nix/nix.conf:",
        "",
        f"    substituters = {_address(entrances)}",
        f"    trusted-public-keys = {key}",
        "",
        "`ncps settings` prints all settings, and `ncps help` the commands.",
        "",
    ]
    return "".join(f"{line}\n" for line in lines)


def _shown(url: str) -> str:
    """Return a URL without name and password."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


def _size(settings: Settings) -> str:
    largest = settings.cache.max_size_bytes
    if largest:
        return f"at most {show_size(largest)} (cache-max-size)"
    if settings.cache.storage.local is None:
        return "without a limit; cache-max-size sets one"
    free = show_size(settings.cache.storage.min_free_bytes)
    return f"until {free} of the disk are free (cache-storage-min-free); cache-max-size sets less"


def _address(entrances: Sequence[Entrance]) -> str:
    """Return the address for clients, with the machine's name if it is for all interfaces."""
    addresses = [entrance.address for entrance in entrances]
    found = [address for address in addresses if address.startswith("http")]
    if not found:
        return "<the address of your proxy>"
    scheme, _, place = found[0].partition("://")
    for everywhere in _EVERYWHERE:
        if place.startswith(everywhere):
            return f"{scheme}://{socket.gethostname()}:{place.removeprefix(everywhere)}"
    return found[0]
