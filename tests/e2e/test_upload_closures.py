"""A stock Nix client uploads closures to ncps, also into a bucket, and others install them."""

from __future__ import annotations

from tests.e2e import upload_closures


class OldNixTests(upload_closures.UploadClosures):
    """The Nix on PATH: Debian's nix-bin, 2.8 in bookworm."""

    release_name = "system"


class RecentNixTests(upload_closures.UploadClosures):
    """The Nix of a newer Debian, 2.26 in trixie."""

    release_name = "trixie"
