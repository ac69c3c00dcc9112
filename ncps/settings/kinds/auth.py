"""Kinds of values about clients and their rights: rules, issuers of tokens, names of headers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from attrs import field, frozen

from ncps.settings.kinds.proxies import ProxiesSetting
from ncps.settings.setting import Kind

SCOPES: Final = ("read", "write", "delete", "pin", "admin")
"""The words of `ncps.auth.principal.Scope`."""

CLAIM: Final = "claim."
"""Prefix of a claim whose name is also that of a part of a rule: `claim.scope`."""

_LONGEST: Final = 256
_NAME: Final = re.compile(r"[A-Za-z0-9_.:/@-]{1,128}", re.ASCII)
_HEADER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", re.ASCII)
_TAKEN: Final = re.compile(
    r"accept|accept-encoding|authorization|connection|content-.*|cookie|date|expect|forwarded|host"
    r"|if-.*|proxy-authorization|range|te|trace.*|transfer-encoding|upgrade|user-agent|via"
    r"|x-forwarded-(?:for|host|proto)"
)
"""Headers that mean something else, or that clients and proxies write for other reasons."""


@frozen(kw_only=True)
class AuthRule:
    """Gives scopes to clients that meet all conditions.

    :param scopes: words of `SCOPES`.
    :param conditions: name of a fact about the client, and patterns one of which it must match.
    :param path: expression for base names of store paths; empty for every path.
    """

    scopes: tuple[str, ...]
    conditions: tuple[tuple[str, tuple[str, ...]], ...]
    path: str = ""


@frozen(kw_only=True)
class IssuerSetting:
    """An issuer of tokens.

    :param url: exactly as its tokens name it in `iss`.
    :param proxies: the proxies through which ncps asks it.
    """

    url: str
    proxies: ProxiesSetting = field(factory=ProxiesSetting)


def _words(name: str, value: object) -> tuple[str, ...]:
    """Return the alternatives that a rule has for a name."""
    if isinstance(value, bool):
        value = "true" if value else "false"
    elif isinstance(value, int):
        value = str(value)
    if isinstance(value, str):
        value = value.split(",")
    elif not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ValueError(f"{name[:64]} should be text or a list of texts")
    elif any("," in word for word in value):
        raise ValueError(f"{name[:64]} should have no commas: write * in place of a comma")
    words = tuple(word.strip() for word in value)
    if not words or not all(words):
        raise ValueError(f"{name[:64]} should have a value")
    if any(len(word) > _LONGEST or not word.isprintable() or ";" in word for word in words):
        raise ValueError(f"{name[:64]} should be printable, and have at most {_LONGEST} characters")
    return words


def _scopes(value: object) -> tuple[str, ...]:
    words = _words("scope", value)
    for word in words:
        if word not in SCOPES:
            raise ValueError(
                f"scope should be one or more of {', '.join(SCOPES)}, with commas between"
            )
    return tuple(dict.fromkeys(words))


def _path(value: object) -> str:
    if not isinstance(value, str) or not value or ";" in value or not value.isprintable():
        raise ValueError("path should be a regular expression without semicolons")
    return value  # `rules.identities` checks the expression


def _rule(parts: Sequence[tuple[str, object]], names: Sequence[str]) -> AuthRule:
    """Make a rule from its parts.

    :param names: of facts that conditions may test; empty for any.
    """
    scopes: tuple[str, ...] = ()
    path = ""
    conditions: dict[str, tuple[str, ...]] = {}
    given = set()
    for name, value in parts:
        if name in given:
            raise ValueError(f"{name[:64]} should be given once, with commas between its values")
        given.add(name)
        if name == "scope":
            scopes = _scopes(value)
        elif name == "path":
            path = _path(value)
        elif names and name not in names:
            raise ValueError(f"should name scope, path, and some of {', '.join(names)}")
        elif _NAME.fullmatch(name) is None:
            raise ValueError("should consist of NAME=VALUE, with semicolons between")
        else:
            conditions[name.removeprefix(CLAIM)] = _words(name, value)
    if not scopes:
        raise ValueError("should name a scope, such as scope=read,write")
    if not conditions:
        raise ValueError("should name a condition: without one it would apply to everybody")
    return AuthRule(scopes=scopes, conditions=tuple(conditions.items()), path=path)


def show_rule(value: object) -> str:
    """Write a rule on one line."""
    assert isinstance(value, AuthRule)
    parts = [f"scope={','.join(value.scopes)}"]
    for name, words in value.conditions:
        shown = f"{CLAIM}{name}" if name in {"scope", "path"} else name
        parts.append(f"{shown}={','.join(words)}")
    if value.path:
        parts.append(f"path={value.path}")
    return "; ".join(parts)


def rule(example: str, names: Sequence[str] = ()) -> Kind:
    """Make the kind of rules.

    :param names: of facts that conditions may test; empty for any.
    """

    def parse(text: str) -> AuthRule:
        parts = []
        for part in filter(None, map(str.strip, text.split(";"))):
            name, equals, value = part.partition("=")
            if not equals:
                raise ValueError("should consist of NAME=VALUE, with semicolons between")
            parts.append((name.strip(), value.strip()))
        return _rule(parts, names)

    def from_table(table: Mapping[str, object]) -> AuthRule:
        return _rule(list(table.items()), names)

    return Kind(
        metavar="RULE",
        expected=f"a rule such as {example}",
        parse=parse,
        show=show_rule,
        from_table=from_table,
        separator="\n",
    )


def is_loopback(host: str) -> bool:
    """Whether the host of a URL is certainly this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_issuer(text: str) -> IssuerSetting:
    """Read the URL of an issuer; http is for this machine only."""
    should = "should be a URL such as https://token.actions.githubusercontent.com"
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(should) from None
    if not text.isascii() or not text.isprintable() or " " in text or not host:
        raise ValueError(should)
    if parts.query or parts.fragment or "?" in text or "#" in text or parts.username is not None:
        raise ValueError("should be a URL without credentials and parameters")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError(
            "should begin with https://: over http, its keys could be forged on the way"
        )
    if parts.scheme not in {"http", "https"}:
        raise ValueError(should)
    return IssuerSetting(url=text)


def show_issuer(value: object) -> str:
    """Write the URL of an issuer."""
    return str(getattr(value, "url", ""))


def parse_audience(text: str) -> str:
    """Read an audience of tokens."""
    if not text or len(text) > _LONGEST or not text.isprintable():
        raise ValueError(f"should have between 1 and {_LONGEST} printable characters")
    return text


def parse_header(text: str) -> str:
    """Read the name of a header that nothing else uses; empty for none."""
    if text and (_HEADER.fullmatch(text) is None or _TAKEN.fullmatch(text.lower())):
        raise ValueError("should be the name of a header such as X-Forwarded-User")
    return text.lower()


ISSUER = Kind(
    metavar="URL",
    expected="a URL such as https://token.actions.githubusercontent.com",
    parse=parse_issuer,
    show=show_issuer,
)
AUDIENCE = Kind(metavar="TEXT", expected="an audience such as ncps", parse=parse_audience)
HEADER = Kind(metavar="NAME", expected="a header such as X-Forwarded-User", parse=parse_header)
OIDC_RULE = rule("scope=read,write; repository=org/repo; ref=refs/heads/main")
TLS_RULE = rule("scope=read,write; cn=ci-*", ("cn", "dns", "uri", "email"))
PROXY_RULE = rule("scope=read,write; user=ci-*", ("user",))
