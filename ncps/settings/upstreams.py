"""What is decided about upstreams once all settings are read."""

from __future__ import annotations

from ncps.settings.model import UpstreamSetting
from ncps.settings.network import UpstreamURL

NIXOS_HOST = "cache.nixos.org"
NIXOS_KEY = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="
_PREFIX = "cache.upstream."


def _as_float(value: object) -> float:
    assert isinstance(value, float)
    return value


def decide_upstreams(values: dict[str, object], problems: list[str], warnings: list[str]) -> None:
    """Drop duplicates, fill in the timeouts of all, add the key of cache.nixos.org.

    :param values: by attribute; changed in place. What could not be parsed is missing.
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
    if not upstreams:
        problems.append("cache-upstream-url: at least one upstream is needed")
    keys = values.get(f"{_PREFIX}public_keys")
    if isinstance(keys, tuple):
        names = {str(key).partition(":")[0] for key in keys}
        is_nixos = any(upstream.host == NIXOS_HOST for upstream in upstreams.values())
        if is_nixos and NIXOS_KEY.partition(":")[0] not in names:
            keys = (*keys, NIXOS_KEY)
        values[f"{_PREFIX}public_keys"] = tuple(dict.fromkeys(keys))
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
            user=upstream.user,
            password=upstream.password,
            **{
                name: own if (own := getattr(upstream, name)) is not None else common
                for name, common in of_all.items()
            },
        )
        for upstream in upstreams.values()
    )
