"""The contract of every table of tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from attrs import evolve

from ncps.errors import Conflict, NotFound
from ncps.ports import Token, Tokens
from ncps.ports.tokens import KEPT
from tests.contract.running import Contract


class TokensContract(Contract):
    tokens: Tokens

    async def one(self, name: str = "ci", number: int = 1) -> Token:
        """Return a token that was created now and expires in an hour."""
        now = (await self.tokens.table()).now
        return Token(
            id=f"{number:08x}",
            name=name,
            digest=f"{number:064x}",
            scopes=frozenset({"read", "write"}),
            path=".*-hello-.*",
            created_at=now,
            expires_at=now + timedelta(hours=1),
        )

    async def test_an_empty_table(self) -> None:
        """A new database has no token and no change."""
        table = await self.tokens.table()
        self.assertEqual((0, ()), (table.version, table.tokens))
        self.assertEqual(0, await self.tokens.version())
        self.assertIs(UTC, table.now.tzinfo)

    async def test_a_token_is_read_back(self) -> None:
        """Every fact is read as it was written; optional ones may be missing."""
        first = await self.one()
        second = evolve(await self.one("ÄÖ", 2), path="", expires_at=None, scopes=frozenset())
        await self.tokens.create(first)
        await self.tokens.create(second)
        table = await self.tokens.table()
        self.assertEqual({first, second}, set(table.tokens))
        self.assertEqual(table.version, await self.tokens.version())
        self.assertGreater(table.version, 0)

    async def test_names_of_living_tokens_are_unique(self) -> None:
        """A name is free again once its token is revoked or expired; a refusal changes no token."""
        await self.tokens.create(await self.one())
        before = await self.tokens.version()
        await self.assert_raises(Conflict, self.tokens.create(await self.one(number=2)))
        self.assertEqual(before, await self.tokens.version())
        await self.tokens.revoke("ci")
        ended = (await self.tokens.table()).now - timedelta(seconds=1)
        await self.tokens.create(evolve(await self.one(number=2), expires_at=ended))
        await self.tokens.create(await self.one(number=3))
        self.assertEqual(3, len((await self.tokens.table()).tokens))

    async def test_revoke(self) -> None:
        """A token is revoked by name or id and stays; a second time changes nothing."""
        await self.tokens.create(await self.one())
        await self.tokens.create(await self.one("other", 2))
        for name, number in (("ci", 1), (f"{2:08x}", 2)):
            before = await self.tokens.version()
            found = await self.tokens.revoke(name)
            self.assertEqual(f"{number:08x}", found.id)
            table = await self.tokens.table()
            self.assertIn(found, table.tokens)
            assert found.revoked_at is not None
            self.assertLess(table.now - found.revoked_at, timedelta(seconds=10))
            self.assertGreater(table.version, before)
            self.assertEqual(found, await self.tokens.revoke(name))
            self.assertEqual(table.version, await self.tokens.version())
        await self.assert_raises(NotFound, self.tokens.revoke("nothing"))

    async def test_the_token_that_lives_is_revoked(self) -> None:
        """Of two tokens with one name, the one revoked earlier stays unchanged."""
        await self.tokens.create(await self.one())
        await self.tokens.revoke("ci")
        await self.tokens.create(await self.one(number=2))
        self.assertEqual(f"{2:08x}", (await self.tokens.revoke("ci")).id)

    async def test_old_tokens_go(self) -> None:
        """A token that expired long ago is removed when another one is created."""
        now = (await self.tokens.table()).now
        old = now - KEPT - timedelta(days=1)
        await self.tokens.create(evolve(await self.one("a", 1), expires_at=old))
        await self.tokens.create(evolve(await self.one("b", 2), expires_at=now))
        await self.tokens.create(await self.one("c", 3))
        self.assertEqual({"b", "c"}, {t.name for t in (await self.tokens.table()).tokens})

    async def test_times_of_use(self) -> None:
        """Times never become earlier, unknown ids are ignored, and the version stays."""
        token = await self.one()
        await self.tokens.create(token)
        before = await self.tokens.version()
        await self.tokens.touch({})
        for at in (20, 30, 10):
            moment = datetime.fromtimestamp(1_700_000_000 + at, UTC)
            await self.tokens.touch({token.id: moment, "nothing": moment})
        (found,) = (await self.tokens.table()).tokens
        self.assertEqual(datetime.fromtimestamp(1_700_000_030, UTC), found.last_used_at)
        self.assertEqual(before, await self.tokens.version())
