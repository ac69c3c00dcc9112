"""Access, as the settings define it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from ncps.aio.tasks import Tasks
from ncps.assembly.access import AccessControl, access_control, rules_of
from ncps.assembly.edge import let_read, scrapes
from ncps.assembly.parts import Foundation
from ncps.assembly.reloaders import of_clients
from ncps.assembly.role import Alone
from ncps.auth.guard import AccessRules
from ncps.auth.principal import Scope
from ncps.auth.tokens import new_token
from ncps.errors import Unavailable
from ncps.observe.metrics import Metrics
from ncps.upstream.requester import Requesters
from ncps.web.routes import Routes
from ncps.web.site import NcpsSite
from tests.contract.running import start
from tests.fakes.tokens import MemoryTokens
from tests.unit.auth.test_tokens import token
from tests.unit.settings.around import load_with


class RulesTests(SynchronousTestCase):
    def test_reads(self) -> None:
        """Reads are open by default; a setting, or the Go program's token, closes them."""
        self.assertEqual(AccessRules(), rules_of(load_with()))
        closed = AccessRules(reads_are_open=False)
        self.assertEqual(closed, rules_of(load_with({"auth-reads": "token"})))
        self.assertEqual(closed, rules_of(load_with({"cache-get-token": "hush"})))

    def test_verbs(self) -> None:
        """Each of the two settings of the Go program opens one scope."""
        for verb, scope in (("put", Scope.WRITE), ("delete", Scope.DELETE)):
            found = rules_of(load_with({f"cache-allow-{verb}-verb": "true"}))
            self.assertEqual(frozenset({scope}), found.open_verbs)


class AccessControlTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.rows = MemoryTokens()
        self.clock = Clock()

    def base(self, **flags: str) -> Foundation:
        parts: Any = SimpleNamespace(tokens=self.rows)
        return Foundation(
            reactor=self.clock,
            settings=load_with({flag.replace("_", "-"): value for flag, value in flags.items()}),
            parts=parts,
            metrics=Metrics(),
            role=Alone(self.clock),
        )

    def control(self, **flags: str) -> AccessControl:
        return access_control(self.base(**flags), Tasks(self.clock))

    def begun(self, control: AccessControl) -> list[str]:
        """Begin, and return the warnings of the log."""
        with capturedLogs() as events:
            self.successResultOf(start(control.begin()))
        return [str(event["told"]) for event in events if "told" in event]

    def test_nothing_is_open_but_reads(self) -> None:
        """By default there is no warning."""
        control = self.control()
        self.assertEqual([], self.begun(control))
        self.assertEqual([], control.warnings())
        self.assertEqual(
            {"reads": "everybody", "writes": "nobody", "deletes": "nobody"}, control.told()
        )

    def test_open_verbs_are_warned_of_until_there_is_a_token(self) -> None:
        """The warning says how to close them, and then goes away."""
        control = self.control(cache_allow_put_verb="true", cache_allow_delete_verb="true")
        warnings = self.begun(control)
        self.assertEqual(warnings, control.warnings())
        self.assertEqual(2, len(warnings))
        self.assertIn("ncps token create --name NAME --scope write", warnings[0])
        self.assertEqual("everybody", control.told()["writes"])
        self.rows.rows["1"] = token(new_token())
        self.rows.number = 1
        self.successResultOf(start(control.tokens.look()))
        self.assertEqual([], control.warnings())
        self.assertEqual("token", control.told()["writes"])

    def test_token_of_the_settings_closes_writes(self) -> None:
        """It counts as a token; without any, uploads are open to everybody."""
        control = self.control(cache_allow_put_verb="true", cache_get_token="hush")
        self.assertEqual([], self.begun(control))
        self.assertEqual({"reads": "token", "writes": "token", "deletes": "token"}, control.told())

    def test_a_reload_closes_reads_at_once(self) -> None:
        """Ready answers do not wait until connections to an issuer are closed."""
        self.clock.nameResolver = None  # type: ignore[attr-defined] # no name is looked up
        base = self.base(
            auth_oidc_issuer="https://issuer.example.org",
            auth_oidc_audience="cache",
            auth_oidc_rule="scope=read;sub=someone",
        )
        control = access_control(base, Tasks(self.clock))
        routes = Routes([scrapes(base, base.settings)])
        site = NcpsSite(routes, clock=self.clock, metrics=base.metrics)
        let_read(site, control)
        self.patch(Requesters, "close", lambda _: Deferred())
        reload: Any = of_clients(base, control, site)
        reloading = start(reload(load_with({"auth-reads": "token"})))
        self.assertTrue(site.hot.are_private)
        self.assertEqual([], self.successResultOf(reloading))
        self.assertEqual((), control.vouched.sources)

    def test_database_that_is_away_at_the_start(self) -> None:
        """All that may be closed counts as closed; `/readyz` says why."""
        self.rows.failing = Unavailable("away")
        control = self.control(cache_allow_put_verb="true")
        (warning,) = self.begun(control)
        self.assertIn("database", warning)
        self.assertEqual("token", control.told()["writes"])
