"""Evaluates a module again and keeps the result; see the package."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.nixos.evaluating import HERE, MODULE, evaluate, fingerprint, keep, unit_of


def main() -> int:
    """Keep the result of the named module."""
    match sys.argv[1:]:
        case ["ours"]:
            keep("ours", of=fingerprint(), evaluated=evaluate(MODULE, HERE / "sets.nix"))
        case ["nixpkgs", file, version]:
            found = evaluate(Path(file).absolute(), HERE / "nixpkgs_sets.nix")
            keep("nixpkgs", of=version, units={name: unit_of(each) for name, each in found.items()})
        case _:
            print("usage: python -m tests.nixos ours | nixpkgs FILE VERSION", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
