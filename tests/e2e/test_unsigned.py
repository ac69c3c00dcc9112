"""A stock Nix client installs unsigned paths through ncps, as it would without ncps."""

from __future__ import annotations

from tests.e2e import unsigned


class OldNixTests(unsigned.Unsigned):
    """The Nix on PATH: Debian's nix-bin, 2.8 in bookworm."""

    release_name = "system"


class RecentNixTests(unsigned.Unsigned):
    """The Nix of a newer Debian, 2.26 in trixie."""

    release_name = "trixie"
