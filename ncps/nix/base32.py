"""nix32: the base-32 notation of Nix for hashes and the hash part of store paths.

The bytes are one little-endian number, written in 5-bit digits from the most significant to the
least; the alphabet leaves out e, o, t and u. Unlike RFC 4648 there is no padding: n bytes take
exactly ``(8n - 1) // 5 + 1`` digits, and the unused bits of the first digit are zero. Both
directions are fast because they use C code of the standard library (`b32encode` and `int`).
"""

from __future__ import annotations

from base64 import b32encode

from ncps.errors import Malformed

ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz"

_RFC4648 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_FROM_RFC4648 = bytes.maketrans(_RFC4648, ALPHABET.encode())

_PYTHON = b"0123456789abcdefghijklmnopqrstuv"  # the digits of int(..., 32)
_TO_PYTHON = bytearray(b"!" * 256)  # no digit: int() fails for a character outside the alphabet
for _theirs, _ours in zip(ALPHABET.encode(), _PYTHON, strict=True):
    _TO_PYTHON[_theirs] = _ours


def encode(data: bytes) -> str:
    """Return `data` in nix32."""
    digits = (len(data) * 8 + 4) // 5
    width = (digits + 7) // 8 * 5  # b32encode encodes this number of bytes without padding
    number = int.from_bytes(data, "little") << (width * 8 - digits * 5)
    grouped = b32encode(number.to_bytes(width, "big"))
    return grouped[:digits].translate(_FROM_RFC4648).decode("ascii")


def decode(text: str) -> bytes:
    """Read nix32. Raises Malformed for a wrong character, a wrong length, or unused bits set."""
    size = len(text) * 5 // 8
    if (size * 8 + 4) // 5 != len(text):
        raise Malformed(f"no number of bytes takes {len(text)} nix32 characters")
    try:
        number = int(b"0" + text.encode("ascii").translate(_TO_PYTHON), 32)
    except ValueError:
        raise Malformed("not a nix32 text: foreign characters") from None
    try:
        return number.to_bytes(size, "little")
    except OverflowError:
        raise Malformed("not a nix32 text: leftover bits are not zero") from None
