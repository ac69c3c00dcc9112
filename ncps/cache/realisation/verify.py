"""RealisationVerifier: decides which realisations ncps believes, and signs them.

No computation can prove a realisation: ncps believes it because a key has signed it, or because a
client with the right to upload has sent it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from attrs import evolve

from ncps.cache.narinfo.verify import MAX_SIGNATURES, NarInfoVerifier, TrustedKeys
from ncps.errors import Refused, Unusable
from ncps.nix.keys import PublicKey, SecretKey, Signature, verify_any
from ncps.nix.realisation import Realisation
from ncps.ports import RealisationEntry
from ncps.ports.realisations import UPLOAD

NOBODY: Final = 0
BY_RIGHT: Final = 1
BY_KEY: Final = 2
"""The vouchers of a realisation, in order: nothing, the right to upload, a key."""


class RealisationVerifier:
    """Judges and signs realisations.

    :param keys: the keys that vouch for narinfos, and our own signing keys.
    :param uploaders: keys that vouch for uploads, too.
    :param requires_key: whether an upload is refused if no such key has signed it.
    """

    def __init__(
        self,
        keys: NarInfoVerifier,
        uploaders: Iterable[PublicKey],
        *,
        requires_key: bool,
    ) -> None:
        self._keys = keys
        self.take(uploaders, requires_key=requires_key)

    def take(self, uploaders: Iterable[PublicKey], *, requires_key: bool) -> None:
        """Judge uploads by other keys from now on."""
        self._uploaders = uploaders if isinstance(uploaders, TrustedKeys) else tuple(uploaders)
        self._requires_key = requires_key

    def vet(self, realisation: Realisation, *, upstream: str, now: datetime) -> RealisationEntry:
        """Judge an upstream's answer. Raises Unusable if no key vouches for it.

        If no key is configured, each answer is accepted as it is.
        """
        found = self._vouch(realisation, self._keys.trusted)
        if found is None and self._keys.trusted:
            raise Unusable(
                "the realisation has no good signature by a configured key"
                f" (signed by {_names(realisation)})"
            )
        stated, voucher = found or (realisation, "")
        return self.signed(
            RealisationEntry(
                realisation=_bounded(stated, self._known_names()),
                upstream=upstream,
                verified_by=voucher,
                fetched_at=now,
                last_used_at=now,
            )
        )

    def accept(self, realisation: Realisation, now: datetime) -> RealisationEntry:
        """Judge the upload of a client that may upload; raises Refused if it lacks a signature."""
        keys = tuple(self._uploaders) if self._requires_key else self._upload_keys()
        found = self._vouch(realisation, keys)
        if found is None and self._requires_key:
            raise Refused(
                "the realisation needs a signature by a key of --cache-trusted-upload-key"
                f" (signed by {_names(realisation)})"
            )
        stated, voucher = found or (realisation, UPLOAD)
        return self.signed(
            RealisationEntry(
                realisation=_bounded(stated, self._known_names()),
                is_uploaded=True,
                verified_by=voucher,
                fetched_at=now,
                last_used_at=now,
            )
        )

    def restore(self, realisation: Realisation, now: datetime) -> RealisationEntry:
        """Judge the copy of an upload. Raises Unusable if neither we nor a known key signed it.

        A cache that signs nothing accepts it as it is: its clients check the other signatures.
        """
        found = self._vouch(realisation, self._upload_keys())
        if found is None and self._keys.own is not None:
            found = self._vouch(realisation, self._own_keys())
            if found is None:
                raise Unusable(f"no known key has signed it (signed by {_names(realisation)})")
            found = found[0], UPLOAD
        stated, voucher = found or (realisation, UPLOAD)
        entry = RealisationEntry(
            realisation=stated,
            is_uploaded=True,
            verified_by=voucher,
            fetched_at=now,
            last_used_at=now,
        )
        return self.signed(entry)

    def vouched(self, entry: RealisationEntry) -> RealisationEntry | None:
        """Return a recorded realisation as this process may serve it; None if it does not trust it.

        Other processes that share the database may trust other keys, and the record may be older
        than the present settings.
        """
        if self._keys.trusted and entry.verified_by != UPLOAD:
            keys = self._upload_keys() if entry.is_uploaded else tuple(self._keys.trusted)
            if all(entry.verified_by != str(key) for key in keys):
                found = self._vouch(entry.realisation, keys)
                if found is not None:
                    entry = evolve(entry, realisation=found[0], verified_by=found[1], signed_by="")
                elif entry.is_uploaded and not self._requires_key:
                    entry = evolve(entry, verified_by=UPLOAD)
                else:
                    return None
        return self.signed(entry)

    def rank(self, entry: RealisationEntry) -> int:
        """Rank a realisation by its voucher; of two different ones, the higher rank wins."""
        if not entry.verified_by:
            return NOBODY
        return BY_RIGHT if entry.verified_by == UPLOAD else BY_KEY

    def signed(self, entry: RealisationEntry) -> RealisationEntry:
        """Return the realisation signed with our present key, if anything vouches for it."""
        own = self._keys.own if entry.verified_by else None
        signed_by = "" if own is None else str(own.public)
        if entry.signed_by == signed_by:
            return entry
        stated = entry.realisation
        kept = self._keys.others(stated.signatures, entry.signed_by.partition(":")[0])
        if own is not None:
            kept += self._own_signatures(own, stated)
        return evolve(entry, realisation=evolve(stated, signatures=kept), signed_by=signed_by)

    def merged(self, new: RealisationEntry, old: RealisationEntry) -> RealisationEntry:
        """Merge two realisations with the same path.

        The dependencies are those of the one with the stronger voucher.
        """
        is_new = self.rank(new) > self.rank(old)
        if self.rank(new) == self.rank(old) and not old.realisation.dependencies:
            is_new = bool(new.realisation.dependencies)
        base = new if is_new else old
        names = [entry.signed_by.partition(":")[0] for entry in (new, old)]
        there = (*old.realisation.signatures, *new.realisation.signatures)
        theirs = self._keys.others(there, *names)
        stated = _bounded(evolve(base.realisation, signatures=theirs), self._known_names())
        own = self._keys.own if base.verified_by else None
        if own is not None:
            mine = self._own_signatures(own, evolve(stated, signatures=there))
            stated = evolve(stated, signatures=(*stated.signatures, *mine))
        return evolve(
            base,
            realisation=stated,
            is_uploaded=new.is_uploaded or old.is_uploaded,
            signed_by="" if own is None else str(own.public),
            last_used_at=old.last_used_at,
        )

    def _upload_keys(self) -> tuple[PublicKey, ...]:
        """Return the keys that vouch for uploads.

        Our key is not among them, because it also signs uploads without any other signature.
        """
        return (*self._keys.trusted, *self._uploaders)

    def _own_keys(self) -> tuple[PublicKey, ...]:
        own = () if self._keys.own is None else (self._keys.own.public,)
        return (*own, *(each.key.public for each in self._keys.former))

    def _known_names(self) -> frozenset[str]:
        return frozenset(key.name for key in (*self._upload_keys(), *self._own_keys()))

    def _vouch(
        self, realisation: Realisation, keys: Iterable[PublicKey]
    ) -> tuple[Realisation, str] | None:
        """Return the signed part of a realisation, and its key; None if no key has signed it."""
        keys = tuple(keys)
        known = {key.name for key in keys}
        theirs = [s for s in realisation.signatures if s.name in known][:MAX_SIGNATURES]
        for number, message in enumerate(realisation.fingerprints if theirs else ()):
            key = verify_any(keys, message, theirs)
            if key is not None:
                # The second text does not cover the dependencies.
                return realisation.without_dependencies() if number else realisation, str(key)
        for message in realisation.texts_of_go if theirs else ():
            key = verify_any(keys, message, theirs)
            if key is not None:
                return realisation, str(key)
        return None

    def _own_signatures(self, own: SecretKey, stated: Realisation) -> tuple[Signature, ...]:
        """Sign all texts that clients may check, with our key and the former keys that count."""
        now, messages = self._keys.now(), stated.fingerprints
        made = [own.sign(message) for message in messages]
        for each in self._keys.former:
            if each.public == str(own.public):
                continue
            for message in messages:
                there = any(each.key.public.verify(message, s) for s in stated.signatures)
                if there or now < each.until:
                    made.append(each.key.sign(message))
        return tuple(made)


def _bounded(realisation: Realisation, known: frozenset[str]) -> Realisation:
    """Return a realisation with `MAX_SIGNATURES` signatures at most, the known ones first."""
    best = sorted(realisation.signatures, key=lambda s: s.name not in known)[:MAX_SIGNATURES]
    return evolve(realisation, signatures=best)


def _names(realisation: Realisation) -> str:
    return ", ".join(sorted({s.name for s in realisation.signatures}))[:200] or "nobody"
