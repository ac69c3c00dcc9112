"""Agreement: whether the replicas that share a catalog agree on what they must have in common.

Each replica tells of itself, on a roll that the catalog keeps, and compares what the others tell
with that. Another one counts once it has told something since this one began: the entry of a daemon
that was killed says nothing, least of all against its successor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

from ncps.cache.upkeep.contradictions import contradictions, differences, known_as, living
from ncps.cache.upkeep.identity import NAME, CacheIdentity, parse_key
from ncps.errors import Corrupt, NcpsError
from ncps.ports import ConfigStore, Replica, Replicas, Roll

SHOWN: Final = 5
"""Of more contradictions only the number is told in readiness; the log has them all."""


class Agreement:
    """See the module.

    :param is_alone: whether no other daemon can share the catalog, so that nobody need be told.
    """

    _log = Logger()

    def __init__(
        self, replicas: Replicas, config: ConfigStore, identity: CacheIdentity, *, is_alone: bool
    ) -> None:
        self._replicas = replicas
        self._config = config
        self._identity = identity
        self._is_alone = is_alone
        self._of_store: dict[str, str] = {}
        self._of_others: dict[str, str] = {}
        self._differences: dict[str, str] = {}

    @property
    def trouble(self) -> str:
        """What cannot be right, as far as was last seen; empty if nothing is wrong."""
        return _listed([*self._of_store.values(), *self._of_others.values()])

    @property
    def difference(self) -> str:
        """What differs among the replicas and may be meant; empty if nothing does."""
        return _listed(list(self._differences.values()))

    async def look(self) -> None:
        """Tell the others of this replica and compare; what is away says nothing."""
        try:
            found = await self._config.get(NAME)
        except NcpsError:
            pass
        else:
            self._of_store = self._changed(
                self._of_store, self._about_store(found), self._log.error
            )
        try:
            roll = await self._enrolled()
        except NcpsError:
            return
        wrong, unlike = self._compared(roll)
        self._of_others = self._changed(self._of_others, wrong, self._log.error)
        self._differences = self._changed(self._differences, unlike, self._log.info)

    async def leave(self) -> None:
        """Be on the roll no more, so that a successor finds nobody; a failure costs a minute."""
        if self._identity.replica is None:
            return
        try:
            await self._replicas.withdraw(self._identity.replica.id)
        except NcpsError as error:
            self._log.debug("this replica stays on the roll: {reason}", reason=str(error))

    async def _enrolled(self) -> Roll:
        replica = self._identity.replica
        if self._is_alone or replica is None:
            roll = await self._replicas.roll()
        else:
            roll = await self._replicas.announce(replica)
        if roll.key is None:  # the database is a new one, or could not be written at the start
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
        """Sentences on what is wrong, and on what merely differs, by replica and kind."""
        own = self._own(roll)
        wrong: dict[str, str] = {}
        unlike: dict[str, str] = {}
        if own is None:
            return wrong, unlike
        told = {seen.replica.id for seen in roll.seen if seen.at > self._identity.since}
        for other in sorted(living(roll, own.id), key=lambda each: each.id):
            if other.id in told:
                wrong |= {f"{k} {other.id}": v for k, v in contradictions(own, other).items()}
                unlike |= {f"{k} {other.id}": v for k, v in differences(own, other).items()}
        is_told = any(name.startswith("key ") for name in wrong)
        if roll.key not in (None, own.public_key) and not is_told:
            wrong["key"] = (
                f"this replica, {known_as(own)}, signs with {own.public_key}, and the catalog knows"
                f" by now that this cache signs with {roll.key}: restart it"
            )
        return wrong, unlike

    def _own(self, roll: Roll) -> Replica | None:
        """This replica as it is on the roll, cut and cleaned like the others."""
        replica = self._identity.replica
        if replica is None:
            return None
        found = (seen.replica for seen in roll.seen if seen.replica.id == replica.id)
        return next(found, replica)

    def _changed(
        self, before: dict[str, str], now: dict[str, str], log: Callable[..., None]
    ) -> dict[str, str]:
        """Log what began and what ended; return what holds now."""
        for name in now.keys() - before.keys():
            log("{trouble}", trouble=now[name])
        for name in before.keys() - now.keys():
            self._log.info("this is over: {trouble}", trouble=before[name])
        return now


def _listed(sentences: list[str]) -> str:
    more = len(sentences) - SHOWN
    shown = sentences[:SHOWN] + ([f"and {more} more"] if more > 0 else [])
    return "; ".join(shown)
