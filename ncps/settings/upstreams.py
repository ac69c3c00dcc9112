"""What is decided about upstreams once all settings are read."""

from __future__ import annotations

from collections.abc import Mapping

from ncps.aio.authorities import trouble_of_authorities
from ncps.settings.network import UpstreamURL
from ncps.settings.proxies import (
    ProxiesSetting,
    ProxyURL,
    no_proxy_of,
    proxies_of_environment,
    proxies_of_setting,
)
from ncps.settings.schema.upstream import UpstreamSetting
from ncps.upstream.proxies import is_this_machine

NIXOS_HOST = "cache.nixos.org"
NIXOS_KEY = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="
_PREFIX = "cache.upstream."


def _as_float(value: object) -> float:
    assert isinstance(value, float)
    return value


def decide_upstreams(
    values: dict[str, object],
    environ: Mapping[str, str],
    problems: list[str],
    warnings: list[str],
) -> None:
    """Drop duplicates, fill in what holds for all, add the key of cache.nixos.org.

    :param values: by attribute; changed in place. What could not be parsed is missing.
    :param environ: names proxies.
    """
    given = values.get(f"{_PREFIX}upstreams")
    if not isinstance(given, tuple):
        return
    upstreams: dict[str, UpstreamURL] = {}
    for upstream in given:
        assert isinstance(upstream, UpstreamURL)
        if upstream.url in upstreams:
            warnings.append(f"upstream {upstream.url} is given twice: the first one counts")
        upstreams.setdefault(upstream.url, upstream)
        warnings.extend(
            f"upstream {upstream.url}: {name} is a parameter of Nix and has no effect here"
            for name in upstream.ignored
        )
    if not upstreams:
        problems.append("cache-upstream-url: at least one upstream is needed")
    keys = values.get(f"{_PREFIX}public_keys")
    if isinstance(keys, tuple):
        names = {str(key).partition(":")[0] for key in keys}
        is_nixos = any(upstream.host == NIXOS_HOST for upstream in upstreams.values())
        if is_nixos and NIXOS_KEY.partition(":")[0] not in names:
            keys = (*keys, NIXOS_KEY)
        values[f"{_PREFIX}public_keys"] = tuple(dict.fromkeys(keys))
    proxies = _proxies(values, environ, upstreams, problems, warnings)
    trouble = trouble_of_authorities(environ)
    if trouble and any(url.startswith("https:") for url in upstreams):
        warnings.append(f"{trouble}: no server of https will be trusted")
    if problems:
        return
    of_all = {
        name: _as_float(values[_PREFIX + name])
        for name in (
            "dialer_timeout_s",
            "response_header_timeout_s",
            "nar_timeout_s",
            "idle_timeout_s",
        )
    }
    values[f"{_PREFIX}upstreams"] = tuple(
        UpstreamSetting(
            url=upstream.url,
            priority=upstream.priority,
            proxies=proxies[upstream.url],
            user=upstream.user,
            password=upstream.password,
            **{
                name: own if (own := getattr(upstream, name)) is not None else common
                for name, common in of_all.items()
            },
        )
        for upstream in upstreams.values()
    )


def _proxies(
    values: Mapping[str, object],
    environ: Mapping[str, str],
    upstreams: Mapping[str, UpstreamURL],
    problems: list[str],
    warnings: list[str],
) -> dict[str, ProxiesSetting]:
    """Decide for each upstream, by URL, through which proxies it is asked.

    What is said of one upstream holds whatever `no_proxy` says.
    """
    of_all = values.get(f"{_PREFIX}proxy")
    if isinstance(of_all, ProxyURL):
        usual = proxies_of_setting(of_all, no_proxy_of(environ))
    elif all(upstream.proxy is not None for upstream in upstreams.values()):
        usual = ProxiesSetting()
    else:
        usual = proxies_of_environment(environ, problems, warnings)
    found: dict[str, ProxiesSetting] = {}
    for url, upstream in upstreams.items():
        own = upstream.proxy
        if own is None:
            found[url] = usual
            continue
        found[url] = proxies_of_setting(own, (), "parameter proxy of its URL")
        if own.host and is_this_machine(upstream.host):
            problems.append(
                f"cache-upstream-url {url}: proxy should be none: this machine is never asked"
                " through a proxy"
            )
    return found
