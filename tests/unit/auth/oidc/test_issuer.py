"""The keys of an issuer: fetched when they are needed, kept while the issuer is away."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.tasks import Tasks
from ncps.auth.oidc.issuer import FRESH_S, REST_S, RETRY_S, STALE_S, Issuer
from ncps.auth.oidc.keys import IssuerKey
from ncps.errors import Corrupt, NcpsError, Unavailable
from ncps.observe.metrics import Metrics
from tests.fakes.clocks import SetClock
from tests.fakes.documents import FakeDocuments
from tests.fakes.issuer import GITHUB, discovery, keys, public_jwk
from tests.fakes.metrics import series

CONFIGURATION = f"{GITHUB}/.well-known/openid-configuration"
KEYS = f"{GITHUB}/keys"


class IssuerCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = SetClock()
        self.metrics = Metrics()
        self.documents = FakeDocuments()
        self.tasks = Tasks(self.clock)
        self.issuer = self.make(GITHUB)
        self.documents.pages[CONFIGURATION] = discovery(GITHUB)
        self.publish("a")

    def tearDown(self) -> None:
        self.assertEqual([], self.tasks.names)

    def make(self, url: str) -> Issuer:
        return Issuer(url, self.documents, self.clock, self.tasks, self.metrics)

    def publish(self, *names: str) -> None:
        described = [public_jwk("EdDSA", name) for name in names]
        self.documents.pages[KEYS] = keys(*described)

    def go_away(self) -> None:
        self.documents.pages[CONFIGURATION] = Unavailable("nobody answers")

    def ask(self, key_id: str | None) -> Deferred[IssuerKey | None]:
        return Deferred.fromCoroutine(self.issuer.find_key(key_id, "EdDSA"))

    def has(self, key_id: str) -> bool:
        return self.successResultOf(self.ask(key_id)) is not None

    def unsure(self, key_id: str = "a") -> Unavailable:
        error: Unavailable = self.failureResultOf(self.ask(key_id), Unavailable).value
        return error

    @property
    def fetches(self) -> int:
        return self.documents.fetched.count(CONFIGURATION)


class FreshTests(IssuerCase):
    def test_keys_are_fetched_when_one_is_wanted(self) -> None:
        """Not at the start, and once for all tokens."""
        self.assertEqual([], self.documents.fetched)
        self.assertTrue(self.has("a"))
        self.assertTrue(self.has("a"))
        self.assertEqual([CONFIGURATION, KEYS], self.documents.fetched)
        self.assertEqual({"done": 1}, series(self.metrics.oidc_fetches))

    def test_all_waiting_clients_share_one_fetch(self) -> None:
        """Also when the client that asked first leaves."""
        self.documents.holds = True
        asking = [self.ask("a") for _ in range(100)]
        self.assertEqual(1, self.fetches)
        asking[0].addErrback(lambda _: None)
        asking[0].cancel()
        self.documents.holds = False
        self.documents.release()
        for each in asking[1:]:
            self.assertIsNotNone(self.successResultOf(each))

    def test_a_new_key_is_known_at_once(self) -> None:
        """An issuer that rotates its keys is asked when a token names a new one."""
        self.assertTrue(self.has("a"))
        self.clock.advance(REST_S)
        self.publish("b")
        self.assertTrue(self.has("b"))
        self.assertFalse(self.has_after_rest("a"))

    def has_after_rest(self, key_id: str) -> bool:
        self.clock.advance(REST_S)
        return self.has(key_id)

    def test_keys_that_do_not_exist_do_not_bother_the_issuer(self) -> None:
        """One fetch in REST_S, whatever the tokens name; until then, Unavailable."""
        self.assertFalse(self.has("no such key"))
        for number in range(1000):
            self.assertLessEqual(self.unsure(str(number)).retry_after or 0, REST_S)
        self.assertEqual(1, self.fetches)
        self.assertTrue(self.has("a"))
        self.clock.advance(REST_S)
        self.assertFalse(self.has("no such key"))
        self.assertEqual(2, self.fetches)

    def test_keys_are_fetched_again_while_the_old_ones_hold(self) -> None:
        """A withdrawn key is gone after the next fetch, for which no client waits."""
        self.assertTrue(self.has("a"))
        self.clock.advance(FRESH_S + 1)
        self.publish("b")
        self.documents.holds = True
        self.assertTrue(self.has("a"))
        self.assertTrue(self.has("a"))
        self.assertEqual(2, self.fetches)
        self.documents.holds = False
        self.documents.release()
        self.assertTrue(self.has("b"))
        self.clock.advance(REST_S)
        self.assertFalse(self.has("a"))


class AwayTests(IssuerCase):
    def test_known_keys_hold_while_the_issuer_is_away(self) -> None:
        """For a day; after that, the answer is Unavailable, which is no refusal."""
        self.assertTrue(self.has("a"))
        self.go_away()
        self.clock.advance(STALE_S - 1)
        self.assertTrue(self.has("a"))
        self.clock.advance(2)
        self.assertIn("nobody answers", str(self.unsure()))
        self.documents.pages[CONFIGURATION] = discovery(GITHUB)
        self.clock.advance(RETRY_S)
        self.assertTrue(self.has("a"))

    def test_an_issuer_that_is_away_is_not_asked_for_each_token(self) -> None:
        """Once in RETRY_S; the log and the readiness page say so once."""
        self.go_away()
        for _ in range(100):
            self.assertIn("nobody answers", str(self.unsure()))
        self.assertEqual(1, self.fetches)
        self.assertEqual(RETRY_S, self.unsure().retry_after)
        self.clock.advance(RETRY_S)
        self.unsure()
        self.assertEqual(2, self.fetches)
        self.assertEqual(1, len(self.issuer.warnings()))
        self.documents.pages[CONFIGURATION] = discovery(GITHUB)
        self.clock.advance(RETRY_S)
        self.assertTrue(self.has("a"))
        self.assertEqual([], self.issuer.warnings())

    def test_an_issuer_that_talks_rubbish_is_away(self) -> None:
        """It gives no usable keys; the known ones stay valid."""
        self.assertTrue(self.has("a"))
        pages: tuple[bytes | NcpsError, ...] = (
            b"",
            b"<html>",
            b"{}",
            b"[" * 100_000,
            discovery("https://another.example"),
            discovery(f"{GITHUB}/"),
            discovery(GITHUB, "http://token.actions.githubusercontent.com/keys"),
            discovery(GITHUB, "http://127.0.0.1/keys"),
            discovery(GITHUB, "file:///etc/passwd"),
            discovery(GITHUB, "https://u:p@x.example/"),
            discovery(GITHUB, "https://[x"),
            discovery(GITHUB, "//x.example/keys"),
            discovery(GITHUB, "https://x.example/a b"),
            discovery(GITHUB, "https://"),
            discovery(GITHUB).replace(b'"jwks_uri"', b'"other"'),
            Corrupt("leads elsewhere"),
        )
        for number, page in enumerate(pages):
            self.documents.pages[CONFIGURATION] = page
            self.documents.fetched.clear()
            self.clock.advance(REST_S)
            self.unsure("b")
            self.assertEqual([CONFIGURATION], self.documents.fetched, str(number))
            self.assertTrue(self.has("a"))

    def test_keys_that_cannot_be_read_change_nothing(self) -> None:
        """The document of the issuer may be right, and that of the keys wrong."""
        self.assertTrue(self.has("a"))
        for page in (b"", b'{"keys": []}', Unavailable("slow"), Corrupt("large")):
            self.documents.pages[KEYS] = page
            self.clock.advance(REST_S)
            self.unsure("b")
            self.assertTrue(self.has("a"))

    def test_keys_may_be_elsewhere(self) -> None:
        """At the address that the issuer names, if nobody can change them in transit."""
        self.documents.pages[CONFIGURATION] = discovery(GITHUB, "https://keys.example/x?y=1")
        self.documents.pages["https://keys.example/x?y=1"] = self.documents.pages.pop(KEYS)
        self.assertTrue(self.has("a"))

    def test_an_issuer_on_this_machine(self) -> None:
        """It may use http, if its keys are on this machine, too."""
        url = "http://127.0.0.1:8080/x"
        self.issuer = self.make(url)
        configuration = f"{url}/.well-known/openid-configuration"
        self.documents.pages[configuration] = discovery(url, "http://elsewhere.example/")
        self.unsure()
        self.documents.pages[configuration] = discovery(url)
        self.documents.pages[f"{url}/keys"] = keys(public_jwk("EdDSA", "a"))
        self.clock.advance(RETRY_S)
        self.assertTrue(self.has("a"))
