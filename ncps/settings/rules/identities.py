"""The rules of the settings of clients that an issuer, an authority or a proxy authenticates."""

from __future__ import annotations

from attrs import evolve

from ncps.auth.patterns import compiled
from ncps.errors import Malformed
from ncps.settings.draft import Draft
from ncps.settings.kinds.auth import AuthRule, IssuerSetting
from ncps.settings.kinds.proxies import (
    ProxiesSetting,
    ProxyURL,
    no_proxy_of,
    proxies_of_environment,
    proxies_of_setting,
)

_OIDC = "auth.oidc."


def decide_identities(draft: Draft) -> None:
    """Check that each source of clients has the settings that it needs."""
    _decide_oidc(draft)
    values = draft.values
    for source in ("oidc", "tls", "proxy"):
        _check_paths(draft, f"auth-{source}-rule", values.get(f"auth.{source}.rules"))
    if values.get("auth.tls.rules") and not values.get("server.tls.client_ca_file"):
        draft.problems.append(
            "auth-tls-rule needs server-tls-client-ca-file: without it no client shows a"
            " certificate"
        )
    is_open = values.get("auth.reads") == "open" and values.get("cache.get_token") == ""
    if values.get("auth.metrics") == "token" and is_open:
        draft.problems.append(
            "auth-metrics has no effect, since anybody may read: close reads with auth-reads, too"
        )
    header, rules = values.get("auth.proxy.header"), values.get("auth.proxy.rules")
    if header and not values.get("server.trusted_proxies"):
        draft.problems.append(
            "auth-proxy-header needs server-trusted-proxies: anybody else could write the header"
        )
    if header and rules == ():
        draft.problems.append(
            "auth-proxy-header needs auth-proxy-rule: without one, no user has a scope"
        )
    if rules and header == "":
        draft.problems.append("auth-proxy-rule needs auth-proxy-header, which names the user")


def _check_paths(draft: Draft, flag: str, rules: object) -> None:
    """Check that the expressions for store paths can be used."""
    for number, rule in enumerate(rules if isinstance(rules, tuple) else (), 1):
        assert isinstance(rule, AuthRule)
        try:
            if rule.path:
                compiled(rule.path)
        except Malformed as error:
            draft.problems.append(f"{flag} {number}: path: {error}")


def _decide_oidc(draft: Draft) -> None:
    issuers, audiences, rules = (
        draft.values.get(f"{_OIDC}{name}") for name in ("issuers", "audiences", "rules")
    )
    if not (
        isinstance(issuers, tuple) and isinstance(audiences, tuple) and isinstance(rules, tuple)
    ):
        return
    if not issuers:
        if audiences or rules:
            given = "auth-oidc-audience" if audiences else "auth-oidc-rule"
            draft.problems.append(f"{given} needs auth-oidc-issuer, too")
        return
    if not audiences:
        draft.problems.append(
            "auth-oidc-issuer needs auth-oidc-audience: without it, a token for any other service "
            "would be accepted"
        )
    if not rules:
        draft.problems.append(
            "auth-oidc-issuer needs auth-oidc-rule: without one, no token has a scope"
        )
    found = {issuer.url: issuer for issuer in issuers if isinstance(issuer, IssuerSetting)}
    for number, rule in enumerate(rules, 1):
        assert isinstance(rule, AuthRule)
        _check_rule(draft, rule, f"auth-oidc-rule {number}", set(found))
    if not draft.problems:
        proxies = _proxies(draft)
        draft.values[f"{_OIDC}issuers"] = tuple(
            evolve(issuer, proxies=proxies) for issuer in found.values()
        )


def _check_rule(draft: Draft, rule: AuthRule, where: str, issuers: set[str]) -> None:
    """Check that a rule names one issuer, and a condition that not all its tokens meet."""
    conditions = dict(rule.conditions)
    named = set(conditions.pop("iss", ()))
    if named - issuers:
        wrong = min(named - issuers)
        draft.problems.append(f"{where}: iss should be one of auth-oidc-issuer, not {wrong}")
    elif not named and len(issuers) > 1:
        draft.problems.append(
            f"{where} should name its issuer (iss=URL), since there are several: each may write"
            " the same claims"
        )
    if not set(conditions) - {"aud"}:
        draft.problems.append(
            f"{where} should name a claim besides iss and aud: everybody with an account at the"
            " issuer gets such tokens (sub=* if that is meant)"
        )


def _proxies(draft: Draft) -> ProxiesSetting:
    """Return the proxies for all issuers: those for upstreams that have none of their own."""
    environ = draft.surroundings.environ
    of_all = draft.values.get("cache.upstream.proxy")
    if isinstance(of_all, ProxyURL):
        return proxies_of_setting(of_all, no_proxy_of(environ))
    return proxies_of_environment(environ, draft.problems, [])
