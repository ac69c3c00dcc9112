"""NarInfoVerifier: checks the narinfo of an upstream and makes from it our own, signed narinfo.

ncps believes a narinfo only if a configured key vouches for it, or a content address from which
its path follows. The host that it came from does not matter (P7). The signature does not cover URL,
Compression, FileHash and FileSize. They are checked against the bytes when these arrive; until then
the NAR has a name made from its NarHash, which the signature covers. A content address always
covers path and references; it covers NarHash and NarSize only if it is that NarHash. Otherwise ncps
reads the bytes before it believes the narinfo: see `proof`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar

from attrs import define, evolve, field, frozen

from ncps.aio.threads import Threads
from ncps.codec import is_supported
from ncps.errors import Corrupt, Malformed, Unusable
from ncps.nix.contentaddress import ContentAddress
from ncps.nix.keyring import FormerKey
from ncps.nix.keys import PublicKey, SecretKey, Signature, verify_any
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import NarKey, conventional_key, opaque_key
from ncps.ports import NarInfoEntry, NarRecord
from ncps.ports.catalog import CONTENT, UPLOAD

R = TypeVar("R")

MAX_SIGNATURES = 32
"""Signatures under trusted names that are checked, at most: a check takes 0.1 ms, and anybody can
send forged ones. The same bound holds for the other signatures, which are kept."""

_WITHOUT_KEY: Final = frozenset({CONTENT, UPLOAD})

MAX_URL: Final = 4096
"""Characters in the URL of a narinfo, at most. The row of its NAR keeps the URL."""

MAX_READ_SIZE: Final = 256 * 1024 * 1024
"""The largest NarSize, in bytes, of a NAR that is read before its narinfo is served."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


@frozen
class Vetted:
    """A narinfo that may be served, and the record of its NAR, which is not stored yet.

    :param conventional: the name of the file in the narinfo if it is a conventional one; no key
        vouches for it.
    :param unproven: the content address that the bytes must have before the narinfo may be served
        or recorded; None if it may be served now. See `proof`.
    """

    entry: NarInfoEntry
    nar: NarRecord
    conventional: NarKey | None
    unproven: ContentAddress | None = None

    def named(self, key: NarKey) -> Vetted:
        """Return this narinfo with another name for its NAR."""
        narinfo = evolve(self.entry.narinfo, url=key.url)
        return evolve(
            self, entry=evolve(self.entry, narinfo=narinfo), nar=evolve(self.nar, key=key)
        )


class TrustedKeys(Sequence[PublicKey]):
    """The keys that vouch for narinfos; a reload replaces all of them together.

    :ivar texts: the keys as Nix writes them.
    """

    def __init__(self, keys: Iterable[PublicKey]) -> None:
        self.replace(keys)

    def replace(self, keys: Iterable[PublicKey]) -> None:
        """Trust only these keys from now on."""
        self._keys = tuple(keys)
        self.texts = frozenset(map(str, self._keys))

    def __iter__(self) -> Iterator[PublicKey]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: Any) -> Any:
        return self._keys[index]


def _held(keys: Iterable[PublicKey]) -> TrustedKeys:
    return keys if isinstance(keys, TrustedKeys) else TrustedKeys(keys)


