"""The short cuts of a connection: the same requests get the same bytes on both ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.cache.answers import Outcome
from ncps.errors import Unavailable
from ncps.nix.narurl import NarKey
from ncps.settings.schema.server import ServerSettings
from ncps.web.access import CredentialGuard
from ncps.web.fast.heads import KnownHeads
from tests.fakes.cache import served_narinfo
from tests.fakes.files import MemoryFile
from tests.unit.web.wire import Client, Server

DIGESTS = ("0" * 32, "1" * 32, "2" * 32)
NARS = (NarKey("0" * 52, "xz"), NarKey("1" * 52, ""))
REST = b" HTTP/1.1\r\nHost: cache\r\nUser-Agent: curl/8.14.1 Nix/2.28.4\r\nAccept: */*\r\n\r\n"
LIMITS = ServerSettings(
    header_timeout_s=10.0, idle_timeout_s=120.0, max_header_size_bytes=700, max_headers=6
)


def head(digest: str, rest: bytes = REST) -> bytes:
    return b"GET /%b.narinfo%b" % (digest.encode(), rest)


def nar_head(key: NarKey, rest: bytes = REST) -> bytes:
    return b"GET /%b%b" % (key.url.encode(), rest)


_LINES = (
    b"If-None-Match: *",
    b"Range: bytes=0-1",
    b"Authorization: Bearer x",
    b"Via: 1.1 ncps-0123",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Content-Length: 0",
    b"Content-Length: 3",
    b"Transfer-Encoding: chunked",
    b"Expect: 100-continue",
    b"Cookie: a=b",
    b"X: a\nConnection: close",
    b"X:\x00",
    b"X: " + b"y" * (LIMITS.max_header_size_bytes - len(b"GET /pubkey" + REST + b"X: \r\n")),
    b"X: y\r\n" * 5 + b"X: y",
    b" folded",
    b"no colon",
)
RESTS = (
    REST,
    b" HTTP/1.0\r\n\r\n",
    b" HTTP/1.1\r\n\r\n",
    b" http/1.1\r\n\r\n",
    *(REST[:-2] + line + b"\r\n\r\n" for line in _LINES),
)


@cache
def heads_of(rests: tuple[bytes, ...]) -> KnownHeads:
    """Return the known heads of a server after these requests."""
    server = Server(LIMITS)
    for rest in rests:
        client = server.connect()
        client.send(b"GET /pubkey" + rest)
        client.leave()
    return server.site.heads


def without_short_answers(metrics: bytes) -> bytes:
    """Return the metrics without the one that counts short cuts."""
    lines = metrics.splitlines()
    return b"\n".join(line for line in lines if not line.startswith(b"ncps_short_answers_total{"))


class Way:
    """A server and one client, with short cuts or without, and everything that can be observed.

    :param rests: heads that a server with short cuts knows, as bytes after the target.
    :param credentials: decides who may read.
    """

    def __init__(
        self,
        *,
        is_short: bool,
        rests: tuple[bytes, ...] = RESTS,
        credentials: CredentialGuard | None = None,
    ) -> None:
        hot_bytes = 100_000 if is_short else 0
        self.server = Server(LIMITS, hot_bytes=hot_bytes, credentials=credentials)
        self.server.site.date = lambda: b"now"  # type: ignore[method-assign]
        if not is_short:
            self.server.site.heads.learn = lambda head, headers: None  # type: ignore[method-assign]
        self.is_away = False
        for digest in DIGESTS[:2]:
            self.put(digest, "")
        self.store(NARS[0])
        self.takes: int | None = None
        if is_short:
            self.server.site.heads = heads_of(rests)
        client = self.server.connect()
        for digest in DIGESTS[:2]:
            client.send(head(digest, rests[0]) * 2)
        client.send(nar_head(NARS[0], rests[0]) * 2)
        client.leave()
        self.server.site.ledger.settle()
        self.server.cache.asked.clear()
        self.server.cache.used.clear()
        self.told: list[tuple[bytes, bool]] = []
        self.client = self.server.connect()

    def put(self, digest: str, note: str) -> None:
        self.server.cache.narinfos[digest] = served_narinfo(
            text=f"StorePath: {digest}{note}\n".encode(),
            outcome=Outcome.HIT,
            upstream="up.example",
            may_repeat=lambda: not self.is_away,
        )

    def store(self, key: NarKey) -> None:
        """Make the NAR stored."""
        data = key.file_name.encode() * 10
        nar = self.server.cache.add_nar(key, data, size=len(data))
        nar.reopen = lambda: None if self.is_away else MemoryFile(data)

    def change_nar(self, key: NarKey | None) -> None:
        """Report that the state of one NAR, or of all, may have changed."""
        self.server.cache.nar_changed(key)

    def lose_nar(self, key: NarKey) -> None:
        self.server.cache.nars[key] = Unavailable("its upstream is away")
        self.server.cache.nar_changed(key)

    def send(self, data: bytes) -> None:
        """Let bytes arrive, on a new connection if the last one has ended."""
        if self.client.disconnecting or self.client.disconnected:
            self.told.append((self.client.value(), self.client.disconnected))
            self.client.leave()
            self.client = self.server.connect()
        self.client.takes = self.takes
        self.client.send(data)

    def change(self, digest: str, note: str) -> None:
        self.put(digest, note)
        self.server.cache.forget(digest)

    def lose(self, digest: str) -> None:
        self.server.cache.narinfos[digest] = Unavailable("its upstream is away")
        self.server.cache.forget(digest)

    def go_away(self) -> None:
        """Let all upstreams be away: narinfos that are not stored may not be shown."""
        self.is_away = True
        for digest in DIGESTS:
            self.server.cache.narinfos[digest] = Unavailable("all upstreams are away")
        for key in NARS:
            self.server.cache.nars[key] = Unavailable("all upstreams are away")

    def advance(self, seconds: float) -> None:
        self.server.clock.advance(seconds)

    def seen(self) -> tuple[object, ...]:
        core = self.server.cache
        logged = [access._replace(is_hot=False) for access in self.server.logged]
        return (
            self.told,
            self.client.value(),
            self.client.disconnecting,
            self.client.disconnected,
            logged,
            sorted({*map(str, core.asked), *map(str, core.used)}),
            without_short_answers(generate_latest(self.server.metrics.registry)),
            [call.getTime() for call in self.server.timers],
        )


TARGETS = st.sampled_from(
    [
        *(f"/{digest}.narinfo".encode() for digest in DIGESTS),
        b"/%b.narinfo?x" % DIGESTS[0].encode(),
        f"/{NARS[0].url}".encode(),
        f"/{NARS[1].url}".encode(),
        f"/{NARS[0].url}?x".encode(),
        b"/pubkey",
        b"/\xff",
        b"/a\r\nX: y",
        b"/" + b"a" * 600,
    ]
)
VERBS = st.sampled_from([b"GET ", b"GET ", b"GET ", b"HEAD ", b"get ", b"PUT ", b"GET  "])
PLAIN = st.one_of(
    st.sampled_from(DIGESTS).map(head),
    st.sampled_from([NARS[0], *NARS]).map(nar_head),
)
MESSAGES = st.one_of(
    PLAIN,
    st.tuples(st.sampled_from(DIGESTS), st.sampled_from(RESTS)).map(lambda parts: head(*parts)),
    st.sampled_from(RESTS).map(lambda rest: nar_head(NARS[0], rest)),
    st.tuples(VERBS, TARGETS, st.sampled_from(RESTS)).map(b"".join),
    st.sampled_from([b"\r\n", b"\r\n\r\n", b"\n", b"G", b"GET /pubkey HTTP/1.1\r\n"]),
)


@st.composite
def segments(draw: st.DrawFn) -> list[bytes]:
    """Return requests in pieces, cut mostly between requests, or nowhere."""
    messages = draw(st.lists(MESSAGES, min_size=1, max_size=4))
    stream = b"".join(messages)
    ends = {sum(map(len, messages[:n])) for n in range(1, len(messages))}
    anywhere = st.sets(st.integers(0, len(stream)), max_size=5)
    cuts = draw(st.one_of(st.just(ends), st.just(ends), st.just(set()), anywhere))
    return [stream[a:b] for a, b in pairwise(sorted({0, len(stream), *cuts}))]


Action = Callable[[Way], object]


def _send(pieces: Sequence[bytes]) -> Action:
    def action(way: Way) -> None:
        for piece in pieces:
            way.send(piece)

    return action


def _take(count: int | None) -> Action:
    """Let the client take `count` bytes of each file in one call."""

    def action(way: Way) -> None:
        way.takes = count

    return action


def _change(digest: str, note: str) -> Action:
    return lambda way: way.change(digest, note)


DEEDS: st.SearchStrategy[Action] = st.one_of(
    PLAIN.map(lambda data: _send([data])),
    segments().map(_send),
    segments().map(_send),
    st.builds(_change, st.sampled_from(DIGESTS), st.sampled_from("ab")),
    st.sampled_from(DIGESTS).map(lambda digest: lambda way: way.lose(digest)),
    st.just(Way.go_away),
    st.sampled_from([*NARS, None]).map(lambda key: lambda way: way.change_nar(key)),
    st.sampled_from(NARS).map(lambda key: lambda way: way.lose_nar(key)),
    st.sampled_from(NARS).map(lambda key: lambda way: way.store(key)),
    st.sampled_from([0, 1, 50, 300, 400, 500, 800, None]).map(_take),
    st.sampled_from([0.1, 9.0, 70.0]).map(lambda s: lambda way: way.advance(s)),
)


class SameAnswersTests(SynchronousTestCase):
    @given(st.lists(DEEDS, min_size=1, max_size=8))
    @settings(deadline=None, max_examples=100)
    def test_short_cuts_change_nothing_that_can_be_seen(self, actions: list[Action]) -> None:
        """Answers, log, metrics, times of use and deadlines are the same."""
        ways = [Way(is_short=False), Way(is_short=True)]
        for way in ways:
            for action in actions:
                action(way)
        for usual, short in zip(*(way.seen() for way in ways), strict=True):
            self.assertEqual(usual, short)
        for way in ways:
            way.client.leave()


class ShortCutCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.way = Way(is_short=True)
        self.server, self.client = self.way.server, self.way.client
        self.asked = len(self.server.cache.asked)

    def is_taken(self, data: bytes, client: Client | None = None) -> bool:
        """Whether a request is answered without asking the cache."""
        before = len(self.server.cache.asked)
        (client or self.client).send(data)
        return len(self.server.cache.asked) == before


class ShortCutTests(ShortCutCase):
    def test_plain_request_for_a_hot_narinfo_is_not_passed_on(self) -> None:
        """The cache is not asked for a narinfo that was shown before."""
        self.assertTrue(self.is_taken(head(DIGESTS[0])))
        response = self.client.response()
        self.assertEqual(response.status, 200)
        self.assertEqual(response.body, f"StorePath: {DIGESTS[0]}\n".encode())
        self.assertEqual(response.headers["x-cache"], "hit")
        self.assertTrue(self.server.logged[-1].is_hot)

    def test_uses_are_told_in_time(self) -> None:
        """Eviction learns of hot narinfos, too, within a quarter of a second."""
        self.server.site.ledger.settle()
        used = self.server.cache.used
        used.clear()
        self.client.send(head(DIGESTS[0]))
        self.assertEqual(used, [])
        self.server.clock.advance(0.25)
        self.assertEqual(used, [DIGESTS[0]])

    def test_requests_for_more_take_the_usual_way(self) -> None:
        """The pages handle ranges, conditions and proxies."""
        for line in (b"Range: bytes=0-", b"If-Match: *", b"Via: 1.1 p"):
            rest = REST[:-2] + line + b"\r\n\r\n"
            for _ in range(2):
                self.assertFalse(self.is_taken(head(DIGESTS[0], rest)), line)
        self.assertFalse(self.is_taken(b"HEAD" + head(DIGESTS[0])[3:]))

    def test_what_was_changed_or_may_not_be_shown_is_asked_for(self) -> None:
        """An answer is sent only if the cache would give the same."""
        self.server.cache.forget(DIGESTS[0])
        self.assertFalse(self.is_taken(head(DIGESTS[0])))
        self.assertTrue(self.is_taken(head(DIGESTS[0])))
        self.way.is_away = True
        self.assertFalse(self.is_taken(head(DIGESTS[0])))

    def test_answers_of_one_connection_alone_are_not_repeated(self) -> None:
        """A client that closes its connection closes no other one."""
        self.server.cache.forget(DIGESTS[0])
        other = self.server.connect()
        other.ask(f"/{DIGESTS[0]}.narinfo", connection="close")
        self.assertEqual(other.response().headers["connection"], "close")
        self.assertTrue(self.is_taken(head(DIGESTS[0])))
        self.assertNotIn("connection", self.client.response().headers)

    def test_busy_server_takes_no_short_cuts(self) -> None:
        """The limit of running requests holds for hot narinfos as well."""
        self.server = Server(ServerSettings(max_requests=1))
        core = self.server.cache
        core.narinfos[DIGESTS[0]] = served_narinfo(
            text=b"x", outcome=Outcome.HIT, may_repeat=lambda: True
        )
        client = self.server.connect()
        for _ in range(2):
            client.send(head(DIGESTS[0]))
            client.response()
        core.gate = Deferred()
        other = self.server.connect()
        other.ask(f"/{DIGESTS[1]}.narinfo")
        client.send(head(DIGESTS[0]))
        self.assertEqual(client.response().status, 503)
        other.leave()
        self.assertTrue(self.is_taken(head(DIGESTS[0]), client))

    def test_draining_server_takes_no_short_cuts(self) -> None:
        """A server that stops tells its clients to close."""
        self.client.send(head(DIGESTS[0])[:-2])
        draining = Deferred.fromCoroutine(self.server.site.drain(30.0))
        self.client.send(b"\r\n")
        self.assertEqual(self.client.response().headers["connection"], "close")
        self.client.leave()
        self.successResultOf(draining)
        self.assertEqual(len(self.server.hot), 0)

    def test_hot_answers_keep_a_connection_open_and_silence_closes_it(self) -> None:
        """The idle timeout begins again with each answer."""
        for _ in range(3):
            self.server.clock.advance(100)
            self.client.send(head(DIGESTS[0]))
        self.server.clock.advance(119)
        self.assertFalse(self.client.disconnecting)
        self.server.clock.advance(1)
        self.assertTrue(self.client.disconnecting)

    def test_client_that_takes_nothing_is_not_idle_at_once(self) -> None:
        """Unsent bytes of a hot answer do not count for the next one."""
        for left in (1000, 2000):
            self.client.send(head(DIGESTS[0]))
            self.client.dataBuffer = bytes(left)  # type: ignore[attr-defined]
            self.server.clock.advance(120)
            self.assertFalse(self.client.disconnecting)

    def test_each_short_cut_is_counted(self) -> None:
        """The metric has the number of answers by a short cut."""
        taken = []
        for _ in range(2):
            self.client.send(head(DIGESTS[0]))
            self.server.site.ledger.settle()
            count = self.server.sample("ncps_short_answers_total", route="/{hash}.narinfo")
            taken.append(count or 0.0)
        self.assertEqual(1, taken[1] - taken[0])
