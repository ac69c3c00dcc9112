"""Access, as the settings define it: the sources of credentials, the guard, and warnings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from attrs import frozen
from twisted.logger import Logger

from ncps.aio.tasks import Tasks
from ncps.assembly.parts import Foundation
from ncps.assembly.vouched import VouchedClients
from ncps.auth.credentials import CredentialSource
from ncps.auth.guard import AccessRules, Guard
from ncps.auth.principal import Scope
from ncps.auth.tokens import DatabaseTokens, StaticToken
from ncps.errors import Unavailable
from ncps.settings.schema.tree import Settings
from ncps.web.access import CredentialGuard

_VERBS: Final = ((Scope.WRITE, "upload", "put"), (Scope.DELETE, "delete", "delete"))
_log = Logger()


@frozen(kw_only=True)
class AccessControl:
    """The parts that decide what a client may do.

    :ivar tokens: those of the database; tickers call its `look` and `flush`.
    :ivar vouched: clients that issuers, authorities and proxies know; the owner closes it.
    :ivar pages: the guard of the routes.
    """

    tokens: DatabaseTokens
    vouched: VouchedClients
    guard: Guard
    pages: CredentialGuard

    async def begin(self) -> None:
        """Read the tokens, and warn of verbs that are open to everybody."""
        await self.tokens.look()
        for line in self.warnings():
            _log.warn("{told}", told=line)

    def warnings(self) -> list[str]:
        """Return what an operator should fix, although the cache can serve."""
        trouble = [self.tokens.trouble] if self.tokens.trouble else []
        return [*self._open_verbs(), *trouble, *self.vouched.warnings()]

    def take(self, settings: Settings) -> list[str]:
        """Use other settings from now on; return the new warnings."""
        before = self.warnings()
        self.tokens.max_age_s = settings.auth.token_max_age_s
        self.vouched.take(settings)
        self.guard.take(_sources(settings, self.tokens, self.vouched), rules_of(settings))
        return [line for line in self.warnings() if line not in before]

    def _open_verbs(self) -> Iterator[str]:
        for scope, act, verb in _VERBS:
            if self._is_open(scope):
                yield (
                    f"anybody who reaches the port may {act} (cache-allow-{verb}-verb): make a"
                    f" token with `ncps token create --name NAME --scope {scope.value}`, and only"
                    " its owner may"
                )

    def _is_open(self, scope: Scope) -> bool:
        try:
            return self.guard.is_open(scope)
        except Unavailable:  # ncps does not know, so the verb counts as closed
            return False

    def told(self) -> dict[str, str]:
        """Return which clients may read, write and delete, for `/readyz`."""
        needs = "nobody" if self.guard.is_configured is False else "token"
        return {
            "reads": "everybody" if self._is_open(Scope.READ) else "token",
            "writes": "everybody" if self._is_open(Scope.WRITE) else needs,
            "deletes": "everybody" if self._is_open(Scope.DELETE) else needs,
        }


def access_control(base: Foundation, tasks: Tasks) -> AccessControl:
    """Make the access control; it reads nothing yet."""
    settings = base.settings
    tokens = DatabaseTokens(
        base.parts.tokens, base.reactor, tasks, max_age_s=settings.auth.token_max_age_s
    )
    vouched = VouchedClients(base, tasks)
    count = base.metrics.authentications
    guard = Guard(
        _sources(settings, tokens, vouched),
        rules_of(settings),
        logins=vouched.logins,
        count=lambda source, result: count(source, result).inc(),
    )
    pages = CredentialGuard(guard, vouched.proxied)
    return AccessControl(tokens=tokens, vouched=vouched, guard=guard, pages=pages)


def _sources(
    settings: Settings, tokens: DatabaseTokens, vouched: VouchedClients
) -> list[CredentialSource]:
    """Return the sources of credentials, in the order in which they are asked."""
    token = settings.cache.get_token
    return [tokens, *([StaticToken(token)] if token else []), *vouched.sources]


def rules_of(settings: Settings) -> AccessRules:
    """Return the rights of clients without credentials."""
    cache = settings.cache
    verbs = ((Scope.WRITE, cache.allow_put_verb), (Scope.DELETE, cache.allow_delete_verb))
    return AccessRules(
        reads_are_open=settings.auth.reads == "open" and not cache.get_token,
        open_verbs=frozenset(scope for scope, is_allowed in verbs if is_allowed),
    )
