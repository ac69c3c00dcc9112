"""JWT: parses JSON Web Tokens (RFC 7519) strictly, before anything is verified.

Callers must not trust a claim before they have verified the signature. Ambiguous texts are refused:
a name that appears twice in an object, NaN, and text that is not UTF-8.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from math import isfinite
from typing import Final, NoReturn

from attrs import field, frozen

from ncps.errors import Malformed

LONGEST: Final = 16 * 1024
"""Characters of a token, at most; those of GitHub and GitLab have about 2000."""

LONGEST_KEY_ID: Final = 256

_PART: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


@frozen(kw_only=True)
class UnverifiedToken:
    """The claims of a token, and the facts in its head.

    :ivar text: the token as received.
    :ivar algorithm: the algorithm of its signature; any text.
    :ivar key_id: the name of the key; None if the token names none.
    """

    text: str = field(repr=False)
    algorithm: str
    key_id: str | None
    claims: Mapping[str, object] = field(repr=False)

    @property
    def issuer(self) -> str:
        """The claim `iss`; empty if it is not a text."""
        found = self.claims.get("iss")
        return found if isinstance(found, str) else ""

    def time(self, name: str) -> float | None:
        """Return a time in a claim, in seconds since 1970; None if there is no such claim.

        Raises Malformed if it is not a number.
        """
        found = self.claims.get(name)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, int | float) or abs(found) > 1e15:
            raise Malformed(f"the claim {name} should be a number of seconds")
        if not isfinite(found):
            raise Malformed(f"the claim {name} should be a number of seconds")
        return float(found)

    @property
    def audiences(self) -> tuple[str, ...]:
        """The claim `aud`, which is one text or a list of texts."""
        return values_of(self.claims.get("aud"))


def looks_like_token(text: str) -> bool:
    """Return whether a text has the form of a signed token; it may still be malformed."""
    return text.startswith("ey") and text.count(".") == 2


def read_token(text: str) -> UnverifiedToken:
    """Parse a token. Raises Malformed if it is none; the text repeats no part of the token."""
    if len(text) > LONGEST:
        raise Malformed(f"a token of more than {LONGEST} characters")
    parts = text.split(".")
    if len(parts) != 3 or not all(map(_PART.fullmatch, parts)):
        raise Malformed("not a signed token")
    header = read_object(_decoded(parts[0]), "the head of the token")
    claims = read_object(_decoded(parts[1]), "the body of the token")
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str):
        raise Malformed("the token names no algorithm")
    if "crit" in header:
        raise Malformed("the token has a critical extension, which nobody here knows")
    if key_id is not None and (not isinstance(key_id, str) or len(key_id) > LONGEST_KEY_ID):
        raise Malformed("the token names its key by something other than a text")
    return UnverifiedToken(text=text, algorithm=algorithm, key_id=key_id, claims=claims)


def _decoded(part: str) -> bytes:
    try:
        return urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (binascii.Error, ValueError):
        raise Malformed("a part of the token is not in base64") from None


def read_object(data: bytes, what: str) -> dict[str, object]:
    """Parse a JSON object. Raises Malformed if it is none, or a name appears twice in it.

    :param what: names the object at the beginning of the message.
    """

    def no_number(_: str) -> NoReturn:
        raise Malformed(f"{what} has a number such as NaN")

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise Malformed(f"{what} has a name twice")
        return found

    try:
        read = json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_constant=no_number)
    except Malformed:
        raise
    except (ValueError, RecursionError):
        raise Malformed(f"{what} is not readable JSON") from None
    if not isinstance(read, dict):
        raise Malformed(f"{what} is not a JSON object")
    return read


def values_of(claim: object) -> tuple[str, ...]:
    """Return the values of a claim as texts; none if it is an object or a list of other things."""
    if isinstance(claim, str):
        return (claim,)
    if isinstance(claim, bool):
        return ("true" if claim else "false",)
    if isinstance(claim, int):
        return (str(claim),) if abs(claim) < 1 << 63 else ()
    if isinstance(claim, list):
        return tuple(item for item in claim if isinstance(item, str))
    return ()
