"""Stock Nix clients read logs and the files of store paths through ncps."""

from __future__ import annotations

from tests.e2e import extras


class OldNixTests(extras.Extras):
    """The Nix on PATH: Debian's nix-bin, 2.8 in bookworm."""

    release_name = "system"


class RecentNixTests(extras.Extras):
    """The Nix of a newer Debian, 2.26 in trixie."""

    release_name = "trixie"
