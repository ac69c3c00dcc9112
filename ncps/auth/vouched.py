"""Vouched: clients that are known by a certificate or by a trusted proxy.

`Authorization` comes first: a client with a certificate that also sends a token is the principal of
the token.
"""

from __future__ import annotations

from typing import Final

from ncps.aio.recent import BoundedMap
from ncps.auth.credentials import ClientCertificate, Credentials
from ncps.auth.principal import Principal
from ncps.auth.rules import Facts, ScopeRules

MAX_REMEMBERED: Final = 1000

_KINDS: Final = {"DNS": "dns", "URI": "uri", "email": "email"}
"""Kinds of names in certificates, with their names in rules."""


def facts_of(certificate: ClientCertificate) -> Facts:
    """Return the facts of a certificate, for rules."""
    facts: dict[str, tuple[str, ...]] = {}
    if certificate.common_name:
        facts["cn"] = (certificate.common_name,)
    for name in certificate.names:
        kind, _, value = name.partition(":")
        known = _KINDS.get(kind)
        if known is not None:
            facts[known] = (*facts.get(known, ()), value)
    return facts


class CertificateClients:
    """The source of credentials for clients with a certificate."""

    name = "certificate"

    def __init__(self, rules: ScopeRules) -> None:
        self._rules = rules
        self._known: BoundedMap[ClientCertificate, Principal] = BoundedMap(MAX_REMEMBERED)

    @property
    def is_configured(self) -> bool:
        """See `CredentialSource`."""
        return len(self._rules) > 0

    def recall(self, credentials: Credentials) -> Principal | None:
        """See `CredentialSource`."""
        certificate = credentials.certificate
        if certificate is None or credentials.secret or not self.is_configured:
            return None
        found = self._known.get(certificate)
        if found is None:
            name = certificate.common_name or next(iter(certificate.names), "no name")
            found = self._rules.principal(f"certificate {name}", facts_of(certificate), self.name)
            self._known.put(certificate, found)
        return found

    async def identify(self, credentials: Credentials) -> Principal | None:
        """See `CredentialSource`."""
        return self.recall(credentials)


class ProxyUsers:
    """The source of credentials for clients that a trusted proxy has authenticated."""

    name = "proxy"

    def __init__(self, rules: ScopeRules) -> None:
        self._rules = rules
        self._known: BoundedMap[str, Principal] = BoundedMap(MAX_REMEMBERED)

    @property
    def is_configured(self) -> bool:
        """See `CredentialSource`."""
        return len(self._rules) > 0

    def recall(self, credentials: Credentials) -> Principal | None:
        """See `CredentialSource`."""
        user = credentials.proxy_user
        if not user or credentials.secret or not self.is_configured:
            return None
        found = self._known.get(user)
        if found is None:
            found = self._rules.principal(f"user {user}", {"user": (user,)}, self.name)
            self._known.put(user, found)
        return found

    async def identify(self, credentials: Credentials) -> Principal | None:
        """See `CredentialSource`."""
        return self.recall(credentials)
