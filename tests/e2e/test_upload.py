"""A stock Nix client uploads by `nix copy`, and another one installs the uploads."""

from __future__ import annotations

from tests.e2e import uploading


class OldNixTests(uploading.Uploading):
    """The Nix on PATH: Debian's nix-bin, 2.8 in bookworm."""

    release_name = "system"


class RecentNixTests(uploading.Uploading):
    """The Nix of a newer Debian, 2.26 in trixie."""

    release_name = "trixie"


class OldNixTroubleTests(uploading.UploadsBesideTrouble):
    """The same Nix uploads while the upstream has a fault."""

    release_name = "system"


class RecentNixTroubleTests(uploading.UploadsBesideTrouble):
    """The same newer Nix uploads while the upstream has a fault."""

    release_name = "trixie"


class NewestNixTests(uploading.UploadEncodings):
    """The Nix of Debian's sid, 2.34, sends narinfos with a Content-Encoding."""

    release_name = "sid"
