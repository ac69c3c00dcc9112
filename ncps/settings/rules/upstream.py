"""The rules of the upstream settings, applied once all settings are read."""

from __future__ import annotations

from collections.abc import Mapping

from ncps.aio.authorities import trouble_of_authorities
from ncps.settings.draft import Draft
from ncps.settings.kinds.network import UpstreamURL
from ncps.settings.kinds.proxies import (
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
_TIMEOUTS = ("dialer_timeout_s", "response_header_timeout_s", "nar_timeout_s", "idle_timeout_s")


def decide_upstreams(draft: Draft) -> None:
    """Drop duplicates, fill in the common timeouts and proxies, add the key of cache.nixos.org."""
    values = draft.values
    given = values.get(f"{_PREFIX}upstreams")
    if not isinstance(given, tuple):
        return
    upstreams = _without_duplicates(given, draft.warnings)
    if not upstreams:
        draft.problems.append("cache-upstream-url: at least one upstream is needed")
    keys = values.get(f"{_PREFIX}public_keys")
    if isinstance(keys, tuple):
        values[f"{_PREFIX}public_keys"] = _with_key_of_nixos(keys, upstreams)
    proxies = _proxies(draft, upstreams)
    trouble = trouble_of_authorities(draft.surroundings.environ)
    if trouble and any(url.startswith("https:") for url in upstreams):
        draft.warnings.append(f"{trouble}: no https server will be trusted")
    if draft.problems:
        return
    values[f"{_PREFIX}upstreams"] = tuple(
        UpstreamSetting(
            url=upstream.url,
            priority=upstream.priority,
            proxies=proxies[upstream.url],
            user=upstream.user,
            password=upstream.password,
            **{name: _timeout(upstream, name, values) for name in _TIMEOUTS},
        )
        for upstream in upstreams.values()
    )


def _without_duplicates(given: tuple[object, ...], warnings: list[str]) -> dict[str, UpstreamURL]:
    """Return the upstreams by URL, the first of each."""
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
    return upstreams


def _with_key_of_nixos(
    keys: tuple[object, ...], upstreams: Mapping[str, UpstreamURL]
) -> tuple[object, ...]:
    """Return the keys, each once, with that of cache.nixos.org if it is an upstream."""
    names = {str(key).partition(":")[0] for key in keys}
    is_nixos = any(upstream.host == NIXOS_HOST for upstream in upstreams.values())
    if is_nixos and NIXOS_KEY.partition(":")[0] not in names:
        keys = (*keys, NIXOS_KEY)
    return tuple(dict.fromkeys(keys))


def _timeout(upstream: UpstreamURL, name: str, values: Mapping[str, object]) -> float:
    """Return a timeout of an upstream: its own, else the common one."""
    own: float | None = getattr(upstream, name)
    if own is not None:
        return own
    common = values[_PREFIX + name]
    assert isinstance(common, float)
    return common


def _proxies(draft: Draft, upstreams: Mapping[str, UpstreamURL]) -> dict[str, ProxiesSetting]:
    """Return the proxies of each upstream, by its URL.

    A proxy in the URL of an upstream is used for all hosts, also for those of `no_proxy`.
    """
    environ = draft.surroundings.environ
    of_all = draft.values.get(f"{_PREFIX}proxy")
    if isinstance(of_all, ProxyURL):
        usual = proxies_of_setting(of_all, no_proxy_of(environ))
    elif all(upstream.proxy is not None for upstream in upstreams.values()):
        usual = ProxiesSetting()
    else:
        usual = proxies_of_environment(environ, draft.problems, draft.warnings)
    found: dict[str, ProxiesSetting] = {}
    for url, upstream in upstreams.items():
        own = upstream.proxy
        if own is None:
            found[url] = usual
            continue
        found[url] = proxies_of_setting(own, (), "parameter proxy of its URL")
        if own.host and is_this_machine(upstream.host):
            draft.problems.append(
                f"cache-upstream-url {url}: proxy should be none: this machine is never asked"
                " through a proxy"
            )
    return found
