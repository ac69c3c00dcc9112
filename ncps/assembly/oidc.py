"""Issuers of tokens, joined from their parts; imported only if one is configured."""

from __future__ import annotations

from attrs import evolve, frozen

from ncps.aio.tasks import Tasks
from ncps.assembly.fetching import proxies_of
from ncps.assembly.parts import Foundation
from ncps.auth.oidc.issuer import Issuer
from ncps.auth.oidc.source import OidcTokens
from ncps.auth.rules import ScopeRules
from ncps.settings.kinds.auth import IssuerSetting
from ncps.settings.schema.identities import OidcSettings
from ncps.settings.schema.tree import Settings
from ncps.settings.schema.upstream import UpstreamsSettings
from ncps.upstream.agent import Client
from ncps.upstream.destination import Destination
from ncps.upstream.documents import DEADLINE_S, TIMEOUTS, HttpDocuments


@frozen
class _Made:
    """An issuer and its client; a reload keeps both if their recipe is the same."""

    recipe: tuple[IssuerSetting, UpstreamsSettings]
    client: Client
    issuer: Issuer


class IssuerClients:
    """The source of clients with tokens of an issuer, and the HTTP clients that it needs.

    Before `take`, it knows no clients.

    :ivar tokens: the source; `take` replaces it.
    """

    def __init__(self, base: Foundation, tasks: Tasks) -> None:
        self._base = base
        self._tasks = tasks
        self._made: dict[str, _Made] = {}
        self.tokens = self._source(OidcSettings())

    def take(self, settings: Settings) -> None:
        """Use other settings from now on; an issuer that is in both keeps its keys."""
        oidc, before, self._made = settings.auth.oidc, self._made, {}
        bounds = evolve(settings.cache.upstream, upstreams=(), public_keys=())
        for issuer in oidc.issuers:
            known = before.get(issuer.url)
            if known is not None and known.recipe == (issuer, bounds):
                self._made[issuer.url] = before.pop(issuer.url)
            else:
                self._made[issuer.url] = self._make(issuer, bounds)
        for made in before.values():
            made.client.discard()
        self.tokens = self._source(oidc)

    def _source(self, oidc: OidcSettings) -> OidcTokens:
        issuers = [made.issuer for made in self._made.values()]
        return OidcTokens(issuers, oidc.audiences, ScopeRules(oidc.rules), self._base.reactor)

    def _make(self, setting: IssuerSetting, bounds: UpstreamsSettings) -> _Made:
        """Make an issuer; its server learns only that ncps asks it."""
        base = self._base
        destination = Destination(
            base_url=setting.url, timeouts=TIMEOUTS, proxies=proxies_of(setting.proxies)
        )
        client = Client(
            base.reactor, destination, bounds=bounds, metrics=base.metrics, via=base.role.via
        )
        documents = HttpDocuments(client, base.reactor, deadline_s=DEADLINE_S)
        issuer = Issuer(setting.url, documents, base.reactor, self._tasks, base.metrics)
        return _Made((setting, bounds), client, issuer)

    async def close(self) -> None:
        """Close the idle connections to all issuers."""
        for made in self._made.values():
            await made.client.close()
