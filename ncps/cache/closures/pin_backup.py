"""Pin backup: a copy of pins and blocked paths in the store, in case the database is lost.

The database decides. The object names its catalog. If that is another catalog, this one takes over
the object's pins and blocked paths before the object is written again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, get_args

from attrs import fields, frozen, resolve_types
from twisted.logger import Logger

from ncps.cache.world import World
from ncps.errors import Malformed, NcpsError
from ncps.nix.hashes import Hash
from ncps.nix.storepath import is_base, is_digest
from ncps.ports import Block, ConfigStore, Pin
from ncps.ports.pins import is_label

_KEYS: Final = {
    "digest": "hash",
    "created_at": "created",
    "expires_at": "expires",
    "is_fetching": "fetch",
}
"""The keys of those fields of a pin that have other names in the object."""
_FOUND_AGAIN: Final = frozenset({"paths", "missing", "size", "looked_at"})
"""The facts of closures, which are not in the object, because upkeep finds them again."""

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
        """Return the object's bytes."""
        data = {
            "catalog": self.catalog,
            "pins": [
                {key: _plain(getattr(pin, name)) for key, (name, _) in _FIELDS.items()}
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
        except (ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError) as error:
            raise Malformed(f"{NAME} in the store makes no sense: {error}") from error


_FIELDS: Final[Mapping[str, tuple[str, Sequence[Any]]]] = {
    _KEYS.get(field.name, field.name): (field.name, get_args(field.type) or (field.type,))
    for field in fields(resolve_types(Pin))
    if field.name not in _FOUND_AGAIN
}
"""The names and types of a pin's fields by their keys: all, also those of a later version."""


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _plain(value: object) -> object:
    return _milliseconds(value) if isinstance(value, datetime) else value


def _moment(milliseconds: Any) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


def _digest(data: Any) -> str:
    digest = str(data["hash"])
    if not is_digest(digest):
        raise Malformed(f"not a hash part: {digest[:64]!r}")
    return digest


def _pin(data: Any) -> Pin:
    _digest(data)
    known = [(name, kinds, data[key]) for key, (name, kinds) in _FIELDS.items() if key in data]
    pin = Pin(**{name: _valued(name, kinds, value) for name, kinds, value in known})
    if not is_label(pin.label):
        raise Malformed(f"not a label: {pin.label[:64]!r}")
    return pin


def _valued(name: str, kinds: Sequence[Any], value: object) -> Any:
    """Return the value of a field. Raises Malformed if it is of none of these types."""
    if type(value) in kinds:
        return value
    if datetime in kinds and type(value) is int:
        return _moment(value)
    raise Malformed(f"{name} of a pin is {value!r:.64}")


def _block(data: Any) -> Block:
    digest, name = _digest(data), str(data["name"])
    if name and not is_base(f"{digest}-{name}"):
        raise Malformed(f"not a name: {name[:64]!r}")
    return Block(
        digest=digest,
        name=name,
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
