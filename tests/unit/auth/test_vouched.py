"""Clients that are known by their connection."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ncps.auth.credentials import ClientCertificate, Credentials
from ncps.auth.principal import Scope
from ncps.auth.rules import ScopeRules
from ncps.auth.vouched import MAX_REMEMBERED, CertificateClients, ProxyUsers
from ncps.settings.kinds.auth import PROXY_RULE, TLS_RULE, AuthRule
from ncps.settings.setting import Kind

CI = ClientCertificate(
    common_name="ci-7", names=("DNS:runner.example", "URI:spiffe://example/ci", "IP Address:::1")
)


def rules(kind: Kind, *texts: str) -> ScopeRules:
    found = [kind.parse(text) for text in texts]
    return ScopeRules([rule for rule in found if isinstance(rule, AuthRule)])


class CertificateTests(SynchronousTestCase):
    def scopes(self, rule: str, certificate: ClientCertificate = CI) -> set[str]:
        source = CertificateClients(rules(TLS_RULE, rule))
        found = source.recall(Credentials(certificate=certificate))
        assert found is not None
        return {scope.value for scope in found.scopes}

    def test_names_decide(self) -> None:
        """The common name and the alternative names, each as its own kind."""
        for rule in ("cn=ci-*", "dns=runner.example", "uri=spiffe://example/*", "cn=*; dns=*"):
            self.assertEqual({"write"}, self.scopes(f"scope=write; {rule}"), rule)
        for rule in ("cn=runner.example", "dns=ci-7", "email=*", "uri=*; email=*", "cn=ci"):
            self.assertEqual(set(), self.scopes(f"scope=write; {rule}"), rule)

    def test_a_certificate_without_names(self) -> None:
        """It matches nothing, not even *."""
        self.assertEqual(set(), self.scopes("scope=write; cn=*", ClientCertificate()))

    def test_a_token_counts_before_it(self) -> None:
        """A client may use a certificate to connect, and a token to write."""
        source = CertificateClients(rules(TLS_RULE, "scope=read; cn=*"))
        sent = Credentials(certificate=CI, bearer="token")
        self.assertIsNone(source.recall(sent))
        self.assertIsNone(self.successResultOf(Deferred.fromCoroutine(source.identify(sent))))
        alone = Credentials(certificate=CI)
        self.assertIsNotNone(self.successResultOf(Deferred.fromCoroutine(source.identify(alone))))

    def test_without_rules_or_certificate(self) -> None:
        """It does not belong to this source."""
        self.assertIsNone(CertificateClients(ScopeRules([])).recall(Credentials(certificate=CI)))
        self.assertFalse(CertificateClients(ScopeRules([])).is_configured)
        source = CertificateClients(rules(TLS_RULE, "scope=read; cn=*"))
        self.assertIsNone(source.recall(Credentials()))
        self.assertTrue(source.is_configured)


class ProxyTests(SynchronousTestCase):
    def test_users_decide(self) -> None:
        """The names must be equal, except for *."""
        source = ProxyUsers(
            rules(PROXY_RULE, "scope=read,write; user=alice,ci-*", "scope=read; user=*")
        )
        for user, may_write in (("alice", True), ("ci-1", True), ("Alice", False), ("bob", False)):
            found = source.recall(Credentials(proxy_user=user))
            assert found is not None
            self.assertTrue(found.may(Scope.READ))
            self.assertEqual(may_write, found.may(Scope.WRITE), user)
        self.assertIsNone(source.recall(Credentials(proxy_user="alice", password="x")))
        self.assertIsNone(source.recall(Credentials()))

    def test_memory_is_bounded(self) -> None:
        """A proxy may have many users."""
        source = ProxyUsers(rules(PROXY_RULE, "scope=read; user=*"))
        for number in range(MAX_REMEMBERED + 10):
            source.recall(Credentials(proxy_user=str(number)))
        self.assertEqual(MAX_REMEMBERED, len(source._known))
