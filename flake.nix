{
  description = "A pull-through binary cache for Nix";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "aarch64-linux"
        "x86_64-linux"
      ];
      eachSystem = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
    in
    {
      packages = eachSystem (pkgs: rec {
        ncps = pkgs.callPackage ./nix/package.nix { };
        default = ncps;
      });

      # `pkgs.ncps` is this program, for the module of nixpkgs, too.
      overlays.default = final: _: { ncps = final.callPackage ./nix/package.nix { }; };

      nixosModules = rec {
        ncps = ./nix/module.nix;
        default = ncps;
      };

      checks = eachSystem (
        pkgs:
        {
          package = self.packages.${pkgs.stdenv.hostPlatform.system}.ncps;
        }
        // import ./nix/test.nix { inherit (pkgs) emptyFile lib testers; }
      );

      devShells = eachSystem (pkgs: {
        default = pkgs.mkShell {
          inputsFrom = [ self.packages.${pkgs.stdenv.hostPlatform.system}.ncps ];
          # `python3 -m venv .venv && .venv/bin/pip install -e '.[dev]'` brings the linters.
          packages = [
            pkgs.mariadb
            pkgs.nginx
            pkgs.nix
            pkgs.postgresql
            pkgs.redis
            pkgs.wrk
          ];
        };
      });

      formatter = eachSystem (pkgs: pkgs.nixfmt);
    };
}
