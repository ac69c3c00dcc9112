"""Trust in uploads: finds the voucher of a narinfo that a client sends.

    is a signature needed?   vouches
    no                       the client, which may write
    yes                      a signature by a key for uploads, or a content address (CA) from which
                             the path follows, once the NAR was found to have the contents it names

Keys of upstreams do not count: each vouches only for narinfos of its upstream. This cache signs the
narinfos that it accepts, so its clients need only the key of this cache.
"""

from __future__ import annotations

from datetime import datetime

from attrs import evolve, frozen

from ncps.cache.narinfo.verify import (
    MAX_SIGNATURES,
    NarInfoVerifier,
    address_of,
    names_nar,
    stated_address,
)
from ncps.cache.write.rules import UploadRules
from ncps.errors import Refused
from ncps.nix.contentaddress import ContentAddress
from ncps.nix.keys import verify_any
from ncps.nix.narinfo import NarInfo
from ncps.ports import NarInfoEntry, NarRecord
from ncps.ports.catalog import UPLOAD


@frozen
class Trusted:
    """A narinfo for which something vouches.

    :param voucher: for the log.
    :param unproven: the content address that the NAR must have before the voucher counts; None if
        the voucher counts already.
    """

    narinfo: NarInfo
    voucher: str
    unproven: ContentAddress | None = None


class UploadTrust:
    """Decides whether a narinfo is trusted, and signs it."""

    def __init__(self, vetting: NarInfoVerifier, rules: UploadRules) -> None:
        self._vetting = vetting
        self._rules = rules

    def judge(self, narinfo: NarInfo) -> Trusted:
        """Find the voucher of a narinfo. Raises Refused if it has none. May take CPU time."""
        address = address_of(narinfo)
        narinfo = evolve(narinfo, ca=stated_address(narinfo, address, UPLOAD))
        keys = self._rules.keys
        names = {key.name for key in keys}
        theirs = [s for s in narinfo.signatures if s.name in names][:MAX_SIGNATURES]
        key = verify_any(keys, narinfo.fingerprint(), theirs) if theirs else None
        if key is not None:
            return Trusted(narinfo, f"key {key.name}")
        if not self._rules.needs_signature:
            return Trusted(narinfo, "client")
        if address is None:
            raise Refused(
                f"{narinfo.store_path.base} has no good signature by a key for uploads"
                " (cache-trusted-upload-key): sign it first, by `nix store sign`, or give the key"
            )
        if not names_nar(narinfo, address):
            return Trusted(narinfo, "CA", unproven=address)
        if address.hash != narinfo.nar_hash:
            raise Refused(f"NarHash is {narinfo.nar_hash}, and CA says {address.hash}")
        return Trusted(narinfo, "CA")

    def entry(self, narinfo: NarInfo, nar: NarRecord, now: datetime) -> NarInfoEntry:
        """Return the entry of an accepted narinfo, with our signature. May take CPU time."""
        narinfo = evolve(narinfo, url=nar.key.url, file_hash=nar.file_hash, file_size=nar.file_size)
        return self._vetting.signed(
            NarInfoEntry(
                digest=narinfo.store_path.digest,
                narinfo=narinfo,
                upstream="",
                upstream_url="",
                verified_by=UPLOAD,
                fetched_at=now,
            )
        )