@define(kw_only=True, eq=False)
class NarInfoVerifier:
    """Checks narinfos by the trusted keys, and signs them with our own; `use` changes the latter.

    :param trusted: one good signature by any of these keys is enough. Without any key, narinfos are
        served unverified, and ncps does not sign them.
    :param own: the key that signs verified narinfos; None signs nothing.
    :param name: our signature replaces the signatures of this key name.
    :param workers: threads that check narinfos with many references; None uses no threads.
    :param former: keys that `own` has replaced. Each signs until its end, and its signatures stay.
    :param now: returns the present time, for the ends of former keys.
    :ivar own_names: the names of all keys that this cache signs with or has signed with.
    """

    trusted: TrustedKeys = field(converter=_held)
    own: SecretKey | None
    name: str
    workers: Threads | None = None
    former: Sequence[FormerKey] = ()
    now: Callable[[], datetime] = _utc_now
    own_names: frozenset[str] = field(init=False)
    _own_text: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._name_own()

    def _name_own(self) -> None:
        self.own_names = frozenset({self.name, *(each.key.name for each in self.former)})
        self._own_text = "" if self.own is None else str(self.own.public)

    def use(self, key: SecretKey, former: Sequence[FormerKey]) -> None:
        """Sign with another key from now on, if anything is signed."""
        if self.own is not None:
            self.own = key
        self.name, self.former = key.public.name, former
        self._name_own()

    async def judged(self, narinfo: NarInfo, digest: str, upstream: str, now: datetime) -> Vetted:
        """Do as `vet`, in a thread if the narinfo has many references."""
        judge = partial(self.vet, narinfo, digest=digest, upstream=upstream, now=now)
        return await self.apart_for(narinfo, judge)

    async def apart(self, judge: Callable[..., R], entry: NarInfoEntry, *others: NarInfoEntry) -> R:
        """Call `vouched`, `merged` or the like, in a thread if an entry has many references."""
        return await self.apart_for(entry.narinfo, partial(judge, entry, *others))

    async def apart_for(self, narinfo: NarInfo, judge: Callable[[], R]) -> R:
        """Call a function that uses a narinfo, in a thread if the narinfo has many references."""
        if self.workers is None or not narinfo.references.is_long:
            return judge()
        return await self.workers.run(judge)

    def vet(
        self,
        narinfo: NarInfo,
        *,
        digest: str,
        upstream: str,
        now: datetime,
        is_upload: bool = False,
    ) -> Vetted:
        """Check a narinfo and rewrite it as ours.

        Raises Unusable if no key vouches for it, or if ncps cannot use its NAR.

        :param digest: the hash part that was asked for.
        :param upstream: base URL of the upstream that sent it.
        :param is_upload: whether a sidecar says that a client uploaded it. Then our own signature
            vouches for it.
        """
        if narinfo.store_path.digest != digest:
            raise Unusable(f"narinfo is of {narinfo.store_path.base}, another store path")
        address = address_of(narinfo)
        is_upload = is_upload and self.has_signed(narinfo)
        voucher = UPLOAD if is_upload else self._verify(narinfo, address)
        unproven = unproven_address(narinfo, address) if voucher == CONTENT else None
        if self.trusted and not is_supported(narinfo.compression):
            raise Unusable(
                f"narinfo has Compression {narinfo.compression}, which ncps cannot decompress, so"
                " it could not verify the NAR"
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
            narinfo=evolve(narinfo, url=key.url, ca=stated_address(narinfo, address, voucher)),
            upstream=upstream,
            upstream_url=narinfo.url,
            verified_by="" if unproven else voucher,
            fetched_at=now,
        )
        nar = _record_of(narinfo, key, upstream)
        nar = evolve(nar, uploaded_at=now) if is_upload else nar
        return Vetted(self.signed(entry), nar, conventional, unproven)

    def has_signed(self, narinfo: NarInfo) -> bool:
        """Return whether this cache has signed a narinfo, with its present key or a former one."""
        keys = () if self.own is None else (self.own.public, *(f.key.public for f in self.former))
        ours = [s for s in narinfo.signatures if s.name in self.own_names][:MAX_SIGNATURES]
        return bool(ours) and verify_any(keys, narinfo.fingerprint(), ours) is not None

    async def proven(self, vetted: Vetted) -> Vetted:
        """Return the narinfo, signed, after its bytes were found to have its content address.

        A thread signs a narinfo with many references.
        """
        entry = await self.apart(self.signed, evolve(vetted.entry, verified_by=CONTENT))
        return evolve(vetted, entry=entry, unproven=None)

    def vouched(self, entry: NarInfoEntry) -> NarInfoEntry | None:
        """Return a recorded narinfo as this process may serve it; None if it does not trust it.

        The record may come from a process with other trusted keys, or from before a reload.
        """
        if self.trusted and not self._trusts(entry.verified_by):
            try:
                entry = evolve(entry, verified_by=self._verify(entry.narinfo, None))
            except Corrupt:
                return None
        return self.signed(entry)

    def _trusts(self, verified_by: str) -> bool:
        return verified_by in _WITHOUT_KEY or verified_by in self.trusted.texts

    def _verify(self, narinfo: NarInfo, address: ContentAddress | None) -> str:
        """Return the key that vouches for a narinfo, as in `NarInfoEntry.verified_by`.

        Raises Unusable if there is none.

        :param address: content address from which its path follows, if there is one.
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
        """Return the narinfo with our present signatures if it was verified, else without any."""
        own = None if self.own is None or not entry.is_verified else self.own
        signed_by = "" if own is None else self._own_text
        if entry.signed_by == signed_by:
            return entry
        signatures = entry.narinfo.signatures
        kept = self.others(signatures, entry.signed_by.partition(":")[0])
        if own is not None:
            message = entry.narinfo.fingerprint()
            kept += (*self._by_former(own, message, signatures), own.sign(message))
        narinfo = evolve(entry.narinfo, signatures=kept)
        return evolve(entry, narinfo=narinfo, signed_by=signed_by)

    def _by_former(
        self, own: SecretKey, message: bytes, there: Iterable[Signature]
    ) -> tuple[Signature, ...]:
        """Sign with each former key whose end has not come, or whose signature is there already."""
        now, there = self.now(), tuple(there)
        return tuple(
            each.key.sign(message)
            for each in self.former
            if each.public != str(own.public)
            and (now < each.until or any(each.key.public.verify(message, s) for s in there))
        )

    def others(self, signatures: Iterable[Signature], *former: str) -> tuple[Signature, ...]:
        """Return the signatures that are not ours.

        :param former: names of the keys that we signed with before.
        """
        names = {*self.own_names, *former} if self.own is not None else set(former)
        return tuple(s for s in signatures if s.name not in names)

    def merged(self, new: NarInfoEntry, old: NarInfoEntry) -> NarInfoEntry:
        """Return a narinfo with the added signatures of an older one of the same path and NAR.

        Then each process that shares the catalog finds a signature by a key that it trusts.
        """
        if new.narinfo.fingerprint() != old.narinfo.fingerprint():
            return new
        former = old.signed_by.partition(":")[0], new.signed_by.partition(":")[0]
        theirs = self.others((*new.narinfo.signatures, *old.narinfo.signatures), *former)
        known = {key.name for key in self.trusted}
        best = sorted(dict.fromkeys(theirs), key=lambda s: s.name not in known)[:MAX_SIGNATURES]
        if self.own is not None:
            there = (*new.narinfo.signatures, *old.narinfo.signatures)
            best += self._by_former(self.own, new.narinfo.fingerprint(), there)
        narinfo = evolve(new.narinfo, signatures=tuple(best))
        return self.signed(evolve(new, narinfo=narinfo, signed_by=""))


def _record_of(narinfo: NarInfo, key: NarKey, upstream: str) -> NarRecord:
    """Return the record of the NAR that a narinfo of an upstream names; nothing is stored yet."""
    return NarRecord(
        key=key,
        compression=narinfo.compression,
        file_size=narinfo.file_size,
        file_hash=narinfo.file_hash,
        nar_size=narinfo.nar_size,
        nar_hash=narinfo.nar_hash,
        upstream=upstream,
        origin_url=narinfo.url,
    )


def address_of(narinfo: NarInfo) -> ContentAddress | None:
    """Return the content address of a narinfo, if its path follows from it."""
    if narinfo.ca is None:
        return None
    try:
        address = ContentAddress.parse(narinfo.ca)
    except Malformed:
        return None
    return address if address.proves(narinfo.store_path, narinfo.references) else None


def names_nar(narinfo: NarInfo, address: ContentAddress) -> bool:
    """Return whether the hash in a content address is the hash of the NAR."""
    return address.is_source and narinfo.store_path not in narinfo.references


def unproven_address(narinfo: NarInfo, address: ContentAddress | None) -> ContentAddress | None:
    """Return the content address that the bytes must have before a narinfo is believed.

    Returns None if no bytes need to be read. Raises Unusable if the address is another NarHash, or
    if ncps does not read this NAR.
    """
    assert address is not None
    if names_nar(narinfo, address):
        if address.hash != narinfo.nar_hash:
            raise Unusable(f"narinfo has NarHash {narinfo.nar_hash}, its CA says {address.hash}")
        return None
    if narinfo.nar_size > MAX_READ_SIZE:
        raise Unusable(
            f"only its CA vouches for the narinfo, and its NAR of {narinfo.nar_size} bytes is too"
            f" large to be checked against it (at most {MAX_READ_SIZE})"
        )
    if not is_supported(narinfo.compression):
        raise Unusable(
            "only its CA vouches for the narinfo, and ncps cannot decompress a NAR in"
            f" {narinfo.compression}"
        )
    return address


def stated_address(narinfo: NarInfo, address: ContentAddress | None, voucher: str) -> str | None:
    """Return the CA field of the narinfo for clients; None leaves it out.

    No signature covers the CA. Nix refuses a path if another path follows from its CA, or if its
    contents have another CA; some releases of Nix crash. So a wrong CA is left out. The CA of a
    path that refers to itself is left out, too, if a key vouches for the path: Nix 2.8 and 2.26 do
    not agree on such a CA.
    """
    if address is None:
        return None
    if voucher in {CONTENT, ""}:
        return str(address)
    if narinfo.store_path in narinfo.references:
        return None
    if names_nar(narinfo, address) and address.hash != narinfo.nar_hash:
        return None
    return str(address)
