"""Keys: the public keys of an issuer (RFC 7517), and checking signatures by them.

Only public keys are accepted, and only with the algorithms for their type. So a token with the
algorithm `none`, or with HS256 and the text of a public key as its secret, is refused before any
check.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import jwt
from attrs import frozen
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from ncps.auth.oidc.jwt import LONGEST_KEY_ID, UnverifiedToken, read_object
from ncps.errors import Corrupt, Malformed

MAX_KEYS: Final = 100
"""Keys of one issuer, at most."""

_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_RSA_BITS: Final = (2048, 8192)
_LONGEST_MODULUS: Final = 1400  # digits of base64; 8192 bits have 1366
_LONGEST_EXPONENT: Final = 6
_FITTING: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("RSA", ""): _RSA,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
"""The algorithms for each type and curve of a key."""

ALGORITHMS: Final = frozenset(name for names in _FITTING.values() for name in names)
"""Algorithms of signatures that are accepted."""


@frozen
class IssuerKey:
    """A key of an issuer.

    :ivar id: its name; empty if the issuer gives it none.
    :ivar algorithms: the algorithms with which it may be used.
    """

    id: str
    algorithms: tuple[str, ...]
    _described: Mapping[str, object]
    _ready: dict[str, jwt.PyJWK]

    def verify(self, token: UnverifiedToken) -> bool:
        """Return whether this key has signed a token."""
        assert token.algorithm in self.algorithms, "see KeySet.find"
        key = self._ready.get(token.algorithm)
        if key is None:
            key = self._ready[token.algorithm] = jwt.PyJWK(
                dict(self._described), algorithm=token.algorithm
            )
        try:
            jwt.PyJWS().decode(token.text, key=key, algorithms=[token.algorithm])
        except jwt.PyJWTError:
            return False
        return True


class KeySet:
    """The keys of an issuer at one time.

    :ivar ignored: number of keys that ncps cannot use.
    """

    def __init__(self, keys: list[IssuerKey], ignored: int = 0) -> None:
        self._keys = keys
        self.ignored = ignored

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, key_id: str | None, algorithm: str) -> IssuerKey | None:
        """Return the key that a token names, if it may be used with the algorithm.

        For a token that names no key, return the key for its algorithm if there is only one.
        """
        found = [
            key
            for key in self._keys
            if algorithm in key.algorithms and (key_id is None or key.id == key_id)
        ]
        return found[0] if len(found) == 1 or (found and key_id is not None) else None


def read_keys(data: bytes) -> KeySet:
    """Parse the document of an issuer's keys.

    Raises Corrupt if it is none, or has no usable key, or more than `MAX_KEYS` keys.
    """
    try:
        described = read_object(data, "the document of keys").get("keys")
    except Malformed as error:
        raise Corrupt(str(error), kind="malformed") from None
    if not isinstance(described, list):
        raise Corrupt("the document of keys has no list of keys", kind="malformed")
    if len(described) > MAX_KEYS:
        raise Corrupt(f"the document of keys has more than {MAX_KEYS}", kind="malformed")
    keys = [key for each in described if (key := _read_key(each)) is not None]
    if not keys:
        raise Corrupt("the document of keys has no public key for signatures", kind="malformed")
    return KeySet(keys, len(described) - len(keys))


def _read_key(described: object) -> IssuerKey | None:
    """Return a key; None if it cannot verify signatures of tokens."""
    if not isinstance(described, dict) or "d" in described:  # private keys prove nothing
        return None
    kind, curve = described.get("kty"), described.get("crv", "")
    key_id, use = described.get("kid", ""), described.get("use", "sig")
    operations = described.get("key_ops", ["verify"])
    if not isinstance(key_id, str) or len(key_id) > LONGEST_KEY_ID or use != "sig":
        return None
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    if not isinstance(kind, str) or not isinstance(curve, str):
        return None
    fitting = _FITTING.get((kind, "" if kind == "RSA" else curve), ())
    only = described.get("alg")
    algorithms = fitting if only is None else tuple(name for name in fitting if name == only)
    if not algorithms or (kind == "RSA" and not _is_bounded(described)):
        return None
    try:
        ready = {name: jwt.PyJWK(dict(described), algorithm=name) for name in algorithms[:1]}
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError):
        return None
    found = ready[algorithms[0]].key
    if isinstance(found, RSAPublicKey) and not _RSA_BITS[0] <= found.key_size <= _RSA_BITS[1]:
        return None
    return IssuerKey(key_id, algorithms, described, ready)


def _is_bounded(described: Mapping[str, object]) -> bool:
    """Return whether an RSA key is small enough for a fast check."""
    modulus, exponent = described.get("n"), described.get("e")
    return (
        isinstance(modulus, str)
        and isinstance(exponent, str)
        and len(modulus) <= _LONGEST_MODULUS
        and len(exponent) <= _LONGEST_EXPONENT
    )
