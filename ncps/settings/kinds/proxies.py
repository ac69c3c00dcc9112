"""The proxies for upstreams: from the settings, else from the environment.

curl, and so Nix, reads the same variables: `http_proxy`, `https_proxy`, `all_proxy`, `no_proxy`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from attrs import field, frozen

from ncps.settings.setting import Kind

SETTING: Final = "cache-upstream-proxy"
_EXPECTED: Final = "a URL such as http://proxy.example.org:3128, or none"
_PORTS: Final = {"http": 80, "https": 443}
_HOST: Final = re.compile(r"[A-Za-z0-9_.-]+|[0-9A-Fa-f:.]+", re.ASCII)


@frozen(kw_only=True)
class ProxyURL:
    """A proxy as written; without a host it means that no proxy is used.

    :ivar scheme: http, or https for TLS to the proxy.
    """

    scheme: str = "http"
    host: str = ""
    port: int = 0
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        if not self.host:
            return "none"
        where = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{where}:{self.port}"


@frozen(kw_only=True)
class ProxiesSetting:
    """The proxies of one upstream.

    :ivar http: for http URLs; None for none.
    :ivar https: for https URLs; None for none.
    :ivar no_proxy: hosts that are asked directly nevertheless, as in the variable.
    :ivar origins: by scheme, the setting or variable that names the proxy; for people.
    """

    http: ProxyURL | None = None
    https: ProxyURL | None = None
    no_proxy: tuple[str, ...] = ()
    origins: tuple[tuple[str, str], ...] = ()


def port_of(parts: SplitResult) -> int | None:
    """Return the port of a URL; None if it has none. Raises ValueError if it is wrong."""
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("has a wrong port: it should be a number from 1 to 65535, or left out")
    return port


def parse_proxy(text: str) -> ProxyURL | None:
    """Read the URL of a proxy, or `none`; None for an empty text. No error repeats the text."""
    if not text:
        return None
    if text.lower() == "none":
        return ProxyURL()
    if not text.isprintable() or " " in text:
        raise ValueError("holds spaces or characters that cannot be printed")
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
    except ValueError:
        raise ValueError(f"should be {_EXPECTED}") from None
    if parts.scheme.startswith("socks"):
        raise ValueError(f"is a SOCKS proxy, which is not supported: it should be {_EXPECTED}")
    host, port = parts.hostname or "", port_of(parts)
    is_more = parts.path not in ("", "/") or parts.query or parts.fragment
    if parts.scheme not in _PORTS or is_more or _HOST.fullmatch(host) is None:
        raise ValueError(f"should be {_EXPECTED}")
    return ProxyURL(
        scheme=parts.scheme,
        host=host,
        port=port or _PORTS[parts.scheme],
        user=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
    )


PROXY: Final = Kind(
    metavar="URL",
    expected=_EXPECTED,
    parse=parse_proxy,
    show=lambda value: "" if value is None else str(value),
)


def proxies_of_environment(
    environ: Mapping[str, str], problems: list[str], warnings: list[str]
) -> ProxiesSetting:
    """Read the variables, each in lower case before upper case; an empty one counts as not set."""
    found: dict[str, ProxyURL | None] = {}
    origins: dict[str, str] = {}
    for scheme in _PORTS:
        for base in (f"{scheme}_proxy", "all_proxy"):
            name = next((name for name in (base, base.upper()) if environ.get(name)), "")
            if not name:
                continue
            try:
                found[scheme] = parse_proxy(environ[name])
            except ValueError as error:
                hint = f"{error}; ncps does not read it if {SETTING} is set"
                if base == "all_proxy":  # which the Go program does not know
                    warnings.append(f"environment {name} is not used: it {hint}")
                else:
                    problems.append(f"environment {name} {hint}")
            else:
                origins[scheme] = f"environment {name}"
            break
    return ProxiesSetting(
        http=_or_none(found.get("http")),
        https=_or_none(found.get("https")),
        no_proxy=no_proxy_of(environ),
        origins=tuple(origins.items()),
    )


def no_proxy_of(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the entries of `no_proxy`, which commas or blanks separate."""
    text = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    return tuple(text.replace(",", " ").split())


def proxies_of_setting(
    proxy: ProxyURL, no_proxy: tuple[str, ...], origin: str = f"setting {SETTING}"
) -> ProxiesSetting:
    """Return the proxies of an upstream for which one proxy, or none, serves http and https."""
    both = _or_none(proxy)
    origins = tuple((scheme, origin) for scheme in _PORTS)
    return ProxiesSetting(http=both, https=both, no_proxy=no_proxy, origins=origins)


def _or_none(proxy: ProxyURL | None) -> ProxyURL | None:
    return proxy if proxy is not None and proxy.host else None
