"""Guard: identifies clients by the sources of credentials, and decides whether they may act (P8).

The guard decides on a request with a known token immediately, without a coroutine. It waits only
for credentials that no source has in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

from attrs import frozen

from ncps.auth.advice import how_to_get_in, how_to_get_more, how_to_reach
from ncps.auth.credentials import Credentials, CredentialSource, WrongCredentials
from ncps.auth.principal import Principal, Scope
from ncps.errors import NcpsError, Refused, Unavailable

_ANYBODY: Final = {scope: Principal(name="", scopes=frozenset({scope})) for scope in Scope}


class Unauthenticated(Refused):
    """The act needs credentials, and there are no right ones. Clients get 401 and the text."""


class Forbidden(Refused):
    """The client is known, and may not do this. Clients get 403 and the text."""


class VerbOff(Refused):
    """Nobody may do this here. Clients get 405 and the text."""


class TooManyFailures(Unavailable):
    """Too many wrong credentials came from this address. Clients get 429 with Retry-After."""


class FailedLogins(Protocol):
    """Limits the wrong credentials of one address."""

    def check(self, client: str) -> None:
        """Raise TooManyFailures if this address must wait."""

    def failed(self, client: str, secret: str) -> None:
        """Note wrong credentials from an address."""


class Unlimited:
    """A `FailedLogins` without limits."""

    def check(self, client: str) -> None:
        """See `FailedLogins`."""

    def failed(self, client: str, secret: str) -> None:
        """See `FailedLogins`."""


@frozen(kw_only=True)
class AccessRules:
    """The rules of the settings for clients without credentials.

    :param reads_are_open: whether anybody may read.
    :param open_verbs: scopes that everybody has while no source of credentials is configured, for
        example by `cache-allow-put-verb`, a setting of the Go program.
    """

    reads_are_open: bool = True
    open_verbs: frozenset[Scope] = frozenset()


Count = Callable[[str, str], object]
"""Counts an authentication, by the name of the source and the result."""


def _uncounted(source: str, result: str) -> None:
    pass


class Guard:
    """Decides which client may do what.

    :param sources: the sources, in the order to ask them.
    :param count: called for each request with credentials, after these were checked.
    :ivar rules: the present rules; `take` changes them.
    """

    def __init__(
        self,
        sources: Sequence[CredentialSource] = (),
        rules: AccessRules | None = None,
        *,
        logins: FailedLogins | None = None,
        count: Count = _uncounted,
    ) -> None:
        self._sources = tuple(sources)
        self.rules = rules or AccessRules()
        self._logins = logins or Unlimited()
        self._count = count

    def take(self, sources: Sequence[CredentialSource], rules: AccessRules) -> None:
        """Decide by other sources and rules from now on, also for requests that run."""
        self._sources, self.rules = tuple(sources), rules

    @property
    def is_configured(self) -> bool | None:
        """Whether anybody may have credentials; None if that is unknown now."""
        known = [source.is_configured for source in self._sources]
        return True if True in known else None if None in known else False

    def is_open(self, scope: Scope) -> bool:
        """Return whether no credentials are needed. Raises Unavailable if that is unknown now."""
        if scope is Scope.READ:
            return self.rules.reads_are_open
        if scope not in self.rules.open_verbs:
            return False
        is_configured = self.is_configured
        if is_configured is None:
            raise Unavailable("ncps cannot tell now whether a token exists", retry_after=2.0)
        return not is_configured

    def anybody(self, scope: Scope) -> Principal | None:
        """Return the principal of everybody if anybody may do this; None if credentials are needed.

        Raises Unavailable if that is unknown now.
        """
        return _ANYBODY[scope] if self.is_open(scope) else None

    def reader(self, credentials: Credentials) -> Principal | None:
        """Return a principal that is known without waiting and may read all paths; else None."""
        found = self._recall(credentials)
        if found is None:
            return None
        source, principal = found
        if principal.paths is not None or not principal.may(Scope.READ):
            return None
        self._count(source.name, "ok")
        return principal

    def _recall(self, credentials: Credentials) -> tuple[CredentialSource, Principal] | None:
        for source in self._sources:
            found = source.recall(credentials)
            if found is not None:
                return source, found
        return None

    def admit(
        self, credentials: Credentials, scope: Scope
    ) -> Principal | Coroutine[Any, Any, Principal]:
        """Return the principal if it has the scope, or a coroutine for it.

        If anybody may act, the guard does not check credentials, so that a client with an old token
        in its netrc can still read. The page checks whether the principal may act on one path.

        Raises Unauthenticated, Forbidden or VerbOff if the client may not act, Unavailable if that
        is unknown now, TooManyFailures if the address must wait.
        """
        anybody = self.anybody(scope)
        if anybody is not None:
            return anybody
        if credentials.is_empty:
            raise self._refusal(scope)
        found = self._recall(credentials)
        if found is None:
            return self._identify(credentials, scope)
        self._count(found[0].name, "ok")
        return permitted(found[1], scope)

    async def _identify(self, credentials: Credentials, scope: Scope) -> Principal:
        self._logins.check(credentials.client)
        unsure: Unavailable | None = None
        sources = self._sources
        for source in sources:
            found: Principal | WrongCredentials | Unavailable | None
            try:
                found = await source.identify(credentials)
            except (WrongCredentials, Unavailable) as error:
                found = error
            if self._sources is not sources:  # a reload: the former sources no longer count
                return await self._identify(credentials, scope)
            if isinstance(found, WrongCredentials):
                self._logins.failed(credentials.client, credentials.secret)
                self._count(source.name, found.kind)
                raise Unauthenticated(f"{found}: {self._advice(scope)}") from found
            if isinstance(found, Unavailable):
                self._count(source.name, "unavailable")
                unsure = found
            elif found is not None:
                self._count(source.name, "ok")
                return permitted(found, scope)
        if unsure is not None:
            raise unsure
        self._logins.failed(credentials.client, credentials.secret)
        self._count("none", "unknown")
        raise Unauthenticated(f"these credentials are not known here: {self._advice(scope)}")

    def _refusal(self, scope: Scope) -> NcpsError:
        if self.is_configured is False and scope is not Scope.READ:
            return VerbOff(f"this is off here: {self._advice(scope)}")
        return Unauthenticated(f"this needs the scope {scope.value}: {self._advice(scope)}")

    def _advice(self, scope: Scope) -> str:
        """Say how to get credentials from the configured sources."""
        names = [source.name for source in self._sources if source.is_configured is not False]
        return how_to_get_in(scope, names)


def permitted(principal: Principal, scope: Scope, path: str | None = None) -> Principal:
    """Return the principal. Raises Forbidden if it may not do this.

    :param path: base name of the store path of the act; None if it has none or is unknown yet.
    """
    if principal.may(scope):
        if principal.may(scope, path):
            return principal
        raise Forbidden(
            f"these credentials are for other store paths ({how_to_reach(principal.source)})"
        )
    raise Forbidden(
        f"these credentials do not have the scope {scope.value}: "
        + how_to_get_more(scope, principal.source)
    )
