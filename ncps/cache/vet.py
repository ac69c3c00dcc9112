"""Vetting: from what an upstream says of a store path to what we say of it.

Nothing of a narinfo is believed before a configured key vouched for it, or the content address
from which its path follows, whatever host it came from (P7). What the signature does not cover
(URL, Compression, FileHash, FileSize) is checked against the bytes when they come. A content
address covers path and references; NarHash and NarSize only where it names that NarHash. Else the
bytes have to be read before anything is believed: see `proof`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal

from attrs import evolve, frozen

from ncps.codec import is_supported
from ncps.errors import Corrupt, Malformed
from ncps.nix.contentaddress import ContentAddress
from ncps.nix.keys import PublicKey, SecretKey, Signature, verify_any
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import opaque_key, served_key
from ncps.ports import NarInfoEntry, NarRecord

MAX_SIGNATURES = 32
"""How many signatures under trusted names are tried: each costs 0.1 ms, and forging is free."""

MAX_READ_SIZE: Final = 256 * 1024 * 1024
"""NarSize at most, in bytes, where the whole NAR is to be read before its narinfo is answered."""

BY_CONTENT: Final = "ca"

Voucher = PublicKey | Literal["ca"] | None
"""What vouched for a narinfo: a configured key, its content address, or nothing."""


@frozen
class Vetted:
    """A narinfo fit to be served, and the record of its NAR, nothing stored yet.

    :param unproven: what the bytes are to be compared with before the narinfo may be served or
        recorded; None if it may be. See `proof`.
    """

    entry: NarInfoEntry
    nar: NarRecord
    unproven: ContentAddress | None = None


@frozen(kw_only=True)
class Vetting:
    """The keys by which narinfos are judged and signed.

    :param trusted: a good signature by any of them suffices, and so does a content address;
        without any key nothing is verified: narinfos pass as they are and are never signed by us.
    :param own: signs what was verified; None signs nothing.
    :param name: signatures of this key name are replaced by ours.
    """

    trusted: Sequence[PublicKey]
    own: SecretKey | None
    name: str

    def vet(self, narinfo: NarInfo, *, digest: str, upstream: str, now: datetime) -> Vetted:
        """Check and rewrite; Corrupt says what is wrong.

        :param digest: the hash part that was asked for.
        :param upstream: base URL it came from.
        """
        if narinfo.store_path.digest != digest:
            raise Corrupt(f"narinfo is of {narinfo.store_path.base}, another store path")
        address = _address(narinfo)
        voucher = self._verify(narinfo, address)
        unproven = _unproven(narinfo, address) if voucher == BY_CONTENT else None
        verified = voucher is not None and unproven is None
        try:
            key = served_key(narinfo.url, narinfo.compression, narinfo.nar_hash, narinfo.file_hash)
        except Malformed as error:
            raise Corrupt(f"narinfo has an unusable URL: {error}") from error
        served = evolve(
            narinfo,
            url=key.url,
            signatures=self._signatures(narinfo, verified),
            ca=_told(narinfo, address, voucher),
        )
        return Vetted(
            NarInfoEntry(
                digest=digest,
                narinfo=served,
                upstream=upstream,
                upstream_url=narinfo.url,
                verified=verified,
                fetched_at=now,
            ),
            NarRecord(
                key=key,
                compression=narinfo.compression,
                file_size=narinfo.file_size,
                file_hash=narinfo.file_hash,
                nar_size=narinfo.nar_size,
                nar_hash=narinfo.nar_hash,
                upstream=upstream,
                origin_url=narinfo.url,
            ),
            unproven,
        )

    def proven(self, vetted: Vetted) -> Vetted:
        """The same after its bytes were found to be what its content address says."""
        narinfo = vetted.entry.narinfo
        told = evolve(narinfo, signatures=self._signatures(narinfo, verified=True))
        return Vetted(evolve(vetted.entry, narinfo=told, verified=True), vetted.nar)

    def renamed(self, vetted: Vetted) -> Vetted:
        """The same under a name that no other NAR can have: that of NarHash, which is signed."""
        narinfo = vetted.entry.narinfo
        key = opaque_key(narinfo.compression, narinfo.nar_hash)
        entry = evolve(vetted.entry, narinfo=evolve(narinfo, url=key.url))
        return Vetted(entry, evolve(vetted.nar, key=key), vetted.unproven)

    def _verify(self, narinfo: NarInfo, address: ContentAddress | None) -> Voucher:
        """Say what vouches for a narinfo; Corrupt if nothing does.

        :param address: from which its path follows, if there is one.
        """
        if not self.trusted:
            return None
        known = {key.name for key in self.trusted}
        theirs = [s for s in narinfo.signatures if s.name in known][:MAX_SIGNATURES]
        key = verify_any(self.trusted, narinfo.fingerprint(), theirs)
        if key is not None:
            return key
        if address is not None:
            return BY_CONTENT
        names = ", ".join(sorted({s.name for s in narinfo.signatures})) or "nobody"
        also = "" if narinfo.ca is None else ", and its path does not follow from its CA"
        raise Corrupt(
            f"narinfo has no good signature by a configured key (signed by {names[:200]}){also}"
        )

    def _signatures(self, narinfo: NarInfo, verified: bool) -> tuple[Signature, ...]:
        theirs = narinfo.signatures
        if self.own is None or not verified:
            return theirs
        others = tuple(s for s in theirs if s.name != self.name)
        return (*others, self.own.sign(narinfo.fingerprint()))


def _address(narinfo: NarInfo) -> ContentAddress | None:
    """The content address of a narinfo, if its path follows from it."""
    if narinfo.ca is None:
        return None
    try:
        address = ContentAddress.parse(narinfo.ca)
    except Malformed:
        return None
    return address if address.proves(narinfo.store_path, narinfo.references) else None


def _names_nar(narinfo: NarInfo, address: ContentAddress) -> bool:
    """Whether the hash of a content address is to be the NarHash."""
    return address.is_source and narinfo.store_path not in narinfo.references


def _unproven(narinfo: NarInfo, address: ContentAddress | None) -> ContentAddress | None:
    """What the bytes are to be compared with before a narinfo is believed. Corrupt."""
    assert address is not None
    if _names_nar(narinfo, address):
        if address.hash != narinfo.nar_hash:
            raise Corrupt(f"narinfo has NarHash {narinfo.nar_hash}, its CA says {address.hash}")
        return None
    if narinfo.nar_size > MAX_READ_SIZE:
        raise Corrupt(
            f"narinfo is vouched for by its CA only, and a NAR of {narinfo.nar_size} bytes is not"
            f" read for that (at most {MAX_READ_SIZE})"
        )
    if not is_supported(narinfo.compression):
        raise Corrupt(
            f"narinfo is vouched for by its CA only, and a NAR in {narinfo.compression} is not read"
        )
    return address


def _told(narinfo: NarInfo, address: ContentAddress | None, voucher: Voucher) -> str | None:
    """The CA that clients are told.

    No signature covers it, and Nix refuses a path for a CA from which another path follows, or
    that its contents do not have; some releases crash. So a wrong one is left out. So is that of a
    path that refers to itself, where a key vouches for it: Nix 2.8 and 2.26 do not agree on it.
    """
    if address is None:
        return None
    if voucher == BY_CONTENT or voucher is None:
        return str(address)
    if narinfo.store_path in narinfo.references:
        return None
    if _names_nar(narinfo, address) and address.hash != narinfo.nar_hash:
        return None
    return str(address)
