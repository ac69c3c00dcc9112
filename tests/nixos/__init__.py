"""Evaluated modules of NixOS; results are kept for machines without nixpkgs.

Nothing of nixpkgs is in this repository. Where `NCPS_NIXPKGS_LIB` names a folder with its lib, such
as `nixpkgs/lib`, tests evaluate our module anew; elsewhere they take the result that is kept in
`tests/fixtures/nixos/ours.json`, which says of which text of the module it is.

    NCPS_NIXPKGS_LIB=… python -m tests.nixos ours
    NCPS_NIXPKGS_LIB=… python -m tests.nixos nixpkgs FILE VERSION

make the results again, the second one from the module of nixpkgs,
`nixos/modules/services/networking/ncps.nix`. Both need `nix-instantiate`.
"""
