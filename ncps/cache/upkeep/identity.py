"""Identity: the signing key of this cache, which stays the same.

The key is in the store, and the catalog has its public half. If the two disagree, the store was
emptied or somebody made a new key. Clients would refuse everything signed with that key. So the
start fails before it writes anything, unless the operator accepts the new key.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final
from uuid import UUID, uuid4

from attrs import evolve, frozen
from twisted.logger import Logger

from ncps.cache.upkeep.contradictions import known_as, living
from ncps.errors import Corrupt, Malformed, Refused, StorageFull, Unavailable
from ncps.nix.keyring import FormerKey, parse_former
from ncps.nix.keys import PublicKey, SecretKey
from ncps.ports import ConfigStore, Replica, Replicas, Roll

NAME: Final = "cache.key"
FORMER: Final = "cache.key.former"
"""The keys that `ncps keys rotate` has replaced."""
CLUSTER: Final = "cluster_uuid"
ATTEMPTS: Final = 5
"""Attempts to decide on the key, because another replica may change the catalog in between."""
WAYS_OUT: Final = (
    "restore config/cache.key in the store, or give the old key by --cache-secret-key-path, or"
    " start once with --accept-new-key to sign with another key from now on, which clients must"
    " then trust"
)

_log = Logger()


@frozen(kw_only=True)
class KeyWish:
    """The settings of the operator about the key.

    :param hostname: name of a key that is made here.
    :param is_named: whether the settings give that name; else it is the machine's name.
    :param imported: the key that the settings give; None without one.
    :param accepts_new: whether the operator accepts another key than the catalog's.
    """

    hostname: str
    is_named: bool = False
    imported: SecretKey | None = None
    accepts_new: bool = False


@frozen(kw_only=True)
class CacheIdentity:
    """The key and the names of this cache.

    :param kept: public half of the key in the store; it differs from `key` if one was imported.
    :param replica: this replica, as the others see it; None if it was not entered.
    :param since: when this replica began, by the clock of the database.
    :param former: earlier keys of the store.
    :param is_new: whether the catalog had no key before, as at the very first start.
    """

    key: SecretKey
    kept: PublicKey
    cluster: str
    replica: Replica | None
    since: datetime
    former: tuple[FormerKey, ...] = ()
    is_new: bool = False


async def identify(
    config: ConfigStore,
    replicas: Replicas,
    wish: KeyWish,
    own: Replica | None = None,
    is_former: Callable[[Replica], bool] = lambda _: False,
) -> CacheIdentity:
    """Decide on the signing key, record it in the catalog, and enter this replica there.

    The signing key is the imported key, else the key in the store, else a new one. An imported key
    is also put into the store, unless the store has one already. Raises Refused, before anything is
    written, if the catalog or another replica has another key for this cache. Raises Corrupt if the
    key in the store is damaged, StorageFull or Unavailable if it cannot be stored.

    :param own: this replica without its key; None enters no replica.
    :param is_former: whether a replica was an earlier process of this daemon.
    """
    for _ in range(ATTEMPTS):
        # Read the roll before the store: each replica puts its key into the store first.
        roll = await replicas.roll()
        gone = frozenset(seen.replica.id for seen in roll.seen if is_former(seen.replica))
        found = await _claimed(config, replicas, wish, own, roll, gone)
        if found is not None:
            return found
    raise Unavailable("other replicas change the signing key again and again: start them in turn")


async def _claimed(
    config: ConfigStore,
    replicas: Replicas,
    wish: KeyWish,
    own: Replica | None,
    roll: Roll,
    gone: frozenset[str],
) -> CacheIdentity | None:
    """Do as `identify`, by this roll; return None if the roll has changed since it was read."""
    own_id = own.id if own is not None else ""
    kept = await _find(config)
    former = await former_keys(config)
    counted = _without(roll, replaced_by(kept, former))
    _check_siblings(counted, own_id, wish.imported or kept)
    if not wish.accepts_new:
        others = [each for each in living(counted, own_id) if each.id not in gone]
        _check(counted, others, kept, wish.imported)
    if kept is None:
        kept = await _keep(config, wish.imported or SecretKey.generate(wish.hostname))
    key = wish.imported or kept
    text = str(key.public)
    cluster = await cluster_uuid(config)
    replica = None if own is None else evolve(own, public_key=text, cluster=cluster)
    is_first: bool | None = True
    try:
        is_first = await replicas.claim(
            text, before=roll.key, replica=replica, gone=gone - {own_id}
        )
    except (StorageFull, Unavailable) as error:
        if roll.key not in (None, text):
            raise
        _log.debug("the database cannot record the signing key yet: {reason}", reason=str(error))
    if is_first is None:
        return None
    if is_first:  # only the first worker of a daemon logs this
        _tell(roll, key, kept, wish, former)
    return CacheIdentity(
        key=key,
        kept=kept.public,
        cluster=cluster,
        replica=replica,
        since=roll.now,
        former=former,
        is_new=bool(is_first) and roll.key is None,
    )


def replaced_by(kept: SecretKey | None, former: tuple[FormerKey, ...]) -> frozenset[str]:
    """Return the public keys that rotations have replaced, up to the key in the store."""
    if kept is None:  # the store has lost its key
        return frozenset()
    return frozenset(each.public for each in former) - {str(kept.public)}


def _without(roll: Roll, replaced: frozenset[str]) -> Roll:
    """Return a roll without the keys that rotations have replaced."""
    seen = tuple(each for each in roll.seen if each.replica.public_key not in replaced)
    return evolve(roll, key=None if roll.key in replaced else roll.key, seen=seen)


async def cluster_uuid(config: ConfigStore) -> str:
    """Return the UUID of all processes of this cache; make it if there is none.

    Raises Corrupt if it is no UUID, StorageFull or Unavailable if it cannot be stored.
    """
    value = await config.get(CLUSTER) or await config.create(CLUSTER, str(uuid4()).encode())
    try:
        return str(UUID(value.decode("ascii")))
    except ValueError as error:
        raise Corrupt(f"the store's config/{CLUSTER} is not a UUID") from error


async def former_keys(config: ConfigStore) -> tuple[FormerKey, ...]:
    """Return the earlier keys of the store.

    Raises Corrupt if their list is damaged, Unavailable if it cannot be read.
    """
    value = await config.get(FORMER)
    try:
        return () if value is None else parse_former(value)
    except Malformed as error:
        raise Corrupt(
            f"the store's config/{FORMER} is damaged ({error}): restore it, or remove it if no"
            " former key has to sign"
        ) from error


def parse_key(value: bytes) -> SecretKey:
    """Parse the key as the store has it. Raises Corrupt if it is none."""
    try:
        return SecretKey.parse(value.decode("ascii"))
    except (Malformed, UnicodeDecodeError) as error:
        raise Corrupt(f"the store's config/{NAME} is not a secret key") from error


async def _find(config: ConfigStore) -> SecretKey | None:
    value = await config.get(NAME)
    return None if value is None else parse_key(value)


async def _keep(config: ConfigStore, key: SecretKey) -> SecretKey:
    """Put a key into the store unless there is one; return the key in the store."""
    return parse_key(await config.create(NAME, key.export().encode()))


def _check_siblings(roll: Roll, own_id: str, wanted: SecretKey | None) -> None:
    """Raise Refused if this worker would sign with another key than its daemon's other workers."""
    for seen in roll.seen:
        if seen.replica.id == own_id and not _is_key(wanted, seen.replica.public_key):
            raise Refused(
                f"the workers of this daemon sign with {seen.replica.public_key}, and this one"
                f" would sign with {_shown(wanted)}: restore config/{NAME} in the store, or restart"
                " the daemon"
            )


