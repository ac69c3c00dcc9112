"""Agreement: whether the replicas that share a catalog agree on the settings they must share.

Each replica writes its settings into a roll in the catalog, and compares them with the entries of
the others. The entry of another replica counts only if that replica renewed it after this one
began. So the entry of a killed daemon does not count, and does not block the successor.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from attrs import evolve
from twisted.logger import Logger

from ncps.cache.upkeep.contradictions import contradictions, differences, known_as, living
from ncps.cache.upkeep.identity import NAME, CacheIdentity, former_keys, parse_key, replaced_by
from ncps.errors import Corrupt, NcpsError
from ncps.ports import ConfigStore, Replica, Replicas, Roll

SHOWN: Final = 5
"""Contradictions that readiness names, at most; it counts the others, and the log has all."""


class Agreement:
    """Compares this replica with the others; call `look` at intervals.

    :param is_alone: whether no other daemon can share the catalog. Then no entry is needed.
    """

    _log = Logger()

    def __init__(
        self, replicas: Replicas, config: ConfigStore, identity: CacheIdentity, *, is_alone: bool
    ) -> None:
        self._replicas = replicas
        self._config = config
        self._identity = identity
        self._is_alone = is_alone
        self._replaced: frozenset[str] = frozenset()
        self._rotated: dict[str, str] = {}
        self._of_store: dict[str, str] = {}
        self._of_others: dict[str, str] = {}
        self._differences: dict[str, str] = {}

    @property
    def trouble(self) -> str:
        """The contradictions at the last look; empty if there were none."""
        return _listed([*self._of_store.values(), *self._of_others.values()])

    @property
    def difference(self) -> str:
        """The differences among the replicas that may be intended; empty if there are none."""
        return _listed([*self._rotated.values(), *self._differences.values()])

    def adopt(self, identity: CacheIdentity) -> None:
        """Compare from now on with this identity, which has another key."""
        self._identity = evolve(identity, since=self._identity.since)

    async def look(self) -> None:
        """Renew the entry of this replica and compare it; ignore a store that is away."""
        with suppress(NcpsError):
            await self._look_at_store()
        try:
            roll = await self._enrolled()
        except NcpsError:
            return
        wrong, unlike = self._compared(roll)
        self._of_others = self._changed(self._of_others, wrong, self._log.error)
        self._differences = self._changed(self._differences, unlike, self._log.info)

    def trust(self, trusted: str) -> None:
        """Change the trusted keys in the entry of this replica."""
        if self._identity.replica is not None:
            replica = evolve(self._identity.replica, trusted=trusted)
            self._identity = evolve(self._identity, replica=replica)

    async def _look_at_store(self) -> None:
        """Compare the store's key with ours. Raises NcpsError if the store cannot be read."""
        found = await self._config.get(NAME)
        wrong = self._about_store(found)
        rotated: dict[str, str] = {}
        self._replaced = replaced_by(self._identity.key, self._identity.former)
        if found is not None and wrong:
            rotated = await self._rotation(found)
            wrong = {} if rotated else wrong
        self._rotated = self._changed(self._rotated, rotated, self._log.info)
        self._of_store = self._changed(self._of_store, wrong, self._log.error)

    async def _rotation(self, found: bytes) -> dict[str, str]:
        """Say that a rotation has replaced our key in the store; say nothing if none did."""
        try:
            now = parse_key(found)
        except Corrupt:
            return {}
        replaced = replaced_by(now, await former_keys(self._config))
        if str(self._identity.kept) not in replaced:
            return {}
        self._replaced |= replaced
        return {
            f"rotated {now.public}": (
                f"the signing key was rotated to {now.public}: this replica signs with"
                f" {self._identity.key.public} until it is reloaded or restarted"
            )
        }

    async def leave(self) -> None:
        """Remove the entry of this replica; its successor could take it for another replica."""
        if self._identity.replica is None:
            return
        try:
            await self._replicas.withdraw(self._identity.replica.id)
        except NcpsError as error:
            self._log.debug(
                "the entry of this replica stays in the database: {reason}", reason=str(error)
            )

    async def _enrolled(self) -> Roll:
        replica = self._identity.replica
        if self._is_alone or replica is None:
            roll = await self._replicas.roll()
        else:
            roll = await self._replicas.announce(replica)
        if roll.key is None:  # the database is new, or could not be written at the start
            key = str(self._identity.key.public)
            await self._replicas.claim(key, before=None, replica=replica)
        return roll

    def _about_store(self, found: bytes | None) -> dict[str, str]:
        kept = self._identity.kept
        if found is None:
            what = f"keeps no signing key any more (config/{NAME} is missing)"
        else:
            try:
                now = parse_key(found).public
            except Corrupt as error:
                what = f"is damaged: {error}"
            else:
                if now == kept:
                    return {}
                what = f"keeps another signing key by now, {now} (config/{NAME})"
        return {
            f"store {what}": f"the store {what}, and this replica began with {kept}: restore that"
            " file, or the next start of a replica is refused"
        }

    def _compared(self, roll: Roll) -> tuple[dict[str, str], dict[str, str]]:
        """Return sentences on contradictions, and on mere differences, by replica and kind."""
        own = self._own(roll)
        wrong: dict[str, str] = {}
        unlike: dict[str, str] = {}
        if own is None:
            return wrong, unlike
        current = {seen.replica.id for seen in roll.seen if seen.at > self._identity.since}
        for other in sorted(living(roll, own.id), key=lambda each: each.id):
            if other.id in current:
                found = contradictions(own, other)
                if {own.public_key, other.public_key} & self._replaced:
                    found.pop("key", None)
                wrong |= {f"{k} {other.id}": v for k, v in found.items()}
                unlike |= {f"{k} {other.id}": v for k, v in differences(own, other).items()}
        is_explained = any(name.startswith("key ") for name in wrong)
        is_explained = is_explained or own.public_key in self._replaced
        if roll.key not in (None, own.public_key) and not is_explained:
            wrong["key"] = (
                f"this replica, {known_as(own)}, signs with {own.public_key}, and the catalog knows"
                f" by now that this cache signs with {roll.key}: restart it"
            )
        return wrong, unlike

    def _own(self, roll: Roll) -> Replica | None:
        """Return this replica as it is on the roll: cut and cleaned like the others."""
        replica = self._identity.replica
        if replica is None:
            return None
        found = (seen.replica for seen in roll.seen if seen.replica.id == replica.id)
        return next(found, replica)

    def _changed(
        self, before: dict[str, str], now: dict[str, str], log: Callable[..., None]
    ) -> dict[str, str]:
        """Log each trouble that began or ended; return the present ones."""
        for name in now.keys() - before.keys():
            log("{trouble}", trouble=now[name])
        for name in before.keys() - now.keys():
            self._log.info("resolved: {trouble}", trouble=before[name])
        return now


def _listed(sentences: list[str]) -> str:
    more = len(sentences) - SHOWN
    shown = sentences[:SHOWN] + ([f"and {more} more"] if more > 0 else [])
    return "; ".join(shown)
