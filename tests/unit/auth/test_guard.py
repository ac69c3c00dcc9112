"""The rights that credentials give to clients."""

from __future__ import annotations

import re
from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.auth.credentials import NO_CREDENTIALS, Credentials, WrongCredentials
from ncps.auth.guard import (
    AccessRules,
    Forbidden,
    Guard,
    TooManyFailures,
    Unauthenticated,
    VerbOff,
    permitted,
)
from ncps.auth.principal import Principal, Scope
from ncps.errors import NcpsError, Unavailable
from tests.fakes.credentials import StubCredentials

CLOSED = AccessRules(reads_are_open=False)
OPEN_WRITES = AccessRules(open_verbs=frozenset({Scope.WRITE}))
READER = Principal(name="reader", scopes=frozenset({Scope.READ}))
ADMIN = Principal(name="admin", scopes=frozenset({Scope.ADMIN}))


def bearer(text: str) -> Credentials:
    return Credentials(client="192.0.2.1", bearer=text)


class Limit:
    def __init__(self) -> None:
        self.failures: list[str] = []

    def check(self, client: str) -> None:
        if len(self.failures) >= 2:
            raise TooManyFailures("wait", retry_after=60.0)

    def failed(self, client: str, secret: str) -> None:
        self.failures.append(client)


class _Failing(StubCredentials):
    """Fails when its gate opens."""

    def __init__(self, gate: Deferred[None], error: NcpsError) -> None:
        super().__init__()
        self._gate = gate
        self._error = error

    async def identify(self, credentials: Credentials) -> Principal | None:
        await self._gate
        raise self._error


class GuardTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.source = StubCredentials()
        self.counted: list[tuple[str, str]] = []
        self.limit = Limit()

    def guard(self, rules: AccessRules) -> Guard:
        return Guard(
            [self.source],
            rules,
            logins=self.limit,
            count=lambda source, result: self.counted.append((source, result)),
        )

    def told(self, guard: Guard, credentials: Credentials, scope: Scope) -> Principal:
        """Return the principal, or the error."""
        found = guard.admit(credentials, scope)
        if isinstance(found, Coroutine):
            coro: Coroutine[Any, Any, Principal] = found
            return self.successResultOf(Deferred.fromCoroutine(coro))
        return found

    def refusal(self, guard: Guard, credentials: Credentials, scope: Scope) -> NcpsError:
        try:
            found = guard.admit(credentials, scope)
        except NcpsError as error:
            return error
        assert isinstance(found, Coroutine), found
        failure = self.failureResultOf(Deferred.fromCoroutine(found), NcpsError)
        reason: NcpsError = failure.value
        return reason

    def test_open_reads_need_nothing_and_look_at_nothing(self) -> None:
        """An old token in a netrc does not keep a client from reading what everybody may read."""
        guard = self.guard(AccessRules())
        for credentials in (NO_CREDENTIALS, bearer("wrong")):
            self.assertTrue(self.told(guard, credentials, Scope.READ).may(Scope.READ))
        self.assertEqual(self.counted, [])

    def test_known_token_needs_no_coroutine(self) -> None:
        """If a source knows the client from memory, the guard does not wait."""
        self.source.known["a"] = READER
        guard = self.guard(CLOSED)
        self.assertIs(guard.admit(bearer("a"), Scope.READ), READER)
        self.assertIs(guard.admit(Credentials(user="x", password="a"), Scope.READ), READER)
        self.assertEqual(self.source.questions, 0)

    def test_unknown_token_is_asked_for(self) -> None:
        """A token that was made just now is found."""
        self.source.asked["new"] = READER
        self.assertIs(self.told(self.guard(CLOSED), bearer("new"), Scope.READ), READER)
        self.assertEqual(self.counted, [("token", "ok")])

    def test_no_or_wrong_credentials(self) -> None:
        """Clients learn which command makes a token, and see nothing of what they have sent."""
        guard = self.guard(CLOSED)
        self.source.asked["old"] = WrongCredentials("the token has expired", "expired")
        for credentials in (NO_CREDENTIALS, bearer("wrong"), bearer("old")):
            error = self.refusal(guard, credentials, Scope.READ)
            self.assertIsInstance(error, Unauthenticated)
            self.assertIn("ncps token create", str(error))
            self.assertNotIn("wrong", str(error))
        self.assertEqual(self.counted, [("none", "unknown"), ("token", "expired")])

    def test_missing_scope(self) -> None:
        """A known client learns which scope is missing; an admin has all scopes."""
        self.source.known.update(a=READER, b=ADMIN)
        guard = self.guard(CLOSED)
        error = self.refusal(guard, bearer("a"), Scope.WRITE)
        self.assertIsInstance(error, Forbidden)
        self.assertIn("write", str(error))
        for scope in Scope:
            self.assertIs(self.told(guard, bearer("b"), scope), ADMIN)

    def test_other_paths(self) -> None:
        """A principal for some store paths may not act on others."""
        some = Principal(name="a", scopes=frozenset({Scope.WRITE}), paths=re.compile(".*-hello"))
        self.assertIs(permitted(some, Scope.WRITE, "0-hello"), some)
        self.assertIs(permitted(some, Scope.WRITE), some)
        with self.assertRaises(Forbidden):
            permitted(some, Scope.WRITE, "0-hello-2")

    def test_verb_that_is_off(self) -> None:
        """If nobody can have credentials, a write gets 405."""
        self.source.is_configured = False
        error = self.refusal(self.guard(AccessRules()), NO_CREDENTIALS, Scope.WRITE)
        self.assertIsInstance(error, VerbOff)
        self.assertIn("ncps token create", str(error))

    def test_open_writes_end_with_the_first_token(self) -> None:
        """Anybody may write if a setting says so, but only while there is no token."""
        guard = self.guard(OPEN_WRITES)
        self.source.is_configured = False
        self.assertTrue(self.told(guard, NO_CREDENTIALS, Scope.WRITE).may(Scope.WRITE))
        self.source.is_configured = True
        self.assertIsInstance(self.refusal(guard, NO_CREDENTIALS, Scope.WRITE), Unauthenticated)

    def test_a_write_waits_until_it_is_known_whether_there_are_tokens(self) -> None:
        """While that is unknown, nothing is open, and the answer says so."""
        self.source.is_configured = None
        guard = self.guard(OPEN_WRITES)
        self.assertIsInstance(self.refusal(guard, NO_CREDENTIALS, Scope.WRITE), Unavailable)
        self.assertTrue(self.told(guard, NO_CREDENTIALS, Scope.READ).may(Scope.READ))

    def test_source_that_is_unsure(self) -> None:
        """Credentials that may be right are not refused as wrong; another source may know them."""
        self.source.asked["x"] = Unavailable("the database is away")
        other = StubCredentials()
        guard = Guard([self.source, other], CLOSED)
        self.assertIsInstance(self.refusal(guard, bearer("x"), Scope.READ), Unavailable)
        other.asked["x"] = READER
        self.assertIs(self.told(guard, bearer("x"), Scope.READ), READER)

    def test_other_sources_decide_after_a_reload(self) -> None:
        """Also for a client while a former source still looks for it."""
        gate = Deferred[None]()
        stub = self.source

        class Slow(StubCredentials):
            async def identify(self, credentials: Credentials) -> Principal | None:
                await gate
                return READER

        guard = Guard([Slow()], CLOSED)
        found = guard.admit(bearer("a"), Scope.READ)
        assert isinstance(found, Coroutine)
        asking = Deferred.fromCoroutine(found)
        guard.take([stub], CLOSED)
        gate.callback(None)
        self.failureResultOf(asking, Unauthenticated)
        guard.take([stub], AccessRules())
        self.assertTrue(self.told(guard, NO_CREDENTIALS, Scope.READ).may(Scope.READ))

    def test_an_error_of_a_former_source_is_void_too(self) -> None:
        """The present sources know the client, so no login has failed."""
        for error in (WrongCredentials("no issuer"), Unavailable("away")):
            gate = Deferred[None]()
            slow = _Failing(gate, error)
            guard = Guard([slow], CLOSED, logins=self.limit)
            found = guard.admit(bearer("a"), Scope.READ)
            assert isinstance(found, Coroutine)
            asking = Deferred.fromCoroutine(found)
            self.source.asked["a"] = READER
            guard.take([self.source], CLOSED)
            gate.callback(None)
            self.assertIs(READER, self.successResultOf(asking))
            self.assertEqual([], self.limit.failures)

    def test_advice_is_about_what_is_configured(self) -> None:
        """No client is told to make a token if other credentials are configured."""
        for name, words in (
            ("oidc", "auth-oidc-issuer"),
            ("certificate", "auth-tls-rule"),
            ("proxy", "auth-proxy-header"),
            ("static", "cache-get-token"),
        ):
            known = Principal(name="x", scopes=frozenset(), source=name)
            source = StubCredentials(name)
            source.known["a"] = known
            self.source.is_configured = False
            guard = Guard([self.source, source], CLOSED)
            text = str(self.refusal(guard, NO_CREDENTIALS, Scope.READ))
            self.assertIn(words.removesuffix("-header"), text)
            self.assertNotIn("token create", text)
            self.source.is_configured = True
            text = str(self.refusal(guard, NO_CREDENTIALS, Scope.READ))
            self.assertIn("token create", text)
            text = str(self.refusal(guard, bearer("a"), Scope.WRITE))
            self.assertEqual(name == "static", "token create" in text, text)

    def test_a_token_that_only_reads_is_no_advice_for_writing(self) -> None:
        """The token of `cache-get-token` has no other scope."""
        self.source.is_configured = False
        guard = Guard([self.source, StubCredentials("static")], CLOSED)
        text = str(self.refusal(guard, NO_CREDENTIALS, Scope.WRITE))
        self.assertIn("token create", text)
        self.assertNotIn("cache-get-token", text)

    def test_many_failures(self) -> None:
        """An address with many wrong tokens must wait; a token in memory is still accepted."""
        self.source.known["a"] = READER
        guard = self.guard(CLOSED)
        for _ in range(2):
            self.assertIsInstance(self.refusal(guard, bearer("wrong"), Scope.READ), Unauthenticated)
        self.assertIsInstance(self.refusal(guard, bearer("wrong"), Scope.READ), TooManyFailures)
        self.assertIs(guard.admit(bearer("a"), Scope.READ), READER)
