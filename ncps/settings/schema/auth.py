"""Settings of clients: how they prove who they are, and what they may do."""

from __future__ import annotations

from attrs import frozen

from ncps.settings.declare import branch, setting
from ncps.settings.kinds.values import choice, duration, integer
from ncps.settings.schema.identities import CertificateRules, OidcSettings, ProxyUserSettings


@frozen(kw_only=True)
class AuthSettings:
    """The verbs that need a token, other credentials, and limits of wrong credentials."""

    reads: str = setting(
        choice(("open", "token")),
        "open",
        "Clients that may read. open: everybody. token: clients with a token of the scope read "
        "(`ncps token create`). --cache-get-token closes reads, too. /healthz and /readyz stay "
        "open.",
        reloads=True,
    )
    metrics: str = setting(
        choice(("open", "token")),
        "open",
        "Clients that may read /metrics while reads are closed. open: everybody. token: clients "
        "that may read.",
        reloads=True,
    )
    token_max_age_s: float = setting(
        duration(),
        "1h",
        "Time for which ncps accepts the tokens that it has read while the database is away. "
        "After that, a client with a token gets 503 until the database is back.",
        reloads=True,
    )
    max_failed_logins: int = setting(
        integer(),
        "20",
        "Wrong credentials that one IPv4 address or one IPv6 /64 network may send within "
        "--auth-failed-logins-window. After that, ncps answers unknown credentials from there "
        "with 429 and Retry-After until the time is over; it still accepts credentials that it "
        "has found right before. 0 for no such limit.",
        shared=True,
        counted=True,
        reloads=True,
    )
    failed_logins_window_s: float = setting(
        duration(at_least_s=1),
        "1m",
        "Time in which ncps counts the wrong credentials of one address.",
        reloads=True,
    )
    oidc: OidcSettings = branch(OidcSettings)
    tls: CertificateRules = branch(CertificateRules)
    proxy: ProxyUserSettings = branch(ProxyUserSettings)
