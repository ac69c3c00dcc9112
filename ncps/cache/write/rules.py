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
        address from which its path follows; if not, each client that may write is trusted.
    :param needs_references: whether the references of a narinfo must be here or at an upstream.
    :param largest_store: bytes that the store may hold; 0: any number.
    :param keeps_only_copies: whether uploads that no upstream has are never evicted.
    :param is_eager: whether NARs in xz and bzip2 are inspected while they arrive.
    :param max_ratio: bytes of the NAR for a byte of its file, at most; a file with more is
        inspected when its narinfo says the size of the NAR.
    :param reached: called with the name of the setting of each limit that an upload reaches.
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
        """Use these settings from now on; a NAR that is arriving keeps its limit."""
        upload = settings.upload
        self.max_size = upload.max_size_bytes
        self.grace_s = upload.grace_s
        self.needs_references = upload.require_references
        self.needs_signature = settings.require_trusted_signature
        self.keys = tuple(PublicKey.parse(text) for text in settings.trusted_upload_keys)
