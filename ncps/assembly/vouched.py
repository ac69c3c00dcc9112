"""Clients that an issuer of tokens, an authority or a proxy has authenticated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ncps.aio.tasks import Tasks
from ncps.assembly.parts import Foundation
from ncps.auth.credentials import CredentialSource
from ncps.auth.logins import LoginLimits
from ncps.auth.rules import ScopeRules
from ncps.auth.vouched import CertificateClients, ProxyUsers
from ncps.settings.schema.tree import Settings
from ncps.web.vouched import ProxiedUsers

if TYPE_CHECKING:
    from ncps.assembly.oidc import IssuerClients


class VouchedClients:
    """The sources of such clients that the settings configure.

    :ivar sources: in the order in which the guard asks them, after our own tokens.
    :ivar logins: limits wrong credentials of all sources.
    :ivar proxied: reads the user whom a trusted proxy names in a request.
    """

    def __init__(self, base: Foundation, tasks: Tasks) -> None:
        self._base = base
        self._tasks = tasks
        auth = base.settings.auth
        self._issuers: IssuerClients | None = None
        self.sources: tuple[CredentialSource, ...] = ()
        self.proxied = ProxiedUsers(base.reactor)
        self.logins = LoginLimits(
            base.reactor,
            base.metrics,
            most=auth.max_failed_logins,
            window_s=auth.failed_logins_window_s,
        )
        self.take(base.settings)

    def take(self, settings: Settings) -> None:
        """Use other settings from now on."""
        auth, sources = settings.auth, list[CredentialSource]()
        if auth.oidc.issuers and self._issuers is None:
            from ncps.assembly.oidc import IssuerClients  # noqa: PLC0415 - only if there are issuers

            self._issuers = IssuerClients(self._base, self._tasks)
        if self._issuers is not None:
            self._issuers.take(settings)
        if self._issuers is not None and auth.oidc.issuers:
            sources.append(self._issuers.tokens)
        if auth.tls.rules:
            sources.append(CertificateClients(ScopeRules(auth.tls.rules)))
        if auth.proxy.rules:
            sources.append(ProxyUsers(ScopeRules(auth.proxy.rules)))
        self.sources = tuple(sources)
        self.proxied.take(auth.proxy.header)
        self.logins.take(most=auth.max_failed_logins, window_s=auth.failed_logins_window_s)

    def warnings(self) -> list[str]:
        """Return what an operator should fix."""
        return [] if self._issuers is None else self._issuers.tokens.warnings()

    async def close(self) -> None:
        """Close the connections to issuers."""
        if self._issuers is not None:
            await self._issuers.close()
