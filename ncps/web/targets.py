"""Secrets in the target of a request, which proxies and browsers log.

ncps refuses a request with a secret. Its own log and spans show the path without the secret.
"""

from __future__ import annotations

import re
from typing import Final

_NAMED: Final = re.compile(
    rb"[?&;](?:access_token|auth_token|api_key|id_token|token|password)=", re.IGNORECASE
)
_TOKEN: Final = re.compile(rb"ncps_[A-Za-z0-9_-]{43}")
"""The form of tokens that `ncps token create` makes."""
_USER: Final = re.compile(rb"(https?://)[^/?]*@", re.IGNORECASE)
"""User and password before the host, in a target in absolute form."""


def has_secret(target: bytes) -> bool:
    """Whether a target holds a token or a password."""
    if b"?" in target and _NAMED.search(target) is not None:
        return True
    if b"ncps_" in target and _TOKEN.search(target) is not None:
        return True
    return target[:1] != b"/" and _USER.match(target) is not None


def path_of(target: bytes) -> bytes:
    """Return the target without its query and without secrets."""
    path = target.partition(b"?")[0]
    if b"ncps_" in path:
        path = _TOKEN.sub(b"TOKEN", path)
    return path if path[:1] == b"/" else _USER.sub(rb"\1", path, count=1)
