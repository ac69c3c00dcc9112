"""The contract of every roll of replicas."""

from __future__ import annotations

from datetime import UTC, timedelta

from attrs import evolve
from twisted.internet.defer import gatherResults

from ncps.ports import Replica, Replicas
from tests.contract.running import Contract, start

ONE = Replica(
    id="ncps-1",
    host="höst",
    pid=17,
    version="1.2",
    url="http://10.0.0.7:8501",
    store="bucket/prefix",
    store_at="https://s3.example.org",
    cluster="5c1d",
    public_key="a:AAAA",
    trusted="0123: cache.nixos.org-1",
    locks="redis",
    redis="redis:6379",
    prefix="0 ncps:lock:",
    secret="cafe",
)
TWO = Replica(id="ncps-2", host="other", pid=18)


class ReplicasContract(Contract):
    replicas: Replicas

    def age(self, replica: Replica, seconds: float) -> None:
        """Make the facts of a replica older by a time."""
        raise NotImplementedError

    async def ids(self) -> set[str]:
        return {seen.replica.id for seen in (await self.replicas.roll()).seen}

    async def test_an_empty_roll(self) -> None:
        """A new catalog knows no key and no replica; withdrawing an unknown one is no error."""
        await self.replicas.withdraw("ncps-1")
        roll = await self.replicas.roll()
        self.assertEqual((None, ()), (roll.key, roll.seen))
        self.assertIs(UTC, roll.now.tzinfo)
        self.assertEqual(0, roll.now.microsecond)

    async def test_facts_are_read_as_written(self) -> None:
        """Every fact is read as it was written, with the time of the catalog's clock."""
        told = await self.replicas.announce(ONE)
        for roll in (told, await self.replicas.roll()):
            (seen,) = roll.seen
            self.assertEqual(ONE, seen.replica)
            self.assertLessEqual(seen.at, roll.now)
            self.assertLess(roll.now - seen.at, timedelta(seconds=10))

    async def test_the_last_announcement_counts(self) -> None:
        """The last announcement of each replica counts, and renews its time."""
        await self.replicas.announce(ONE)
        await self.replicas.announce(TWO)
        self.age(ONE, 100)
        roll = await self.replicas.roll()
        ages = {seen.replica.id: roll.now - seen.at for seen in roll.seen}
        self.assertGreaterEqual(ages["ncps-1"], timedelta(seconds=100))
        self.assertLess(ages["ncps-2"], timedelta(seconds=50))
        changed = evolve(ONE, url="http://10.0.0.8:8501", secret="")
        roll = await self.replicas.announce(changed)
        found = {seen.replica.id: seen for seen in roll.seen}
        self.assertEqual(
            {"ncps-1": changed, "ncps-2": TWO}, {k: v.replica for k, v in found.items()}
        )
        self.assertLess(roll.now - found["ncps-1"].at, timedelta(seconds=50))

    async def test_old_replicas_are_removed(self) -> None:
        """A row that was not refreshed for an hour is removed when any replica announces itself."""
        await self.replicas.announce(ONE)
        self.age(ONE, 3000)
        await self.replicas.announce(TWO)
        self.assertEqual({"ncps-1", "ncps-2"}, await self.ids())
        self.age(ONE, 700)
        await self.replicas.announce(TWO)
        self.assertEqual({"ncps-2"}, await self.ids())

    async def test_withdrawn(self) -> None:
        """A replica that withdraws is removed; the others stay."""
        await self.replicas.announce(ONE)
        await self.replicas.announce(TWO)
        await self.replicas.withdraw("ncps-1")
        self.assertEqual({"ncps-2"}, await self.ids())

    async def test_a_key_is_claimed(self) -> None:
        """The first key is accepted; another one replaces it only if the caller knows the first."""
        self.assertIs(True, await self.replicas.claim("a:AA", before=None, replica=None))
        self.assertEqual("a:AA", (await self.replicas.roll()).key)
        self.assertIs(True, await self.replicas.claim("a:AA", before=None, replica=ONE))
        for before in (None, "c:CC"):
            claimed = await self.replicas.claim("b:BB", before=before, replica=TWO, gone=["ncps-1"])
            self.assertIsNone(claimed)
        self.assertEqual(("a:AA", {"ncps-1"}), ((await self.replicas.roll()).key, await self.ids()))
        self.assertIs(True, await self.replicas.claim("b:BB", before="a:AA", replica=TWO))
        self.assertEqual("b:BB", (await self.replicas.roll()).key)

    async def test_one_of_several_workers_is_the_first(self) -> None:
        """Of the processes of one replica, only the first is told that the replica is new."""
        claims = [self.replicas.claim("a:AA", before=None, replica=ONE) for _ in range(8)]
        found = await gatherResults([start(claim) for claim in claims], consumeErrors=True)
        self.assertEqual([False] * 7 + [True], sorted(found))
        self.assertEqual({"ncps-1"}, await self.ids())

    async def test_of_many_claims_one_wins(self) -> None:
        """Of replicas that claim different keys at the same time, exactly one is recorded."""
        claims = [
            self.replicas.claim(f"a:{n}", before=None, replica=evolve(ONE, id=f"ncps-{n}"))
            for n in range(8)
        ]
        found = await gatherResults([start(claim) for claim in claims], consumeErrors=True)
        (winner,) = [n for n, claimed in enumerate(found) if claimed]
        self.assertEqual([None] * 7, [claimed for claimed in found if not claimed])
        self.assertEqual(f"a:{winner}", (await self.replicas.roll()).key)
        self.assertEqual({f"ncps-{winner}"}, await self.ids())

    async def test_former_lives_are_replaced(self) -> None:
        """A claim removes the named replicas; a running replica enters again by itself."""
        await self.replicas.announce(ONE)
        await self.replicas.claim("a:AA", before=None, replica=TWO, gone=["ncps-1", "ncps-9"])
        self.assertEqual({"ncps-2"}, await self.ids())
        await self.replicas.announce(ONE)
        self.assertEqual({"ncps-1", "ncps-2"}, await self.ids())
