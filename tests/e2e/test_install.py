"""A stock Nix client installs a closure through ncps, also with faults on the way."""

from __future__ import annotations

from tests.e2e import installs


class OldNixTests(installs.Installs):
    """The Nix on PATH: Debian's nix-bin, 2.8 in bookworm."""

    release_name = "system"


class RecentNixTests(installs.Installs):
    """The Nix of a newer Debian, 2.26 in trixie."""

    release_name = "trixie"
