"""Pin backup: a copy of pins and blocked paths in the store, in case the database is lost.

The database decides. The object names its catalog. If that is another catalog, this one takes over
the object's pins and blocked paths before the object is written again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from attrs import frozen
from twisted.logger import Logger

from ncps.cache.world import World
from ncps.errors import Malformed, NcpsError
from ncps.nix.hashes import Hash
from ncps.nix.storepath import is_digest
from ncps.ports import Block, ConfigStore, Pin

NAME: Final = "pins.json"
"""Name of the object in the `ConfigStore`."""
LEASE: Final = "pins:kept"


@frozen(kw_only=True)
class Copy:
    """The content of the object.

    :param catalog: the time when the catalog was made, in milliseconds; it identifies the catalog.
    """

    catalog: int
    pins: Sequence[Pin] = ()
    blocks: Sequence[Block] = ()

    def render(self) -> bytes:
        """Return the object's bytes, without the facts of closures, which upkeep finds again."""
        data = {
            "catalog": self.catalog,
            "pins": [
                {
                    "hash": pin.digest,
                    "label": pin.label,
                    "created": _milliseconds(pin.created_at),
                    "expires": _milliseconds(pin.expires_at),
                    "fetch": pin.is_fetching,
                }
                for pin in self.pins
            ],
            "blocked": [
                {
                    "hash": block.digest,
                    "name": block.name,
                    "at": _milliseconds(block.blocked_at),
                    "files": [str(each) for each in block.hashes],
                }
                for block in self.blocks
            ],
        }
        return json.dumps(data, indent=1, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def parse(cls, text: bytes) -> Copy:
        """Parse the object. Raises Malformed if it is damaged."""
        try:
            data = json.loads(text)
            return cls(
                catalog=int(data["catalog"]),
                pins=[_pin(each) for each in data["pins"]],
                blocks=[_block(each) for each in data["blocked"]],
            )
        except (ValueError, TypeError, KeyError, OverflowError, OSError) as error:
            raise Malformed(f"{NAME} in the store makes no sense: {error}") from error


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)


def _moment(milliseconds: Any) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


def _digest(data: Any) -> str:
    digest = str(data["hash"])
    if not is_digest(digest):
        raise Malformed(f"not a hash part: {digest[:64]!r}")
    return digest


def _pin(data: Any) -> Pin:
    return Pin(
        digest=_digest(data),
        label=str(data["label"]),
        created_at=_moment(data["created"]),
        expires_at=None if data["expires"] is None else _moment(data["expires"]),
        is_fetching=bool(data["fetch"]),
    )


def _block(data: Any) -> Block:
    return Block(
        digest=_digest(data),
        name=str(data["name"]),
        blocked_at=_moment(data["at"]),
        hashes=tuple(Hash.parse(str(each)) for each in data["files"]),
    )


class PinBackup:
    """Keeps the object equal to the database."""

    _log = Logger()

    def __init__(self, world: World, config: ConfigStore) -> None:
        self._catalog = world.inventory
        self._pins = world.pins
        self._removals = world.removals
        self._leases = world.leases
        self._config = config

    async def save(self) -> None:
        """Write the object if it is outdated. Raises nothing: it logs errors.

        Does nothing while another process writes it: upkeep calls this again.
        """
        try:
            lease = await self._leases.try_hold(LEASE)
            if lease is None:
                return
            try:
                await self._save()
            finally:
                await lease.release()
        except NcpsError as error:
            self._log.warn(
                "pins and blocked paths cannot be kept in the store now, and would be lost with"
                " the database: {reason}",
                reason=str(error),
            )

    async def _save(self) -> None:
        there = await self._restored()
        copy = Copy(
            catalog=await self._own(),
            pins=await self._pins.all(),
            blocks=await self._removals.blocked(),
        ).render()
        is_needed = there is not None or b'"hash"' in copy  # nothing kept: no object
        if is_needed and copy != there:
            await self._config.replace(NAME, copy)

    async def restore(self) -> None:
        """Take over the pins and blocked paths of another catalog of this store.

        Raises Unavailable if the store or the database is away, StorageFull if it has no room.
        """
        await self._restored()

    async def _restored(self) -> bytes | None:
        """Do as `restore`; return the present bytes of the object."""
        text = await self._config.get(NAME)
        if text is None:
            return None
        try:
            copy = Copy.parse(text)
        except Malformed as error:
            self._log.error("{reason}: it is written anew", reason=str(error))
            return text
        if copy.catalog != await self._own():
            await self._take(copy)
        return text

    async def _take(self, copy: Copy) -> None:
        if copy.blocks:
            await self._removals.block(copy.blocks)
        pins = 0
        for pin in copy.pins:
            if await self._pins.find(pin.digest) is None:
                pins += await self._pins.add(pin)
        self._log.info(
            "took over {pins} pins and {blocks} blocked paths that the store had kept of another"
            " database",
            pins=pins,
            blocks=len(copy.blocks),
        )

    async def _own(self) -> int:
        return round((await self._catalog.created_at()).timestamp() * 1000)
