"""A stock Nix client whose only substituter is ncps builds while no upstream can be reached."""

from __future__ import annotations

from tests.e2e import offline


class OldNixTests(offline.Offline):
    """The Nix on PATH: Debian's nix-bin, 2.8 in bookworm."""

    release_name = "system"


class RecentNixTests(offline.Offline):
    """The Nix of a newer Debian, 2.26 in trixie."""

    release_name = "trixie"
    build_options = ("--option", "build-hook", "")
    """This Nix uses its own loader, so its build hook would not find the program."""
