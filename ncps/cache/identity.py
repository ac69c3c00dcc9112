"""Identity: the key that this cache signs with, the same for ever."""

from __future__ import annotations

from uuid import UUID, uuid4

from twisted.logger import Logger

from ncps.errors import Corrupt, Malformed
from ncps.nix.keys import SecretKey
from ncps.ports import ConfigStore

NAME = "cache.key"
CLUSTER = "cluster_uuid"

_log = Logger()


async def signing_key(config: ConfigStore, hostname: str, imported: str | None = None) -> SecretKey:
    """Return the signing key: the imported one, else the one that is kept, else a new one.

    An imported key is kept too, unless there is one already. Corrupt, StorageFull, Unavailable.

    :param hostname: name of a key made here.
    :param imported: a secret key in Nix's own form.
    """
    if imported is not None:
        key = SecretKey.parse(imported)
        kept = await _kept(config, key)
        if kept.public != key.public:
            _log.warn(
                "the imported key {imported} is used although the store keeps {kept}",
                imported=key.public.name,
                kept=kept.public.name,
            )
        return key
    value = await config.get(NAME)
    if value is not None:
        return _parse(value)
    return await _kept(config, SecretKey.generate(hostname))


async def cluster_uuid(config: ConfigStore) -> str:
    """Return what all processes of this cache are called together, made by whoever came first.

    Corrupt, StorageFull, Unavailable.
    """
    value = await config.get(CLUSTER) or await config.create(CLUSTER, str(uuid4()).encode())
    try:
        return str(UUID(value.decode("ascii")))
    except ValueError as error:
        raise Corrupt(f"the store's config/{CLUSTER} is not a UUID") from error


async def _kept(config: ConfigStore, key: SecretKey) -> SecretKey:
    """Keep a key unless there is one; return what is kept then."""
    return _parse(await config.create(NAME, key.export().encode()))


def _parse(value: bytes) -> SecretKey:
    try:
        return SecretKey.parse(value.decode("ascii"))
    except (Malformed, UnicodeDecodeError) as error:
        raise Corrupt(f"the store's config/{NAME} is not a secret key") from error
