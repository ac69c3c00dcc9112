"""The contract of every ConfigStore."""

from __future__ import annotations

from twisted.internet.defer import gatherResults

from ncps.errors import Malformed
from ncps.ports import ConfigStore
from tests.contract.running import Contract, start


class ConfigStoreContract(Contract):
    store: ConfigStore

    async def test_a_name_that_was_never_created_is_absent(self) -> None:
        """A name that was never created has no value."""
        self.assertIsNone(await self.store.get("cache.key"))

    async def test_the_first_value_stays(self) -> None:
        """The second creator gets the value of the first."""
        self.assertEqual(await self.store.create("cache.key", b"first"), b"first")
        self.assertEqual(await self.store.create("cache.key", b"second"), b"first")
        self.assertEqual(await self.store.get("cache.key"), b"first")
        self.assertEqual(await self.store.create("other", b"\0\xff\n"), b"\0\xff\n")

    async def test_a_value_is_replaced(self) -> None:
        """The last value counts, and a creator that comes later does not change it."""
        for value in (b"first", b"", b"another"):
            await self.store.replace("other", value)
            self.assertEqual(await self.store.get("other"), value)
        self.assertEqual(await self.store.create("other", b"second"), b"another")

    async def test_of_many_creators_one_wins(self) -> None:
        """All creators at the same time get one and the same value."""
        values = await gatherResults(
            [start(self.store.create("cache.key", b"%d" % number)) for number in range(10)],
            consumeErrors=True,
        )
        self.assertEqual(set(values), {await self.store.get("cache.key")})

    async def test_odd_names_are_refused(self) -> None:
        """Only a plain name can become part of an object's name."""
        for name in ("", ".", "..", "../cache.key", "a/b", "A", "a\0", "a b", ".hidden", "a" * 65):
            await self.assert_raises(Malformed, self.store.get(name))
            await self.assert_raises(Malformed, self.store.create(name, b""))
            await self.assert_raises(Malformed, self.store.replace(name, b""))
