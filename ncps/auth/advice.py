"""Advice in refusals: how a client gets credentials from the configured sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ncps.auth.principal import Scope

_MAKE: Final = "make a token with `ncps token create --name NAME --scope {scope}`"
_SEND: Final = (
    "send it as `Authorization: Bearer TOKEN`, or as the password of Basic, which is what Nix sends"
    " from its netrc file (`ncps token netrc`)"
)

_GET: Final[Mapping[str, str]] = {
    "token": _MAKE,
    "static": "use the token of cache-get-token",
    "oidc": "get a token from an issuer that is trusted here (auth-oidc-issuer)",
    "certificate": "use a certificate to which auth-tls-rule gives the scope",
    "proxy": "come through the proxy as a user to whom auth-proxy-rule gives the scope",
}
_SENT: Final = frozenset({"token", "static", "oidc"})
"""Sources whose credentials are sent in `Authorization`."""

_MORE: Final[Mapping[str, str]] = {
    "oidc": "no rule of auth-oidc-rule gives it to the claims of this token",
    "certificate": "no rule of auth-tls-rule gives it to this certificate",
    "proxy": "no rule of auth-proxy-rule gives it to this user",
}
_RULES: Final[Mapping[str, str]] = {
    "oidc": "path in auth-oidc-rule",
    "certificate": "path in auth-tls-rule",
    "proxy": "path in auth-proxy-rule",
}


def how_to_get_in(scope: Scope, sources: Sequence[str]) -> str:
    """Say how to get credentials with a scope, and how to send them.

    The token of `cache-get-token` is for reading only.

    :param sources: names of the configured sources. Without any, the text names `ncps token`, which
        needs no configuration.
    """
    known = [name for name in sources if name != "static" or scope is Scope.READ] or ["token"]
    ways = ", or ".join(_GET[name].format(scope=scope.value) for name in known)
    return f"{ways}; {_SEND}" if _SENT.intersection(known) else ways


def how_to_get_more(scope: Scope, source: str) -> str:
    """Say why a known client does not have a scope, or how it gets the scope."""
    return _MORE.get(source, _MAKE.format(scope=scope.value))


def how_to_reach(source: str) -> str:
    """Name the setting or the command that limits a client to some store paths."""
    return _RULES.get(source, "`ncps token list`")
