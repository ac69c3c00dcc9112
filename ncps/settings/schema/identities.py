"""Settings of clients that an issuer, an authority or a proxy authenticates."""

from __future__ import annotations

from attrs import frozen

from ncps.settings.declare import setting
from ncps.settings.kinds.auth import (
    AUDIENCE,
    HEADER,
    ISSUER,
    OIDC_RULE,
    PROXY_RULE,
    TLS_RULE,
    AuthRule,
    IssuerSetting,
)


@frozen(kw_only=True)
class OidcSettings:
    """Clients that show tokens of OpenID Connect, as CI systems have them."""

    issuers: tuple[IssuerSetting, ...] = setting(
        ISSUER,
        (),
        "Issuer of OpenID Connect whose tokens ncps accepts as credentials, one or several, "
        "exactly as the tokens name it in `iss`: https://token.actions.githubusercontent.com, "
        "https://gitlab.com. ncps fetches the issuer's keys when a token comes. http:// is for "
        "issuers on this machine.",
        note="none",
        flag="auth-oidc-issuer",
        environment="AUTH_OIDC_ISSUERS",
        reloads=True,
    )
    audiences: tuple[str, ...] = setting(
        AUDIENCE,
        (),
        "Audience that such a token must be for (`aud`), one or several: a name that no other "
        "service uses, such as the URL of this cache.",
        note="none",
        flag="auth-oidc-audience",
        environment="AUTH_OIDC_AUDIENCES",
        reloads=True,
    )
    rules: tuple[AuthRule, ...] = setting(
        OIDC_RULE,
        (),
        "Rule that gives scopes to tokens by their claims, one or several; the first rule that "
        "matches counts. `scope=read,write; repository=org/repo; ref=refs/heads/*`: each claim "
        "must match one of its values, in which * stands for any characters. `path=REGEX` "
        "restricts a rule to store paths. The variable holds one rule on each line; in a "
        "configuration file, a rule may be a table. With several issuers, each rule names its "
        "own: `iss=URL`.",
        note="none",
        flag="auth-oidc-rule",
        environment="AUTH_OIDC_RULES",
        reloads=True,
    )


@frozen(kw_only=True)
class CertificateRules:
    """Clients that show a certificate."""

    rules: tuple[AuthRule, ...] = setting(
        TLS_RULE,
        (),
        "Rule that gives scopes to clients by their certificate, one or several; the first rule "
        "that matches counts. Conditions test cn (of the subject), dns, uri and email "
        "(alternative names): `scope=read,write; cn=ci-*`. Needs --server-tls-client-ca-file.",
        note="none",
        flag="auth-tls-rule",
        environment="AUTH_TLS_RULES",
        reloads=True,
    )


@frozen(kw_only=True)
class ProxyUserSettings:
    """Clients that a trusted proxy names."""

    header: str = setting(
        HEADER,
        "",
        "Header in which a proxy of --server-trusted-proxies names the user whom it has "
        "authenticated, such as X-Forwarded-User. The proxy must remove this header from the "
        "requests of its clients. ncps ignores the header from all other senders.",
        note="none",
        reloads=True,
    )
    rules: tuple[AuthRule, ...] = setting(
        PROXY_RULE,
        (),
        "Rule that gives scopes to such users, one or several; the first rule that matches "
        "counts: `scope=read,write; user=alice,ci-*`.",
        note="none",
        flag="auth-proxy-rule",
        environment="AUTH_PROXY_RULES",
        reloads=True,
    )