def _check(
    roll: Roll, others: list[Replica], kept: SecretKey | None, imported: SecretKey | None
) -> None:
    """Raise Refused if the catalog, or another replica, has another key for this cache."""
    if imported is None and roll.key is not None and not _is_key(kept, roll.key):
        using = [known_as(each) for each in others if each.public_key == roll.key]
        now = f" (so does {using[0]} now)" if using else ""
        has = f"no signing key (config/{NAME} is missing)"
        if kept is not None:
            has = f"the signing key {kept.public} (config/{NAME})"
        raise Refused(
            f"the store keeps {has}, and the catalog knows that this cache signs with"
            f" {roll.key}{now}, the key that clients trust: {WAYS_OUT}"
        )
    wanted = imported or kept
    for other in others:
        if other.public_key and not _is_key(wanted, other.public_key):
            raise Refused(
                f"the replica {known_as(other)} signs with {other.public_key}, and this one would"
                f" sign with {_shown(wanted)}: give all replicas the same key, by one store or by"
                " --cache-secret-key-path; or stop that replica first; or start with"
                " --accept-new-key and restart that replica afterwards"
            )


def _is_key(key: SecretKey | None, public: str) -> bool:
    return key is not None and str(key.public) == public


def _shown(key: SecretKey | None) -> str:
    return "a new key" if key is None else str(key.public)


def _tell(
    roll: Roll,
    key: SecretKey,
    kept: SecretKey,
    wish: KeyWish,
    former: tuple[FormerKey, ...],
) -> None:
    """Log each fact that an operator may not expect, one line for each."""
    is_other = roll.key not in (None, str(key.public))
    replaced = next((each for each in former if each.public == roll.key), None)
    if replaced is not None and is_other:
        _log.warn(
            "this cache signs with {key} from now on, as the key was rotated, and beside it with"
            " {former} until {until}: clients must trust the new key by then",
            key=str(key.public),
            former=replaced.public,
            until=f"{replaced.until:%Y-%m-%d %H:%M} UTC",
        )
    elif is_other:
        _log.warn(
            "this cache signs with {key} from now on, as {setting} says, and no longer with"
            " {former}: clients must trust the new key",
            key=str(key.public),
            setting="accept-new-key" if wish.imported is None else "cache-secret-key-path",
            former=roll.key,
        )
    elif wish.imported is not None and kept.public != key.public:
        _log.warn(
            "the imported key {imported} is used although the store keeps {kept}",
            imported=str(key.public),
            kept=str(kept.public),
        )
    if wish.accepts_new:
        _log.warn(
            "accept-new-key is set{idle}: leave it out from now on, or ncps will replace a lost"
            " signing key without an error",
            idle="" if is_other else ", and there was no new key to accept",
        )
    if wish.imported is None and wish.is_named and key.public.name != wish.hostname:
        _log.warn(
            "the key in the store is called {name} and keeps that name, by which clients know this"
            " cache ({key}): cache-hostname={hostname} names a key only when it is made, at the"
            " first start; to have another name, give a key by cache-secret-key-path",
            name=key.public.name,
            key=str(key.public),
            hostname=wish.hostname,
        )
