"""Clients that somebody else vouches for: an issuer of tokens, an authority, a proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ncps.aio.tasks import Tasks
from ncps.assembly.parts import Foundation
from ncps.auth.credentials import CredentialSource
from ncps.auth.logins import LoginLimits
from ncps.auth.rules import ScopeRules
from ncps.auth.vouched import CertificateClients, ProxyUsers
from ncps.web.vouched import ProxiedUsers

if TYPE_CHECKING:
    from ncps.assembly.oidc import IssuerClients


class VouchedClients:
    """The sources of such clients, for the guard; what a setting does not ask for is left out.

    :ivar logins: limits wrong credentials of all sources.
    :ivar proxied: reads from requests whom a trusted proxy names.
    """

    def __init__(self, base: Foundation, tasks: Tasks) -> None:
        settings = base.settings.auth
        self._issuers: IssuerClients | None = None
        if settings.oidc.issuers:
            from ncps.assembly.oidc import IssuerClients  # noqa: PLC0415 - only if one is there

            self._issuers = IssuerClients(base, tasks)
        self._connected: list[CredentialSource] = []
        if settings.tls.rules:
            self._connected.append(CertificateClients(ScopeRules(settings.tls.rules)))
        if settings.proxy.rules:
            self._connected.append(ProxyUsers(ScopeRules(settings.proxy.rules)))
        self.proxied = ProxiedUsers(base.reactor, settings.proxy.header)
        self.logins = LoginLimits(
            base.reactor,
            base.metrics,
            most=settings.max_failed_logins,
            window_s=settings.failed_logins_window_s,
        )

    @property
    def sources(self) -> tuple[CredentialSource, ...]:
        """The sources, in the order in which they are asked; those of our own tokens go first."""
        issuers = [] if self._issuers is None else [self._issuers.tokens]
        return (*issuers, *self._connected)

    def warnings(self) -> list[str]:
        """Say what an operator should see to."""
        return [] if self._issuers is None else self._issuers.tokens.warnings()

    async def close(self) -> None:
        """Close the connections to issuers."""
        if self._issuers is not None:
            await self._issuers.close()
