"""A stock Nix client fetches outputs of content-addressed derivations through ncps."""

from __future__ import annotations

from tests.e2e import realisations


class OldNixTests(realisations.Uploaded):
    """The Nix on PATH: Debian's nix-bin, 2.8 in bookworm."""

    release_name = "system"


class RecentNixTests(realisations.Uploaded):
    """The Nix of a newer Debian, 2.26 in trixie."""

    release_name = "trixie"
    build_options = ("--option", "build-hook", "")
    """This Nix uses its own loader, so its build hook would not find the program."""


class NewestNixTests(realisations.Uploaded):
    """The Nix of Debian's unstable suite, 2.34, whose signatures leave dependencies out."""

    release_name = "sid"
    build_options = ("--option", "build-hook", "")
    """As above."""
