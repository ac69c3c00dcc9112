"""Closed reads: no short cut answers a client that the usual way would refuse."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ncps.auth.credentials import WrongCredentials
from ncps.auth.guard import AccessRules, Guard
from ncps.auth.principal import Principal, Scope
from ncps.errors import Unavailable
from ncps.observe.metrics import Metrics
from ncps.web.access import CredentialGuard
from tests.fakes.credentials import StubCredentials
from tests.unit.web.fast.test_channel import DIGESTS, NARS, REST, Action, Way, head, nar_head


def bearer(token: str) -> bytes:
    return REST[:-2] + b"Authorization: Bearer %b\r\n\r\n" % token.encode()


def basic(token: str) -> bytes:
    encoded = base64.b64encode(b"nix:" + token.encode())
    return REST[:-2] + b"authorization: basic %b\r\n\r\n" % encoded


_TOKENS = ("right", "writer", "some", "new", "old", "gone", "away", "wrong")
RESTS = (
    bearer("right"),
    REST,
    *(form(token) for token in _TOKENS for form in (bearer, basic)),
    REST[:-2] + b"Authorization: nonsense\r\n\r\n",
    REST[:-2] + b"Authorization: Bearer right\r\nAuthorization: Bearer right\r\n\r\n",
    REST[:-2] + b"Authorization: Bearer right\r\nRange: bytes=0-1\r\n\r\n",
    REST[:-2] + b"Authorization: Bearer wrong\r\nIf-None-Match: *\r\n\r\n",
    REST[:-2] + b"If-None-Match: *\r\n\r\n",
)


class KnownTokens(StubCredentials):
    """Knows the tokens of these tests."""

    def __init__(self) -> None:
        super().__init__()
        self.renew()
        self.asked = {
            "new": Principal(name="new", scopes=frozenset({Scope.READ})),
            "old": WrongCredentials("the token has expired", "expired"),
            "gone": WrongCredentials("the token has been revoked", "revoked"),
            "away": Unavailable("the database is away"),
        }

    def renew(self) -> None:
        """Make all tokens known without a question."""
        self.known = {
            "right": Principal(name="reader", scopes=frozenset({Scope.READ})),
            "writer": Principal(name="writer", scopes=frozenset({Scope.WRITE})),
            "some": Principal(
                name="some", scopes=frozenset({Scope.READ}), paths=re.compile(".*-hello")
            ),
        }

    def revoke(self) -> None:
        """Make the right token invalid."""
        self.known.pop("right", None)


class ClosedWay(Way):
    """A server for clients with tokens only."""

    def __init__(self, *, is_short: bool, reads_are_open: bool = False) -> None:
        self.tokens = KnownTokens()
        self.metrics: Metrics | None = None
        guard = Guard([self.tokens], AccessRules(reads_are_open=reads_are_open), count=self._count)
        super().__init__(is_short=is_short, rests=RESTS, credentials=CredentialGuard(guard))
        self.metrics = self.server.metrics

    def _count(self, source: str, result: str) -> None:
        if self.metrics is not None:
            self.metrics.authentications(source, result).inc()


REQUESTS = st.one_of(
    st.tuples(st.sampled_from(DIGESTS), st.sampled_from(RESTS)).map(lambda parts: head(*parts)),
    st.sampled_from(RESTS).map(lambda rest: nar_head(NARS[0], rest)),
)


def _send(data: bytes) -> Action:
    return lambda way: way.send(data)


def _each(act: Callable[[KnownTokens], object]) -> Action:
    def action(way: Way) -> None:
        assert isinstance(way, ClosedWay)
        act(way.tokens)

    return action


DEEDS: st.SearchStrategy[Action] = st.one_of(
    REQUESTS.map(_send),
    REQUESTS.map(_send),
    st.lists(REQUESTS, min_size=2, max_size=3).map(b"".join).map(_send),
    st.sampled_from([_each(KnownTokens.revoke), _each(KnownTokens.renew)]),
    st.sampled_from(DIGESTS).map(lambda digest: lambda way: way.change(digest, "a")),
)


class ClosedReadsTests(SynchronousTestCase):
    def same(self, actions: Sequence[Action], *, reads_are_open: bool) -> None:
        ways = [ClosedWay(is_short=short, reads_are_open=reads_are_open) for short in (False, True)]
        for way in ways:
            for action in actions:
                action(way)
        for usual, short in zip(*(way.seen() for way in ways), strict=True):
            self.assertEqual(usual, short)
        for way in ways:
            way.client.leave()

    @given(st.lists(DEEDS, min_size=1, max_size=8))
    @settings(deadline=None, max_examples=60)
    def test_short_cuts_change_nothing_where_reads_are_closed(self, actions: list[Action]) -> None:
        """Tokens of every kind get the same answers on both ways."""
        self.same(actions, reads_are_open=False)

    @given(st.lists(DEEDS, min_size=1, max_size=8))
    @settings(deadline=None, max_examples=20)
    def test_short_cuts_change_nothing_where_reads_are_open(self, actions: list[Action]) -> None:
        """Credentials that need no check change nothing."""
        self.same(actions, reads_are_open=True)

    def status(self, way: ClosedWay, rest: bytes) -> int:
        way.client.send(head(DIGESTS[0], rest))
        return way.client.response().status

    def test_each_token_gets_its_status(self) -> None:
        """Even right after the same narinfo was sent to a client with a right token."""
        way = ClosedWay(is_short=True)
        for form in (bearer, basic):
            for token, status in zip(  # "some" may read other paths alone
                _TOKENS, (200, 403, 403, 200, 401, 401, 503, 401), strict=True
            ):
                self.assertEqual(status, self.status(way, form(token)), token)
        self.assertEqual(401, self.status(way, REST))
        way.tokens.revoke()
        self.assertEqual(401, self.status(way, bearer("right")))

    def test_each_token_gets_its_status_for_a_file(self) -> None:
        """The same holds for a file, even right after it was sent to another client."""
        way = ClosedWay(is_short=True)

        def status(rest: bytes) -> int:
            way.client.send(nar_head(NARS[0], bearer("right")))
            self.assertEqual(200, way.client.response().status)
            self.assertTrue(way.server.logged[-1].is_hot)
            way.client.send(nar_head(NARS[0], rest))
            return way.client.response().status

        way.client.send(nar_head(NARS[0], bearer("right")))
        self.assertEqual(200, way.client.response().status)
        for form in (bearer, basic):
            for token, expected in zip(  # the name of a file is the leave of "some" to read it
                _TOKENS, (200, 403, 200, 200, 401, 401, 503, 401), strict=True
            ):
                self.assertEqual(expected, status(form(token)), token)
        self.assertEqual(401, status(REST))
        way.tokens.revoke()
        for rest in (bearer("right"), REST):
            way.client.send(nar_head(NARS[0], rest))
            self.assertEqual(401, way.client.response().status)
            self.assertFalse(way.server.logged[-1].is_hot)

    def test_a_right_token_takes_the_short_cut(self) -> None:
        """Closed reads are as fast as open ones; the log has the token's name."""
        way = ClosedWay(is_short=True)
        self.assertEqual(200, self.status(way, bearer("right")))
        access = way.server.logged[-1]
        self.assertEqual((True, "reader"), (access.is_hot, access.user))
        self.assertEqual(401, self.status(way, REST))
        self.assertFalse(way.server.logged[-1].is_hot)

    def test_answers_are_not_for_shared_proxies(self) -> None:
        """A proxy must not give one client's answer to another."""
        for is_short in (False, True):
            way = ClosedWay(is_short=is_short)
            way.client.send(head(DIGESTS[0], bearer("right")))
            self.assertEqual("private, max-age=60", way.client.response().headers["cache-control"])
        way = ClosedWay(is_short=True, reads_are_open=True)
        way.client.send(head(DIGESTS[0], bearer("right")))
        self.assertEqual("public, max-age=60", way.client.response().headers["cache-control"])
