"""Tokens: those of the database, held in memory, and the one of the settings."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.tasks import Tasks
from ncps.auth.credentials import NO_CREDENTIALS, Credentials, WrongCredentials
from ncps.auth.principal import Principal, Scope
from ncps.auth.tokens import (
    PREFIX,
    SOON_S,
    DatabaseTokens,
    StaticToken,
    digest_of,
    new_token,
    principal_of,
)
from ncps.errors import Malformed, Unavailable
from ncps.ports import Token
from tests.contract.running import start
from tests.fakes.tokens import MemoryTokens

NOW = 1_767_225_600.0  # 2026
SECRET = f"{PREFIX}right"


def bearer(secret: str) -> Credentials:
    return Credentials(bearer=secret)


def token(secret: str, number: int = 1, **changes: Any) -> Token:
    made = Token(
        id=f"{number:08x}",
        name=f"t{number}",
        digest=digest_of(secret),
        scopes=frozenset({"read"}),
        created_at=datetime.fromtimestamp(NOW, UTC),
    )
    return evolve(made, **changes)


class NewTokenTests(SynchronousTestCase):
    def test_tokens_are_long_and_fit_for_netrc(self) -> None:
        """256 random bits, the prefix, and no character that netrc or a shell would split at."""
        found = {new_token() for _ in range(100)}
        self.assertEqual(100, len(found))
        for each in found:
            self.assertIsNotNone(re.fullmatch(r"ncps_[A-Za-z0-9_-]{43}", each))

    def test_principal(self) -> None:
        """Scopes of a later version are left out; a pattern that is not allowed is refused."""
        found = principal_of(token("x", scopes=frozenset({"pin", "fly"}), path=".*-a"))
        self.assertEqual(frozenset({Scope.PIN}), found.scopes)
        self.assertFalse(found.may(Scope.PIN, "0-b"))
        with self.assertRaises(Malformed):
            principal_of(token("x", path="(a+)+"))


class DatabaseTokensTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.rows = MemoryTokens()
        self.tasks = Tasks(self.clock)
        self.source = DatabaseTokens(self.rows, self.clock, self.tasks, max_age_s=600.0)

    def create(self, row: Token) -> None:
        self.successResultOf(start(self.rows.create(row)))

    def look(self) -> None:
        self.successResultOf(start(self.source.look()))

    def identify(self, secret: str) -> Principal | None:
        found: Principal | None = self.successResultOf(start(self.source.identify(bearer(secret))))
        return found

    def wrong(self, secret: str) -> str:
        """Return the kind of the refusal."""
        failure = self.failureResultOf(start(self.source.identify(bearer(secret))))
        error = failure.value
        assert isinstance(error, WrongCredentials), error
        self.assertNotIn(secret, str(error))
        return error.kind

    def test_token_is_known_by_heart_once_it_was_read(self) -> None:
        """As Bearer and as the password of Basic; a token for one scope has no other."""
        self.create(token(SECRET))
        self.assertIsNone(self.source.recall(bearer(SECRET)))
        self.look()
        for credentials in (bearer(SECRET), Credentials(user="x", password=SECRET)):
            found = self.source.recall(credentials)
            assert found is not None
            self.assertEqual(("t1", frozenset({Scope.READ})), (found.name, found.scopes))

    def test_credentials_of_others(self) -> None:
        """A text in another form than our tokens does not belong to this source."""
        for credentials in (NO_CREDENTIALS, bearer("eyJ"), Credentials(user=SECRET)):
            self.assertIsNone(self.source.recall(credentials))
            self.assertIsNone(self.successResultOf(start(self.source.identify(credentials))))

    def test_new_token_works_at_once(self) -> None:
        """An unknown token causes a read of the table before the next look."""
        self.look()
        self.create(token(SECRET))
        self.clock.advance(1)
        found = self.identify(SECRET)
        assert found is not None
        self.assertEqual("t1", found.name)

    def test_token_that_is_used_right_after_a_look(self) -> None:
        """Its request waits for the next look, which comes soon."""
        self.look()
        self.clock.advance(0.01)
        self.create(token(SECRET))
        self.clock.advance(0.01)
        waiting = start(self.source.identify(bearer(SECRET)))
        self.assertNoResult(waiting)
        self.clock.advance(SOON_S)
        self.assertIsNotNone(self.successResultOf(waiting))

    def test_token_that_is_made_during_a_look(self) -> None:
        """The look may have read the old table; the request waits for another one."""
        self.look()
        self.clock.advance(1)
        gate: Deferred[int] = Deferred()
        self.rows.version = lambda: gate  # type: ignore[method-assign,assignment,return-value]
        looking = start(self.source.look())
        self.clock.advance(0.01)
        self.create(token(SECRET))
        waiting = start(self.source.identify(bearer(SECRET)))
        del self.rows.version
        gate.callback(0)
        self.successResultOf(looking)
        self.clock.advance(SOON_S)
        self.assertIsNotNone(self.successResultOf(waiting))

    def test_wrong_tokens_do_not_read_again_and_again(self) -> None:
        """Many wrong tokens query the database a few times a second, not once for each."""
        self.create(token(SECRET))
        self.look()
        before = self.rows.asked
        waiting = []
        for _ in range(50):
            self.clock.advance(0.01)
            waiting.append(start(self.source.identify(bearer(f"{PREFIX}wrong"))))
        self.clock.advance(SOON_S)
        for each in waiting:
            self.failureResultOf(each, WrongCredentials)
        self.assertLessEqual(self.rows.asked - before, 4)
        self.assertEqual(1, self.rows.reads)

    def test_revoked_and_expired(self) -> None:
        """The error says which one it is; expiry needs no look at the database."""
        end = datetime.fromtimestamp(NOW + 100, UTC)
        self.create(token(SECRET, 1, expires_at=end))
        self.create(token(f"{PREFIX}other", 2))
        self.look()
        self.assertIsNotNone(self.source.recall(bearer(SECRET)))
        self.clock.advance(100)
        self.assertIsNone(self.source.recall(bearer(SECRET)))
        self.rows.failing = Unavailable("away")
        self.assertEqual("expired", self.wrong(SECRET))
        self.rows.failing = None
        self.successResultOf(start(self.rows.revoke("t2")))
        self.look()
        self.assertIsNone(self.source.recall(bearer(f"{PREFIX}other")))
        self.assertEqual("revoked", self.wrong(f"{PREFIX}other"))

    def test_database_that_is_away(self) -> None:
        """Known tokens stay valid for a time; after that, wrong and right ones are the same."""
        self.create(token(SECRET))
        self.look()
        self.rows.failing = Unavailable("away")
        self.clock.advance(599)
        self.look()
        self.assertIsNotNone(self.source.recall(bearer(SECRET)))
        self.failureResultOf(start(self.source.identify(bearer(f"{PREFIX}new"))), Unavailable)
        self.assertEqual("", self.source.trouble)
        self.clock.advance(2)
        self.assertIsNone(self.source.recall(bearer(SECRET)))
        self.failureResultOf(start(self.source.identify(bearer(SECRET))), Unavailable)
        self.assertIn("database", self.source.trouble)
        self.rows.failing = None
        self.look()
        self.assertIsNotNone(self.source.recall(bearer(SECRET)))
        self.assertEqual("", self.source.trouble)

    def test_database_that_does_not_answer(self) -> None:
        """A wait for the database has a deadline, and the next one asks again."""
        self.rows.version = lambda: Deferred()  # type: ignore[method-assign,assignment,return-value]
        waiting = [start(self.source.identify(bearer(SECRET))) for _ in range(2)]
        self.clock.advance(5)
        for each in waiting:
            self.failureResultOf(each, Unavailable)
        del self.rows.version
        self.create(token(SECRET))
        self.assertIsNotNone(self.identify(SECRET))

    def test_client_that_leaves(self) -> None:
        """A client that leaves during a read does not affect the others."""
        gate: Deferred[int] = Deferred()
        self.rows.version = lambda: gate  # type: ignore[method-assign,assignment,return-value]
        self.create(token(SECRET))
        first = start(self.source.identify(bearer(SECRET)))
        second = start(self.source.identify(bearer(SECRET)))
        first.cancel()
        self.failureResultOf(first)
        gate.callback(1)
        self.assertIsNotNone(self.successResultOf(second))

    def test_is_configured(self) -> None:
        """It is unknown before the first look; a revoked token still counts."""
        self.assertIsNone(self.source.is_configured)
        self.look()
        self.assertIs(False, self.source.is_configured)
        self.create(token(SECRET))
        self.look()
        self.successResultOf(start(self.rows.revoke("t1")))
        self.look()
        self.assertIs(True, self.source.is_configured)

    def test_is_not_told_from_an_old_look(self) -> None:
        """Somebody may have made the first token since then, which closes open verbs."""
        self.look()
        self.rows.failing = Unavailable("away")
        self.clock.advance(600)
        self.assertIs(False, self.source.is_configured)
        self.clock.advance(1)
        self.look()
        self.assertIsNone(self.source.is_configured)
        self.rows.failing = None
        self.look()
        self.assertIs(False, self.source.is_configured)

    def test_row_that_cannot_be_used(self) -> None:
        """A row that another program has damaged does not affect the others."""
        self.rows.rows["bad"] = token("x", 9, digest="no digest")
        self.rows.rows["worse"] = token("y", 8, path="(a+)+")
        self.create(token(SECRET))
        self.look()
        self.assertIsNotNone(self.source.recall(bearer(SECRET)))
        self.assertEqual("unknown", self.wrong(f"{PREFIX}y"))

    def test_times_of_use(self) -> None:
        """They are written together, and kept while writing fails."""
        self.create(token(SECRET))
        self.look()
        self.successResultOf(start(self.source.flush()))
        self.source.recall(bearer(SECRET))
        self.rows.failing_writes = Unavailable("away")
        self.failureResultOf(start(self.source.flush()), Unavailable)
        self.rows.failing_writes = None
        self.successResultOf(start(self.source.flush()))
        used = datetime.fromtimestamp(NOW, UTC)
        self.assertEqual(used, self.rows.rows[f"{1:08x}"].last_used_at)
        self.clock.advance(1)
        self.source.recall(bearer(SECRET))
        self.successResultOf(start(self.source.flush()))
        used += timedelta(seconds=1)
        self.assertEqual(used, self.rows.rows[f"{1:08x}"].last_used_at)


class StaticTokenTests(SynchronousTestCase):
    def test_static_token(self) -> None:
        """The token of the settings may read; others do not belong to this source."""
        source = StaticToken("a token of mine")
        for credentials in (bearer("a token of mine"), Credentials(password="a token of mine")):
            found = source.recall(credentials)
            assert found is not None
            self.assertEqual(frozenset({Scope.READ}), found.scopes)
        for credentials in (NO_CREDENTIALS, bearer("a token of min"), bearer("ä")):
            self.assertIsNone(source.recall(credentials))
            self.assertIsNone(self.successResultOf(start(source.identify(credentials))))
