"""Kinds of values that name places: listening addresses and upstream caches."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from attrs import evolve, field, frozen

from ncps.settings.kinds.database_parameters import shown_name
from ncps.settings.kinds.proxies import ProxyURL, parse_proxy, port_of
from ncps.settings.kinds.values import parse_duration, parse_integer
from ncps.settings.setting import Kind

DEFAULT_PRIORITY = 40
ENCRYPTED: Final = "https+"
"""Prefix of the endpoint string of an address that speaks TLS."""
_HOST = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_HOST_PORT = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|([A-Za-z0-9_.-]*)):(\d{1,5})", re.ASCII
)
_IPV6_PLACE = re.compile(r"\[[^][]+\](?::\d*)?", re.ASCII)
_ENDPOINT = re.compile(r"tcp:\d{1,5}:interface=[A-Za-z0-9_.-]+", re.ASCII)
"""Endpoints that are certainly usable, so that Twisted need not parse them, as the default is."""
_ADDRESS = (
    "an address such as :8501, 127.0.0.1:8501, [::1]:8501, https://:8501 or unix:/run/ncps.sock"
)
_SHOULD = f"should be {_ADDRESS}"
_PROXY = "an address such as 192.0.2.7 or ::1, a network such as 10.0.0.0/8, or unix"
_COLON = r"\:"
"""A colon in an argument of an endpoint string."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


def parse_address(text: str) -> str:
    """Return a Twisted endpoint string; no host means every interface, IPv6 and IPv4.

    The string begins with `ENCRYPTED` if the address is to speak TLS.
    """
    if not text.isprintable():
        raise ValueError(_SHOULD)
    scheme, is_url, place = text.partition("://")
    if is_url and scheme in _DEFAULT_PORTS:
        endpoint = _parse_host_port(place.removesuffix("/"))
        return endpoint if scheme == "http" else f"{ENCRYPTED}{endpoint}"
    if text.startswith(ENCRYPTED):
        endpoint = text.removeprefix(ENCRYPTED)
        if not endpoint.startswith(("tcp:", "systemd:")) or "domain=UNIX" in endpoint:
            raise ValueError(
                "should be like https://:8501 or https+systemd:domain=INET6:name=https: TLS is for"
                " TCP"
            )
        return f"{ENCRYPTED}{_parse_endpoint(endpoint)}"
    return _parse_endpoint(text)


def _parse_endpoint(text: str) -> str:
    kind, _, rest = text.partition(":")
    if kind in {"tcp", "unix"}:
        try:
            _check_endpoint(text)
        except (ValueError, TypeError, IndexError, KeyError) as error:
            raise ValueError(f"is not a usable endpoint{_hint(error)}: it {_SHOULD}") from None
        if not rest:
            raise ValueError(_SHOULD)
        if port := re.match(r"(?:port=)?(\d+)", rest, re.ASCII):
            _check_port(int(port[1]))
        return text
    if kind == "systemd":
        # ncps looks for the socket only when it listens: `check-config` runs without one.
        if not re.search(r":(?:name|index)=.", text) or ":domain=" not in text:
            raise ValueError("should be like systemd:domain=INET6:name=http")
        return text
    return _parse_host_port(text)


def _parse_host_port(text: str) -> str:
    match = _HOST_PORT.fullmatch(text)
    if match is None:
        raise ValueError(_SHOULD)
    _check_port(int(match[3]))
    interface = match[1] or match[2] or "::"
    return f"tcp:{int(match[3])}:interface={interface.replace(':', _COLON)}"


def _check_endpoint(text: str) -> None:
    if _ENDPOINT.fullmatch(text):
        return
    from twisted.internet.endpoints import (  # noqa: PLC0415 - imports TLS, for few settings
        serverFromString,
    )

    serverFromString(None, text)


def _check_port(port: int) -> None:
    if not 0 <= port <= 65535:
        raise ValueError("has a port above 65535, the largest there is")


def _hint(error: Exception) -> str:
    """Name the argument that the endpoint string should not have, if the error is about one."""
    found = re.search(r"unexpected keyword argument '(\w{1,32})'", str(error))
    return f" (it has no argument {found[1]})" if found else ""


@frozen(kw_only=True)
class UpstreamURL:
    """An upstream as written: its address, and the parameters for it alone.

    :param url: base URL without credentials, query and trailing slash.
    :param priority: lower is asked first.
    :param ignored: names of given parameters that mean something only to Nix.
    """

    url: str
    host: str
    ignored: tuple[str, ...] = ()
    priority: int = DEFAULT_PRIORITY
    dialer_timeout_s: float | None = None
    response_header_timeout_s: float | None = None
    nar_timeout_s: float | None = None
    idle_timeout_s: float | None = None
    proxy: ProxyURL | None = None
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


def _parse_priority(text: str) -> int:
    value = parse_integer(text)
    if not 0 <= value <= 65535:
        raise ValueError("should be between 0 and 65535")
    return value or DEFAULT_PRIORITY


def _parse_timeout(text: str) -> float:
    value = parse_duration(text)
    if value <= 0:
        raise ValueError("should be more than 0")
    return value


