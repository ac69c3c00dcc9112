"""narinfo: the text in which a binary cache describes a store path and names the URL of its NAR.

Its lines are ``Key: value``. Reading accepts the differences between existing caches (line ends,
unknown keys, missing optional fields). It raises Malformed, which names the field, for faults that
would mislead a client. Writing is strict: Nix reads a value from the second byte after the key on,
so without a blank it would read the next line. A signature covers the fingerprint of a narinfo:
path, NarHash, NarSize and references. URL, Compression, FileHash, FileSize, Deriver and CA are not
signed, and each server may rewrite them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Self

from attrs import field, frozen

from ncps.errors import Malformed
from ncps.nix.hashes import Hash
from ncps.nix.keys import Signature
from ncps.nix.references import References
from ncps.nix.storepath import StorePath

MAX_SIZE: Final = 4 * 1024 * 1024
"""Bytes of a text, at most; the longest in known caches have a few hundred kB."""

MAX_REFERENCES: Final = 100_000
MAX_NAR_SIZE: Final = 2**63 - 1

COMPRESSIONS: Final = frozenset(
    {
        "none",
        "xz",
        "bzip2",
        "zstd",
        "br",
        "gzip",
        "lzip",
        "lz4",
        "lzma",
        "compress",
        "grzip",
        "lrzip",
        "lzop",
    }
)
"""Values of Compression that Nix accepts; with any other value, Nix's whole query fails."""

_FIELDS = frozenset(
    {
        "StorePath",
        "URL",
        "Compression",
        "FileHash",
        "FileSize",
        "NarHash",
        "NarSize",
        "References",
        "Deriver",
        "System",
        "CA",
    }
)


def _each_once(paths: Iterable[StorePath]) -> References:
    return References.of(paths)


def _distinct_signatures(signatures: Iterable[Signature]) -> tuple[Signature, ...]:
    return tuple(dict.fromkeys(signatures))


