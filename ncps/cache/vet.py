"""Vetting: from what an upstream says of a store path to what we say of it.

Nothing of a narinfo is believed before a configured key vouched for it, whatever host it came
from (P7). What the signature does not cover (URL, Compression, FileHash, FileSize) is checked
against the bytes when they come.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from attrs import evolve, frozen

from ncps.errors import Corrupt, Malformed
from ncps.nix.keys import PublicKey, SecretKey, Signature, verify_any
from ncps.nix.narinfo import NarInfo
from ncps.nix.narurl import opaque_key, served_key
from ncps.ports import NarInfoEntry, NarRecord

MAX_SIGNATURES = 32
"""How many signatures under trusted names are tried: each costs 0.1 ms, and forging is free."""


@frozen
class Vetted:
    """A narinfo fit to be served, and the record of its NAR, nothing stored yet."""

    entry: NarInfoEntry
    nar: NarRecord


@frozen(kw_only=True)
class Vetting:
    """The keys by which narinfos are judged and signed.

    :param trusted: a good signature by any of them suffices; without any key nothing can be
        verified: narinfos pass as they are and are never signed by us.
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
        verified = self._verify(narinfo)
        try:
            key = served_key(narinfo.url, narinfo.compression, narinfo.nar_hash, narinfo.file_hash)
        except Malformed as error:
            raise Corrupt(f"narinfo has an unusable URL: {error}") from error
        served = evolve(narinfo, url=key.url, signatures=self._signatures(narinfo, verified))
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
        )

    def renamed(self, vetted: Vetted) -> Vetted:
        """The same under a name that no other NAR can have: that of NarHash, which is signed."""
        narinfo = vetted.entry.narinfo
        key = opaque_key(narinfo.compression, narinfo.nar_hash)
        entry = evolve(vetted.entry, narinfo=evolve(narinfo, url=key.url))
        return Vetted(entry, evolve(vetted.nar, key=key))

    def _verify(self, narinfo: NarInfo) -> bool:
        if not self.trusted:
            return False
        known = {key.name for key in self.trusted}
        theirs = [s for s in narinfo.signatures if s.name in known][:MAX_SIGNATURES]
        if verify_any(self.trusted, narinfo.fingerprint(), theirs) is None:
            names = ", ".join(sorted({s.name for s in narinfo.signatures})) or "nobody"
            raise Corrupt(
                f"narinfo has no good signature by a configured key (signed by {names[:200]})"
            )
        return True

    def _signatures(self, narinfo: NarInfo, verified: bool) -> tuple[Signature, ...]:
        theirs = narinfo.signatures
        if self.own is None or not verified:
            return theirs
        others = tuple(s for s in theirs if s.name != self.name)
        return (*others, self.own.sign(narinfo.fingerprint()))
