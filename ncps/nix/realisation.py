"""Realisations: the store path that an output of a content-addressed derivation was built as.

Nix has two families of them. A client asks for one of the two, and the key of one family cannot be
computed from that of the other:

    realisations/sha256:<hex>!<output>.doi      to 2.34; the hash is that of the derivation's inputs
    build-trace-v2/<derivation>/<output>.doi    since 2.35; the base name of the derivation's path

Both are JSON. A signature covers the key, the path, and in the older family the realisations of the
dependencies; releases from 2.34 on neither write nor check these. No signature covers fields that
Nix does not know, so ncps does not pass them on.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Iterable, Mapping
from typing import Any, Final, Self

from attrs import evolve, field, frozen

from ncps.errors import Malformed
from ncps.nix.hashes import sha256_of
from ncps.nix.keys import Signature
from ncps.nix.storepath import STORE_DIR, StorePath, is_base

MAX_SIZE: Final = 1024 * 1024
"""Bytes of the text of a realisation, at most."""

END: Final = ".doi"
_OLD: Final = "realisations"
_NEW: Final = "build-trace-v2"
_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")
_OUTPUT: Final = re.compile(r"(?!\.\.?(?:-|\Z))[A-Za-z0-9+._?=-]{1,211}")


@frozen(cache_hash=True)
class RealisationKey:
    """An output of a derivation, in one of the two families.

    :param derivation: `sha256:<hex>`, or the base name of the derivation's store path.
    """

    derivation: str
    output: str

    def __attrs_post_init__(self) -> None:
        is_named = self.is_old or is_base(self.derivation)
        if not is_named or _OUTPUT.fullmatch(self.output) is None:
            shown = f"{self.derivation}!{self.output}"
            raise Malformed(f"not an output of a derivation: {shown[:256]!r}")

    @classmethod
    def parse_id(cls, text: str) -> Self:
        """Read `sha256:<hex>!<output>`. Raises Malformed if it is something else."""
        derivation, _, output = text.partition("!")
        if _HASH.fullmatch(derivation) is None:
            raise Malformed(f"not the id of a realisation: {text[:256]!r}")
        return cls(derivation, output)

    @classmethod
    def parse(cls, path: str) -> Self:
        """Read a `path`, with `END` or without. Raises Malformed if it is something else."""
        family, _, rest = path.removesuffix(END).partition("/")
        if family == _OLD:
            return cls.parse_id(rest)
        derivation, slash, output = rest.partition("/")
        if family != _NEW or not slash or not is_base(derivation):
            raise Malformed(f"not the path of a realisation: {path[:256]!r}")
        return cls(derivation, output)

    @property
    def is_old(self) -> bool:
        """Whether this is a key of the older family."""
        return _HASH.fullmatch(self.derivation) is not None

    @property
    def id(self) -> str:
        """The name in the JSON of the older family."""
        return f"{self.derivation}!{self.output}"

    @property
    def path(self) -> str:
        """The path of the realisation in a binary cache, without `END`."""
        return f"{_OLD}/{self.id}" if self.is_old else f"{_NEW}/{self.derivation}/{self.output}"

    def may_be(self, path: StorePath) -> bool:
        """Return whether a path has the name that Nix gives this output.

        The path of `out` has the name of the derivation; that of another output has the name of the
        output after it. A key of the older family does not contain the name, so any path may be it.
        """
        if self.is_old:
            return True
        name = StorePath.parse_base(self.derivation).name.removesuffix(".drv")
        return path.name == (name if self.output == "out" else f"{name}-{self.output}")

    @property
    def digest(self) -> str:
        """A name for files: SHA-256 of the path, 52 digits of nix32."""
        return sha256_of(self.path.encode()).nix32

    def __str__(self) -> str:
        return self.path


def _distinct(signatures: Iterable[Signature]) -> tuple[Signature, ...]:
    return tuple(sorted(set(signatures), key=str))


@frozen
class Realisation:
    """The store path that an output was built as, with signatures.

    :param dependencies: pairs of the id of an output and the base name of its path, in order; only
        in the older family.
    """

    key: RealisationKey
    out_path: StorePath
    signatures: tuple[Signature, ...] = field(default=(), converter=_distinct)
    dependencies: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: bytes, key: RealisationKey) -> Self:
        """Read the JSON of this key. Raises Malformed if it is invalid, or has another key.

        In the newer family the text may contain the key, as `key` beside `value`. A signature that
        cannot be read is omitted, because Nix would refuse the whole text.
        """
        found = _object(_json(text), "a realisation")
        if key.is_old:
            if RealisationKey.parse_id(_text(found, "id")) != key:
                raise Malformed("the realisation has the id of another one than its URL")
        elif "key" in found or "value" in found:
            _check_key(_object(found.get("key"), "key"), key)
            found = _object(found.get("value"), "value")
        return cls(
            key,
            _store_path(_text(found, "outPath")),
            _signatures(found.get("signatures", [])),
            _dependencies(found.get("dependentRealisations", {})) if key.is_old else (),
        )

    def render(self) -> bytes:
        """Return the JSON as Nix writes it: one line, its keys in order."""
        fields: dict[str, object] = {"outPath": self.out_path.base}
        if self.key.is_old:
            fields |= {"id": self.key.id, "dependentRealisations": dict(self.dependencies)}
            fields["signatures"] = [str(each) for each in self.signatures]
        else:
            fields["signatures"] = [
                {"keyName": each.name, "sig": b64encode(each.raw).decode("ascii")}
                for each in self.signatures
            ]
        return _dump(fields)

    @property
    def fingerprints(self) -> tuple[bytes, ...]:
        """The texts that a signature may cover, the most complete one first.

        With dependencies there is a second text, as newer releases sign it: without them.
        """
        if not self.key.is_old:
            key = {"drvPath": self.key.derivation, "outputName": self.key.output}
            return (_dump({"key": key, "value": {"outPath": self.out_path.base}}),)
        fields = {"id": self.key.id, "outPath": self.out_path.base}
        choices = [dict(self.dependencies), {}] if self.dependencies else [{}]
        return tuple(_dump({**fields, "dependentRealisations": each}) for each in choices)

    @property
    def texts_of_go(self) -> tuple[bytes, ...]:
        """The texts that the Go program may have signed; it writes whole paths.

        It signs the path of the output as its client sent it: whole, or the base name.
        """
        if self.key.is_old:
            return ()
        key = {"drvPath": f"{STORE_DIR}/{self.key.derivation}", "outputName": self.key.output}
        paths = f"{STORE_DIR}/{self.out_path.base}", self.out_path.base
        return tuple(_dump({"key": key, "value": {"outPath": path}}) for path in paths)

    def without_dependencies(self) -> Self:
        """Return a copy without dependencies."""
        return evolve(self, dependencies=())

    def says_as(self, other: Realisation) -> bool:
        """Return whether both name the same path for the same output."""
        return (self.key, self.out_path) == (other.key, other.out_path)


def _dump(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _json(text: bytes) -> object:
    if len(text) > MAX_SIZE:
        raise Malformed(f"a realisation has {MAX_SIZE} bytes at most, not {len(text)}")
    try:
        return json.loads(text.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):  # also UnicodeDecodeError, and numbers that are too long
        raise Malformed("a realisation is JSON, and this is not") from None


def _refuse(constant: str) -> object:
    raise ValueError(constant)


def _object(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Malformed(f"{what} is not an object of JSON")
    return value


def _text(found: Mapping[str, object], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str):
        raise Malformed(f"the realisation has no text {name}")
    return value


def _base(text: str) -> str:
    """Return the base name of a store path that is given whole or as its base name."""
    return text.removeprefix(f"{STORE_DIR}/")


def _store_path(text: str) -> StorePath:
    return StorePath.parse_base(_base(text))


def _check_key(found: Mapping[str, object], key: RealisationKey) -> None:
    there = _base(_text(found, "drvPath")), _text(found, "outputName")
    if there != (key.derivation, key.output):
        raise Malformed("the realisation has the key of another one than its URL")


def _dependencies(value: object) -> tuple[tuple[str, str], ...]:
    found = []
    for name, path in _object(value, "dependentRealisations").items():
        if not isinstance(path, str):
            raise Malformed("a dependency of the realisation has no path")
        found.append((RealisationKey.parse_id(name).id, StorePath.parse_base(path).base))
    return tuple(sorted(found))


def _signatures(value: object) -> list[Signature]:
    if not isinstance(value, list):
        raise Malformed("the signatures of the realisation are not a list")
    texts = [_signature_text(each) for each in value]
    found = []
    for name, encoded in texts:
        try:
            found.append(Signature(name, a2b_base64(encoded, strict_mode=True)))
        except ValueError:  # Malformed is a subclass
            continue
    return found


def _signature_text(value: object) -> tuple[str, str]:
    if isinstance(value, str):
        name, _, encoded = value.partition(":")
        return name, encoded
    if isinstance(value, dict):
        return _text(value, "keyName"), _text(value, "sig")
    raise Malformed("a signature of the realisation is neither a text nor an object")