@frozen(kw_only=True)
class NarInfo:
    """A store path in a binary cache. Raises Malformed if the fields are invalid in a narinfo.

    :param url: of the NAR, relative to the cache or absolute, with its query.
    :param compression: one of `COMPRESSIONS`. With ``none``, the facts of the NAR are those of the
        file, and are filled in.
    :param file_size: bytes of the file at the URL; None if unknown, as for `file_hash` (SHA-256).
    :param nar_size: bytes of the NAR before compression, at least 1.
    :param nar_hash: SHA-256 of the NAR before compression.
    :param deriver: base name of the derivation.
    """

    store_path: StorePath
    url: str
    compression: str
    file_hash: Hash | None = None
    file_size: int | None = None
    nar_hash: Hash
    nar_size: int
    references: References = field(default=References(), converter=_each_once)
    deriver: str | None = None
    system: str | None = None
    signatures: tuple[Signature, ...] = field(default=(), converter=_distinct_signatures)
    ca: str | None = None

    def __attrs_post_init__(self) -> None:
        if not self.url or " " in self.url:
            raise Malformed("URL is empty or has a blank in it")
        if self.compression not in COMPRESSIONS:
            raise Malformed(f"Compression {self.compression[:32]!r} is unknown")
        if not 0 < self.nar_size <= MAX_NAR_SIZE:
            raise Malformed(f"NarSize {self.nar_size} is out of range")
        if self.file_size is not None and not 0 < self.file_size <= MAX_NAR_SIZE:
            raise Malformed(f"FileSize {self.file_size} is out of range")
        if len(self.references) > MAX_REFERENCES:
            raise Malformed(f"References has more than {MAX_REFERENCES} paths")
        for key, value in (
            ("URL", self.url),
            ("Deriver", self.deriver),
            ("System", self.system),
            ("CA", self.ca),
        ):
            if value is not None and _printable(value) is None:
                raise Malformed(f"{key} has a character that does not belong there")
        for key, digest in (("NarHash", self.nar_hash), ("FileHash", self.file_hash)):
            if digest is not None and digest.algorithm != "sha256":
                raise Malformed(f"{key} is a {digest.algorithm}, not a sha256")
        if self.compression == "none":
            self._equate_file_and_nar()

    def _equate_file_and_nar(self) -> None:
        if self.file_hash is None:
            object.__setattr__(self, "file_hash", self.nar_hash)
        elif self.file_hash != self.nar_hash:
            raise Malformed("FileHash differs from NarHash though Compression is none")
        if self.file_size is None:
            object.__setattr__(self, "file_size", self.nar_size)
        elif self.file_size != self.nar_size:
            raise Malformed("FileSize differs from NarSize though Compression is none")

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Read a narinfo as existing binary caches write it.

        A Sig, Deriver, System or CA that cannot be read is omitted: no client needs it, and Nix
        would refuse the whole text. A missing Compression is bzip2, as for Nix. Raises Malformed if
        a required field is missing, a field appears twice, or values contradict each other; it
        names the field. Also another store, HTML, and a text longer than `MAX_SIZE` raise it.
        """
        fields, signatures = _fields(text)
        return cls(
            store_path=_store_path(_required(fields, "StorePath")),
            url=_required(fields, "URL"),
            compression=fields.get("Compression") or _unstated_compression(fields["URL"]),
            file_hash=_hash("FileHash", value) if (value := fields.get("FileHash")) else None,
            file_size=_size("FileSize", fields.get("FileSize") or "0") or None,
            nar_hash=_hash("NarHash", _required(fields, "NarHash")),
            nar_size=_size("NarSize", _required(fields, "NarSize")),
            references=References.parse(fields.get("References", ""), MAX_REFERENCES),
            deriver=_deriver(fields.get("Deriver")),
            system=_printable(fields.get("System")),
            signatures=_signatures(signatures),
            ca=_printable(fields.get("CA")),
        )

    def render(self) -> bytes:
        """Return the text in the form that the strictest client reads; ASCII, one final LF."""
        lines = [
            f"StorePath: {self.store_path}",
            f"URL: {self.url}",
            f"Compression: {self.compression}",
        ]
        if self.file_hash is not None:
            lines.append(f"FileHash: {self.file_hash}")
        if self.file_size is not None:
            lines.append(f"FileSize: {self.file_size}")
        lines.append(f"NarHash: {self.nar_hash}")
        lines.append(f"NarSize: {self.nar_size}")
        lines.append(f"References: {self.references.bases}")
        if self.deriver is not None:
            lines.append(f"Deriver: {self.deriver}")
        if self.system is not None:
            lines.append(f"System: {self.system}")
        lines.extend([f"Sig: {signature}" for signature in self.signatures])
        if self.ca is not None:
            lines.append(f"CA: {self.ca}")
        lines.append("")
        return "\n".join(lines).encode("ascii")

    def fingerprint(self) -> bytes:
        """Return the bytes that signatures cover (Nix, path-info.cc)."""
        facts = f"1;{self.store_path};{self.nar_hash};{self.nar_size};"
        return f"{facts}{self.references.joined}".encode("ascii")


def _fields(text: bytes) -> tuple[dict[str, str], list[str]]:
    """Split the text into its known fields and the values of its Sig lines."""
    if len(text) > MAX_SIZE:
        raise Malformed(f"a narinfo of {len(text)} bytes is longer than {MAX_SIZE}")
    if text.lstrip()[:1] == b"<":
        raise Malformed("an HTML page instead of a narinfo")
    fields: dict[str, str] = {}
    signatures: list[str] = []
    for line in text.decode("latin-1").split("\n"):  # later checks refuse values outside ASCII
        key, colon, value = line.partition(":")
        if key in _FIELDS:
            if key in fields:
                raise Malformed(f"{key} is given twice")
            fields[key] = value.strip(" \t\r")
        elif key == "Sig":
            signatures.append(value.strip(" \t\r"))
        elif not colon and line.strip():
            raise Malformed(f"a line without colon: {line[:64]!r}")
    return fields, signatures


def _required(fields: dict[str, str], key: str) -> str:
    value = fields.get(key)
    if not value:
        raise Malformed(f"{key} is missing")
    return value


def _unstated_compression(url: str) -> str:
    ending = url.partition("?")[0].rpartition(".nar")[2]
    if ending not in {"", ".bz2"} and ending.isprintable() and "/" not in ending:
        raise Malformed(f"Compression is missing, and bzip2 does not go with {ending[:16]!r}")
    return "bzip2"


def _store_path(text: str) -> StorePath:
    try:
        return StorePath.parse(text)
    except Malformed as error:
        raise Malformed(f"StorePath is {error}") from None


def _hash(key: str, text: str) -> Hash:
    try:
        return Hash.parse(text, "sha256")
    except Malformed as error:
        raise Malformed(f"{key}: {error}") from None


def _printable(text: str | None) -> str | None:
    return text if text and text.isascii() and text.isprintable() else None


def _deriver(text: str | None) -> str | None:
    if not text or text == "unknown-deriver":
        return None
    try:
        return StorePath.parse_base(text).base
    except Malformed:  # not signed, and Nix refuses a path for it
        return None


def _signatures(texts: list[str]) -> list[Signature]:
    signatures = []
    for text in texts:
        try:
            signatures.append(Signature.parse(text))
        except Malformed:  # the other signatures are still usable
            continue
    return signatures


def _size(key: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 20:
        raise Malformed(f"{key} is not a size in bytes: {text[:32]!r}")
    return int(text)
