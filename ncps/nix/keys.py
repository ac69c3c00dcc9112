"""Signatures of store paths and the Ed25519 keys that make and check them.

All are written as ``name:base64``. A secret key has 64 bytes, the seed and then the public half
(libsodium's layout); a public key has 32 bytes, a signature 64. Only keys with the name of the
signature are tried. No message and no `repr` in this module shows any part of a key file.
"""

from __future__ import annotations

from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

from attrs import field, frozen

from ncps.errors import Malformed

if TYPE_CHECKING:
    from nacl.signing import SigningKey

_SEED_SIZE = 32
_PUBLIC_SIZE = 32
_SIGNATURE_SIZE = 64


@frozen
class Signature:
    """A signature and the name of its key. Raises Malformed if it can be no signature.

    Nix refuses a whole path if one of its signatures has another size ("signature is not valid").
    So ncps must not pass such a signature on.

    :param raw: 64 bytes.
    """

    name: str
    raw: bytes

    def __attrs_post_init__(self) -> None:
        _check_name(self.name)
        if len(self.raw) != _SIGNATURE_SIZE:
            raise Malformed(f"a signature has {_SIGNATURE_SIZE} bytes, not {len(self.raw)}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``name:base64``. Raises Malformed if it is something else."""
        return cls(*_split(text, "signature"))

    def __str__(self) -> str:
        return _join(self.name, self.raw)


@frozen
class PublicKey:
    """A key that is trusted under its name."""

    name: str
    raw: bytes

    def __attrs_post_init__(self) -> None:
        _check_name(self.name)
        if len(self.raw) != _PUBLIC_SIZE:
            raise Malformed(f"a public key has {_PUBLIC_SIZE} bytes, not {len(self.raw)}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``name:base64``, as in Nix's `trusted-public-keys`.

        Raises Malformed if it is not such a key.
        """
        return cls(*_split(text.strip(), "public key"))

    def verify(self, message: bytes, signature: Signature) -> bool:
        """Return whether this key made this signature of this message, under its name."""
        if signature.name != self.name:
            return False
        from nacl.exceptions import BadSignatureError  # noqa: PLC0415 - help and settings need none
        from nacl.signing import VerifyKey  # noqa: PLC0415 - as above

        try:
            VerifyKey(self.raw).verify(message, signature.raw)
        except BadSignatureError:
            return False
        return True

    def __str__(self) -> str:
        return _join(self.name, self.raw)


@frozen(str=False)
class SecretKey:
    """A key that signs; `str` and `repr` show only its name."""

    name: str
    _signing: SigningKey = field(repr=False)

    def __attrs_post_init__(self) -> None:
        _check_name(self.name)

    @classmethod
    def generate(cls, name: str) -> Self:
        """Make a new key from the system's randomness."""
        from nacl.signing import SigningKey  # noqa: PLC0415 - as above

        return cls(name, SigningKey.generate())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the form of `nix key generate-secret`. Raises Malformed if it is no such key.

        The public half must belong to the seed: no client accepts signatures of a file that was
        put together from two keys.
        """
        from nacl.signing import SigningKey  # noqa: PLC0415 - as above

        name, raw = _split(text.strip(), "secret key")
        if len(raw) == _PUBLIC_SIZE:
            raise Malformed("32 bytes are a public key, a secret key has 64")
        if len(raw) != _SEED_SIZE + _PUBLIC_SIZE:
            raise Malformed(f"a secret key has 64 bytes, not {len(raw)}")
        signing = SigningKey(raw[:_SEED_SIZE])
        if bytes(signing.verify_key) != raw[_SEED_SIZE:]:
            raise Malformed("the two halves of the secret key do not belong together")
        return cls(name, signing)

    def export(self) -> str:
        """Return the secret in Nix's form, for a key file and for no other use."""
        return _join(self.name, bytes(self._signing) + bytes(self._signing.verify_key))

    @property
    def public(self) -> PublicKey:
        """The half that clients trust."""
        return PublicKey(self.name, bytes(self._signing.verify_key))

    def sign(self, message: bytes) -> Signature:
        """Sign the bytes of a fingerprint."""
        return Signature(self.name, self._signing.sign(message).signature)


def verify_any(
    keys: Iterable[PublicKey], message: bytes, signatures: Iterable[Signature]
) -> PublicKey | None:
    """Return a key that made one of the signatures of `message`; None if there is none.

    Several keys may have one name, for example after a replacement: each of them is tried.
    """
    candidates = tuple(signatures)
    for key in keys:
        for signature in candidates:
            if key.verify(message, signature):
                return key
    return None


def _check_name(name: str) -> None:
    """Raise Malformed if a name would break a line or a list of keys."""
    if not name or ":" in name or " " in name or not (name.isascii() and name.isprintable()):
        raise Malformed("a key name is printable ASCII without spaces and colons, and not empty")


def _split(text: str, what: str) -> tuple[str, bytes]:
    name, colon, encoded = text.partition(":")
    if not colon:
        raise Malformed(f"a {what} is written NAME:BASE64")
    try:
        return name, a2b_base64(encoded, strict_mode=True)
    except ValueError:
        raise Malformed(f"what follows the colon of a {what} is not base64") from None


def _join(name: str, raw: bytes) -> str:
    return f"{name}:{b64encode(raw).decode('ascii')}"