_PARAMETERS = {
    "priority": ("priority", _parse_priority),
    "dialer-timeout": ("dialer_timeout_s", _parse_timeout),
    "response-header-timeout": ("response_header_timeout_s", _parse_timeout),
    "nar-timeout": ("nar_timeout_s", _parse_timeout),
    "idle-timeout": ("idle_timeout_s", _parse_timeout),
    "proxy": ("proxy", parse_proxy),
}


_OF_NIX = {
    "compression",
    "compression-level",
    "index-debug-info",
    "local-nar-cache",
    "parallel-compression",
    "path-info-cache-size",
    "secret-key",
    "secret-keys",
    "store",
    "system-features",
    "trusted",
    "want-mass-query",
    "write-nar-listing",
}
"""Parameters of HTTP stores in Nix, which people copy from nix.conf."""


def _parse_parameters(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    ignored = dict.fromkeys(name for name, _ in pairs if name in _OF_NIX)
    if ignored:
        found["ignored"] = tuple(ignored)
    for name, text in pairs:
        if name in ignored:
            continue
        if name not in _PARAMETERS:
            close = [known for known in _PARAMETERS if name and known.startswith(name)]
            close = close or difflib.get_close_matches(name[:64], _PARAMETERS, n=1)
            hint = f": did you mean {close[0]}?" if close else ""
            raise ValueError(f"has an unknown parameter{shown_name(name, text)}{hint}")
        attribute, parse = _PARAMETERS[name]
        if attribute in found:
            raise ValueError(f"has {name} twice")
        try:
            found[attribute] = parse(text)
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None
    return found


def parse_upstream(text: str, example: str = "https://cache.example.org") -> UpstreamURL:
    """Read a base URL, its parameters such as `?priority=10`, and its credentials.

    :param example: a valid URL, for messages.
    """
    if not text.isprintable() or " " in text:
        raise ValueError("holds spaces or characters that cannot be printed")
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError(f"should be a URL such as {example}") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError(f"should start with http:// or https://, as in {example}")
    host, port = parts.hostname or "", port_of(parts)
    place = parts.netloc.rpartition("@")[2]
    is_ipv6 = place.startswith("[")
    if (_IPV6_PLACE.fullmatch(place) if is_ipv6 else _HOST.fullmatch(host)) is None:
        raise ValueError(f"should name a host, as in {example}")
    if parts.fragment:
        raise ValueError("should have no fragment (#...)")
    where = f"[{host}]" if is_ipv6 else host
    if port is not None and port != _DEFAULT_PORTS[parts.scheme]:
        where = f"{where}:{port}"
    upstream = UpstreamURL(
        url=f"{parts.scheme}://{where}{parts.path.rstrip('/')}",
        host=host,
        user=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
    )
    return evolve(upstream, **_parse_parameters(parse_qsl(parts.query, keep_blank_values=True)))


def upstream_from_table(table: Mapping[str, object]) -> UpstreamURL:
    """Read the long form of a configuration file: `url` and the parameters under their names."""
    url = table.get("url")
    if not isinstance(url, str):
        raise ValueError("should have a url")
    pairs: list[tuple[str, str]] = []
    for name, value in table.items():
        if name == "url":
            continue
        if name not in _OF_NIX and (isinstance(value, bool) or not isinstance(value, str | int)):
            raise ValueError(f"{name[:64]} should be a number or text")
        pairs.append((name, str(value)))
    if pairs and "?" in url:
        raise ValueError("should have its parameters either in the url or beside it")
    return evolve(parse_upstream(url), **_parse_parameters(pairs))


def show_upstream(value: object) -> str:
    """Write an upstream without its credentials."""
    url: str = getattr(value, "url", "")
    priority: int = getattr(value, "priority", DEFAULT_PRIORITY)
    return url if priority == DEFAULT_PRIORITY else f"{url}?priority={priority}"


def parse_peer_url(text: str) -> str:
    """Read the base URL of an instance of this cache; empty for none."""
    if not text:
        return ""
    upstream = parse_upstream(text, "http://10.0.0.7:8501")
    if "?" in text:
        raise ValueError("should have no parameters")
    if upstream.user is not None:
        raise ValueError("should hold no credentials: instances know each other by cluster-secret")
    return upstream.url


def parse_trusted_proxy(text: str) -> str:
    """Read an address or a network that connections come from; `unix` for a UNIX socket."""
    if text == "unix":
        return text
    try:
        network = ip_network(text)
    except ValueError:
        try:
            network = ip_network(text, strict=False)
        except ValueError:
            raise ValueError(f"should be {_PROXY}") from None
        raise ValueError(f"names an address in a network: did you mean {network}?") from None
    return str(network.network_address if network.num_addresses == 1 else network)


PEER_URL = Kind(metavar="URL", expected="a URL such as http://10.0.0.7:8501", parse=parse_peer_url)
PROXY = Kind(metavar="NETWORK", expected=_PROXY, parse=parse_trusted_proxy)
ADDRESS = Kind(metavar="ADDRESS", expected=_ADDRESS, parse=parse_address)
UPSTREAM_URL = Kind(
    metavar="URL",
    expected="a URL such as https://cache.example.org",
    parse=parse_upstream,
    show=show_upstream,
    from_table=upstream_from_table,
)
