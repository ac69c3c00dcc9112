"""A stock Nix client installs a closure whose NARs ncps has recompressed."""

from __future__ import annotations

from tests.e2e import recompressing


class OldNixTests(recompressing.Recompressions):
    """The Nix on PATH: Debian's nix-bin, 2.8 in bookworm."""

    release_name = "system"


class RecentNixTests(recompressing.Recompressions):
    """The Nix of a newer Debian, 2.26 in trixie."""

    release_name = "trixie"
