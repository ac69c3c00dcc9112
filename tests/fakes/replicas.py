"""MemoryReplicas: a roll of replicas in a dictionary."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from ncps.ports import KnownReplica, Replica, Replicas, Roll
from tests.fakes.failing import Failing


class MemoryReplicas(Failing, Replicas):
    """See `ncps.ports.Replicas`.

    :ivar key: the public key that the catalog knows.
    :ivar now: the time on its clock.
    """

    def __init__(self) -> None:
        super().__init__()
        self.key: str | None = None
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.rows: dict[str, KnownReplica] = {}

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    def tell(self, replica: Replica) -> None:
        """Let a replica tell of itself now."""
        self.rows[replica.id] = KnownReplica(replica, self.now)

    def _roll(self) -> Roll:
        return Roll(key=self.key, now=self.now, seen=tuple(self.rows.values()))

    async def roll(self) -> Roll:
        self._reading()
        return self._roll()

    async def claim(
        self, key: str, *, before: str | None, replica: Replica | None, gone: Collection[str] = ()
    ) -> bool | None:
        self._writing()
        if self.key not in (None, key, before):
            return None
        self.key = key
        for each in gone:
            self.rows.pop(each, None)
        if replica is None:
            return True
        is_first = replica.id not in self.rows
        self.tell(replica)
        return is_first

    async def announce(self, replica: Replica) -> Roll:
        self._writing()
        self.tell(replica)
        hour = timedelta(hours=1)
        self.rows = {k: seen for k, seen in self.rows.items() if self.now - seen.at <= hour}
        return self._roll()

    async def withdraw(self, replica_id: str) -> None:
        self._writing()
        self.rows.pop(replica_id, None)
