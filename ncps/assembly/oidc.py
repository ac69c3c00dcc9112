"""Issuers of tokens, put together; imported only where one is configured."""

from __future__ import annotations

from ncps.aio.tasks import Tasks
from ncps.assembly.fetching import proxies_of
from ncps.assembly.parts import Foundation
from ncps.auth.oidc.issuer import Issuer
from ncps.auth.oidc.source import OidcTokens
from ncps.auth.rules import ScopeRules
from ncps.settings.kinds.auth import IssuerSetting
from ncps.upstream.agent import Client
from ncps.upstream.destination import Destination
from ncps.upstream.documents import DEADLINE_S, TIMEOUTS, HttpDocuments


class IssuerClients:
    """The source of clients with tokens of an issuer, and the HTTP clients that it needs.

    :ivar tokens: the source.
    """

    def __init__(self, base: Foundation, tasks: Tasks) -> None:
        settings = base.settings.auth.oidc
        clients = {issuer.url: _client(base, issuer) for issuer in settings.issuers}
        self._clients = list(clients.values())
        issuers = [
            Issuer(url, _documents(base, client), base.reactor, tasks, base.metrics)
            for url, client in clients.items()
        ]
        rules = ScopeRules(settings.rules)
        self.tokens = OidcTokens(issuers, settings.audiences, rules, base.reactor)

    async def close(self) -> None:
        """Close the idle connections."""
        for client in self._clients:
            await client.close()


def _documents(base: Foundation, client: Client) -> HttpDocuments:
    return HttpDocuments(client, base.reactor, deadline_s=DEADLINE_S)


def _client(base: Foundation, setting: IssuerSetting) -> Client:
    """Make the HTTP client of one issuer; it is told nothing of us but that we are ncps."""
    destination = Destination(
        base_url=setting.url, timeouts=TIMEOUTS, proxies=proxies_of(setting.proxies)
    )
    return Client(
        base.reactor,
        destination,
        bounds=base.settings.cache.upstream,
        metrics=base.metrics,
        via=base.role.via,
    )
