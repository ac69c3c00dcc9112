"""The decisions of an operator about uploads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define

from ncps.codec.ratio import USUAL
from ncps.nix.keys import PublicKey
from ncps.settings.schema.cache import CacheSettings


@define(kw_only=True)
class UploadRules:
    """The rules for uploads of clients, and their limits.

    :param max_size: bytes of one file; 0: any number.
    :param grace_s: seconds for which a NAR stays whose narinfo does not come.
    :param needs_signature: whether a narinfo needs a signature by one of `keys`, or a content
        address from which its path follows; else the word of a client that may write is enough.
    :param needs_references: whether the references of a narinfo must be here or at an upstream.
    :param largest_store: bytes that the store may hold; 0: any number.
    :param keeps_only_copies: whether uploads that no upstream has are never evicted.
    :param is_eager: whether NARs in xz and bzip2 are looked into while they arrive.
    :param max_ratio: bytes of NAR for a byte of its file; a file that becomes more is looked into
        when its narinfo says how much that is.
    :param reached: told of each limit that was reached, by the name of its setting.
    """

    max_size: int = 0
    grace_s: float = 0.0
    needs_signature: bool = False
    needs_references: bool = False
    keys: Sequence[PublicKey] = ()
    largest_store: int = 0
    keeps_only_copies: bool = True
    is_eager: bool = True
    max_ratio: int = USUAL
    reached: Callable[[str], object] = len

    def take(self, settings: CacheSettings) -> None:
        """Go on with these settings; a NAR that arrives keeps the limit that it began with."""
        upload = settings.upload
        self.max_size = upload.max_size_bytes
        self.grace_s = upload.grace_s
        self.needs_references = upload.require_references
        self.needs_signature = settings.require_trusted_signature
        self.keys = tuple(PublicKey.parse(text) for text in settings.trusted_upload_keys)
