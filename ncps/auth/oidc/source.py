"""OidcTokens: clients with a token that an OpenID Connect issuer has signed for them.

A token is valid if a configured issuer has signed it for one of our audiences, and for the present
time. The rules decide which scopes its claims give. Valid tokens are remembered by their hash, so
that the signature is checked only once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ncps.aio.clocks import wall_of
from ncps.aio.recent import BoundedMap
from ncps.auth.credentials import Credentials, WrongCredentials
from ncps.auth.oidc.issuer import Issuer
from ncps.auth.oidc.jwt import UnverifiedToken, looks_like_token, read_token, values_of
from ncps.auth.oidc.keys import ALGORITHMS
from ncps.auth.principal import Principal
from ncps.auth.rules import ScopeRules
from ncps.errors import Busy, Malformed
from ncps.observe import decisions

LEEWAY_S: Final = 30.0
"""Seconds by which the clocks of issuer and cache may differ."""

REMEMBERED_S: Final = 3600.0
"""Seconds for which a token is accepted without another check, unless it expires before."""

MAX_REMEMBERED: Final = 10_000
MAX_FORGED: Final = 200
"""Wrong signatures that are checked within `FORGED_S` seconds; after that, tokens must wait."""

FORGED_S: Final = 1.0

_WORDS: Final = 80
"""Characters of a claim that a message shows, at most."""


class OidcTokens:
    """A source of credentials; see `ncps.auth.credentials`.

    :param audiences: a token must be for one of these.
    """

    _log = Logger()

    name = "oidc"
    is_configured = True

    def __init__(
        self,
        issuers: Sequence[Issuer],
        audiences: Sequence[str],
        rules: ScopeRules,
        clock: IReactorTime,
    ) -> None:
        self._issuers = {issuer.url: issuer for issuer in issuers}
        self._audiences = frozenset(audiences)
        self._rules = rules
        self._clock = clock
        self._wall: Callable[[], float] = wall_of(clock)
        self._right: BoundedMap[bytes, tuple[float, float, Principal]] = BoundedMap(MAX_REMEMBERED)
        self._forged_since = -math.inf
        self._forged = 0

    def warnings(self) -> list[str]:
        """Return the warnings for operators."""
        return [line for issuer in self._issuers.values() for line in issuer.warnings()]

    def recall(self, credentials: Credentials) -> Principal | None:
        """See `CredentialSource`."""
        secret = credentials.secret
        if not looks_like_token(secret):
            return None
        digest = _digest(secret)
        expires, until, principal = self._right.get(digest, (0.0, 0.0, None))
        if principal is None:
            return None
        if self._wall() >= expires or self._clock.seconds() >= until:
            self._right.forget(digest)
            return None
        return principal

    async def identify(self, credentials: Credentials) -> Principal | None:
        """See `CredentialSource`."""
        if not looks_like_token(credentials.secret):
            return None
        try:
            token = read_token(credentials.secret)
            issuer = self._issuers.get(token.issuer)
            if issuer is None:
                raise WrongCredentials(
                    f"the issuer of this token, {_shown(token.issuer)}, is not trusted here"
                )
            expires = self._check_claims(token)
        except Malformed as error:
            raise WrongCredentials(str(error)) from None
        await self._check_signature(token, issuer)
        principal = self._rules.principal(
            f"{issuer.host} {_first(token.claims.get('sub'))}", _facts(token.claims), self.name
        )
        if decisions.are_logged():
            self._log.debug(
                "a token of {client} has the scopes {scopes} by auth-oidc-rule",
                client=principal.name,
                scopes=", ".join(sorted(scope.value for scope in principal.scopes)) or "(none)",
            )
        until = self._clock.seconds() + REMEMBERED_S
        self._right.put(_digest(token.text), (expires, until, principal))
        return principal

    def _check_claims(self, token: UnverifiedToken) -> float:
        """Return the time at which the token expires.

        Raises WrongCredentials if it is for another audience, has expired or is not valid yet.
        """
        now = self._wall()
        if self._audiences.isdisjoint(token.audiences):
            wanted = " or ".join(sorted(self._audiences))
            given = ", ".join(map(_shown, token.audiences[:4])) or "nobody"
            raise WrongCredentials(f"this token is for the audience {given}, not for {wanted}")
        expires = token.time("exp")
        if expires is None:
            raise WrongCredentials("this token does not say when it expires")
        if now >= expires + LEEWAY_S:
            raise WrongCredentials("this token has expired", "expired")
        for name in ("nbf", "iat"):
            begins = token.time(name)
            if begins is not None and now < begins - LEEWAY_S:
                raise WrongCredentials("this token is not valid yet", "expired")
        return expires + LEEWAY_S

    async def _check_signature(self, token: UnverifiedToken, issuer: Issuer) -> None:
        """Raise WrongCredentials if the signature is wrong, Unavailable if that is unknown now."""
        if token.algorithm not in ALGORITHMS:
            raise WrongCredentials(
                f"tokens with the algorithm {_shown(token.algorithm)} are not accepted"
            )
        key = await issuer.find_key(token.key_id, token.algorithm)
        if key is None:
            raise WrongCredentials("the issuer of this token has no such key")
        self._spare_processor()
        if not key.verify(token):
            self._forged += 1
            raise WrongCredentials("the signature of this token is wrong")

    def _spare_processor(self) -> None:
        """Raise Busy if too many signatures were wrong just now, to save CPU time."""
        now = self._clock.seconds()
        if now >= self._forged_since + FORGED_S:
            self._forged_since, self._forged = now, 0
        if self._forged >= MAX_FORGED:
            raise Busy("too many forged tokens are coming in", retry_after=FORGED_S)


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _facts(claims: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    return {name: values_of(value) for name, value in claims.items()}


def _first(claim: object) -> str:
    return next(iter(values_of(claim)), "")


def _shown(text: str) -> str:
    """Return a text of a token for a message: printable and short."""
    cut = text if len(text) <= _WORDS else f"{text[:_WORDS]}..."
    return "".join(sign if sign.isprintable() else "?" for sign in cut) or "(none)"
