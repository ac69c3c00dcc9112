"""NarInfoVerifier: from what an upstream says of a store path to what we say of it.

Nothing of a narinfo is believed before a configured key vouched for it, or the content address
from which its path follows, whatever host it came from (P7). What the signature does not cover
(URL, Compression, FileHash, FileSize) is checked against the bytes when they come; until then the
NAR has a name that follows from its NarHash, which the signature covers. A content address covers
path and references; NarHash and NarSize only where it names that NarHash. Else the bytes have to be
read before anything is believed: see `proof`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

from attrs import evolve, frozen

from ncps.aio.threads import Threads
from ncps.codec import is_supported
from ncps.errors import Corrupt, Malformed, Unusable
from ncps.nix.contentaddress import ContentAddress
from ncps.nix.keys import PublicKey, SecretKey, Signature, verify_any
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey, conventional_key, opaque_key
from ncps.ports import NarInfoEntry, NarRecord
from ncps.ports.catalog import CONTENT

R = TypeVar("R")

MAX_SIGNATURES = 32
"""How many signatures under trusted names are tried, and how many of others are kept: to try one
costs 0.1 ms, and forging is free."""

MAX_URL: Final = 4096
"""Characters in the URL of a narinfo; it is kept in each row of its NAR."""

MAX_READ_SIZE: Final = 256 * 1024 * 1024
"""NarSize at most, in bytes, where the whole NAR is to be read before its narinfo is answered."""


@frozen
class Vetted:
    """A narinfo fit to be served, and the record of its NAR, nothing stored yet.

    :param conventional: what the narinfo calls the file, which nobody vouches for; None: nothing.
    :param unproven: what the bytes are to be compared with before the narinfo may be served or
        recorded; None if it may be. See `proof`.
    """

    entry: NarInfoEntry
    nar: NarRecord
    conventional: NarKey | None
    unproven: ContentAddress | None = None

    def named(self, key: NarKey) -> Vetted:
        """The same with the NAR under another name."""
        narinfo = evolve(self.entry.narinfo, url=key.url)
        return evolve(
            self, entry=evolve(self.entry, narinfo=narinfo), nar=evolve(self.nar, key=key)
        )


@frozen(kw_only=True)
class NarInfoVerifier:
    """The keys by which narinfos are judged and signed.

    :param trusted: a good signature by any of them suffices; without any key nothing can be
        verified: narinfos pass as they are and are never signed by us.
    :param own: signs what was verified; None signs nothing.
    :param name: signatures of this key name are replaced by ours.
    :param workers: judge what has many references; None: nothing is judged in a thread.
    """

    trusted: Sequence[PublicKey]
    own: SecretKey | None
    name: str
    workers: Threads | None = None

    async def judged(self, narinfo: NarInfo, digest: str, upstream: str, now: datetime) -> Vetted:
        """As `vet`, in a thread where that is dear."""
        judge = partial(self.vet, narinfo, digest=digest, upstream=upstream, now=now)
        return await self._apart(narinfo, judge)

    async def apart(self, judge: Callable[..., R], entry: NarInfoEntry, *others: NarInfoEntry) -> R:
        """Call `vouched`, `merged` or the like, in a thread where there are many references."""
        return await self._apart(entry.narinfo, partial(judge, entry, *others))

    async def _apart(self, narinfo: NarInfo, judge: Callable[[], R]) -> R:
        if self.workers is None or not narinfo.references.is_long:
            return judge()
        return await self.workers.run(judge)

    def vet(self, narinfo: NarInfo, *, digest: str, upstream: str, now: datetime) -> Vetted:
        """Check and rewrite. Raises Unusable if nobody vouches for it, or it cannot be read here.

        :param digest: the hash part that was asked for.
        :param upstream: base URL it came from.
        """
        if narinfo.store_path.digest != digest:
            raise Unusable(f"narinfo is of {narinfo.store_path.base}, another store path")
        address = _address(narinfo)
        voucher = self._verify(narinfo, address)
        unproven = _unproven(narinfo, address) if voucher == CONTENT else None
        if self.trusted and not is_supported(narinfo.compression):
            raise Unusable(
                f"narinfo has Compression {narinfo.compression}, which is not read here: nothing"
                " could tell whose bytes come"
            )
        if len(narinfo.url) > MAX_URL:
            raise Unusable(f"narinfo has a URL of {len(narinfo.url)} characters, over {MAX_URL}")
        try:
            conventional = conventional_key(narinfo.url)
        except Malformed as error:
            raise Unusable(f"narinfo has an unusable URL: {error}") from error
        key = opaque_key(narinfo.compression, narinfo.nar_hash)
        entry = NarInfoEntry(
            digest=digest,
            narinfo=evolve(narinfo, url=key.url, ca=_told(narinfo, address, voucher)),
            upstream=upstream,
            upstream_url=narinfo.url,
            verified_by="" if unproven else voucher,
            fetched_at=now,
        )
        nar = NarRecord(
            key=key,
            compression=narinfo.compression,
            file_size=narinfo.file_size,
            file_hash=narinfo.file_hash,
            nar_size=narinfo.nar_size,
            nar_hash=narinfo.nar_hash,
            upstream=upstream,
            origin_url=narinfo.url,
        )
        return Vetted(self.signed(entry), nar, conventional, unproven)

    async def proven(self, vetted: Vetted) -> Vetted:
        """The same after its bytes were found to be what its content address says.

        Signed in a thread where that is dear.
        """
        entry = await self.apart(self.signed, evolve(vetted.entry, verified_by=CONTENT))
        return evolve(vetted, entry=entry, unproven=None)

    def vouched(self, entry: NarInfoEntry) -> NarInfoEntry | None:
        """A recorded narinfo as this process may serve it; None if it does not trust it.

        The catalog may be shared with processes that trust others, or older than the settings.
        """
        if self.trusted and not self._trusts(entry.verified_by):
            try:
                entry = evolve(entry, verified_by=self._verify(entry.narinfo, None))
            except Corrupt:
                return None
        return self.signed(entry)

    def _trusts(self, verified_by: str) -> bool:
        return verified_by == CONTENT or any(verified_by == str(key) for key in self.trusted)

    def _verify(self, narinfo: NarInfo, address: ContentAddress | None) -> str:
        """Who vouches for a narinfo, as `NarInfoEntry.verified_by` says it. Unusable: nobody.

        :param address: from which its path follows, if there is one.
        """
        if not self.trusted:
            return ""
        known = {key.name for key in self.trusted}
        theirs = [s for s in narinfo.signatures if s.name in known][:MAX_SIGNATURES]
        key = verify_any(self.trusted, narinfo.fingerprint(), theirs) if theirs else None
        if key is not None:
            return str(key)
        if address is not None:
            return CONTENT
        names = ", ".join(sorted({s.name for s in narinfo.signatures})) or "nobody"
        also = "" if narinfo.ca is None else ", and its path does not follow from its CA"
        raise Unusable(
            f"narinfo has no good signature by a configured key (signed by {names[:200]}){also}"
        )

    def signed(self, entry: NarInfoEntry) -> NarInfoEntry:
        """The narinfo with our signature by today's key, if it was verified; an older one goes."""
        own = None if self.own is None or not entry.is_verified else self.own
        signed_by = "" if own is None else str(own.public)
        if entry.signed_by == signed_by:
            return entry
        former = entry.signed_by.partition(":")[0]
        kept = self.others(entry.narinfo.signatures, former)
        ours = () if own is None else (own.sign(entry.narinfo.fingerprint()),)
        narinfo = evolve(entry.narinfo, signatures=(*kept, *ours))
        return evolve(entry, narinfo=narinfo, signed_by=signed_by)

    def others(self, signatures: Iterable[Signature], *former: str) -> tuple[Signature, ...]:
        """The signatures that are not ours.

        :param former: names of keys that we signed with before.
        """
        names = {self.name, *former} if self.own is not None else set(former)
        return tuple(s for s in signatures if s.name not in names)

    def merged(self, new: NarInfoEntry, old: NarInfoEntry) -> NarInfoEntry:
        """A narinfo with the signatures of an older one of the same path and NAR.

        So that every process that shares the catalog finds one by a key that it trusts.
        """
        if new.narinfo.fingerprint() != old.narinfo.fingerprint():
            return new
        former = old.signed_by.partition(":")[0], new.signed_by.partition(":")[0]
        theirs = self.others((*new.narinfo.signatures, *old.narinfo.signatures), *former)
        known = {key.name for key in self.trusted}
        best = sorted(dict.fromkeys(theirs), key=lambda s: s.name not in known)[:MAX_SIGNATURES]
        narinfo = evolve(new.narinfo, signatures=tuple(best))
        return self.signed(evolve(new, narinfo=narinfo, signed_by=""))


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
    """What the bytes are to be compared with before a narinfo is believed. Unusable."""
    assert address is not None
    if _names_nar(narinfo, address):
        if address.hash != narinfo.nar_hash:
            raise Unusable(f"narinfo has NarHash {narinfo.nar_hash}, its CA says {address.hash}")
        return None
    if narinfo.nar_size > MAX_READ_SIZE:
        raise Unusable(
            f"narinfo is vouched for by its CA only, and a NAR of {narinfo.nar_size} bytes is not"
            f" read for that (at most {MAX_READ_SIZE})"
        )
    if not is_supported(narinfo.compression):
        raise Unusable(
            f"narinfo is vouched for by its CA only, and a NAR in {narinfo.compression} is not read"
        )
    return address


def _told(narinfo: NarInfo, address: ContentAddress | None, voucher: str) -> str | None:
    """The CA that clients are told.

    No signature covers it, and Nix refuses a path for a CA from which another path follows, or
    that its contents do not have; some releases crash. So a wrong one is left out. So is that of a
    path that refers to itself, where a key vouches for it: Nix 2.8 and 2.26 do not agree on it.
    """
    if address is None:
        return None
    if voucher in {CONTENT, ""}:
        return str(address)
    if narinfo.store_path in narinfo.references:
        return None
    if _names_nar(narinfo, address) and address.hash != narinfo.nar_hash:
        return None
    return str(address)
