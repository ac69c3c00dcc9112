"""A stock Nix client installs a closure through an ncps whose store is a bucket."""

from __future__ import annotations

from tests.e2e import buckets


class OldNixTests(buckets.Buckets):
    """The Nix on PATH: Debian's nix-bin, 2.8 in bookworm."""

    release_name = "system"


class RecentNixTests(buckets.Buckets):
    """The Nix of a newer Debian, 2.26 in trixie."""

    release_name = "trixie"
