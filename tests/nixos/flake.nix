# Says what the flake gives, without nixpkgs, and which programs its tests run.
let
  nixpkgs = {
    lib.genAttrs =
      names: make:
      builtins.listToAttrs (
        map (name: {
          inherit name;
          value = make name;
        }) names
      );
    legacyPackages = builtins.listToAttrs (
      map
        (name: {
          inherit name;
          value = pkgs // {
            stdenv.hostPlatform.system = name;
          };
        })
        [
          "aarch64-linux"
          "x86_64-linux"
        ]
    );
  };
  pkgs = {
    callPackage = _: _: "package";
    lib.mkForce = value: value;
    testers.runNixOSTest = test: test;
    emptyFile = "/nix/store/00000000000000000000000000000000-empty-file";
    mkShell = shell: shell;
    mariadb = "mariadb";
    nginx = "nginx";
    nix = "nix";
    nixfmt = "nixfmt";
    postgresql = "postgresql";
    redis = "redis";
    wrk = "wrk";
  };
  outputs = (import ../../flake.nix).outputs {
    inherit nixpkgs;
    self = outputs;
  };
  checks = outputs.checks.x86_64-linux;
in
{
  outputs = builtins.mapAttrs (_: builtins.attrNames) outputs;
  checks = builtins.attrNames checks;
  scripts = builtins.mapAttrs (_: test: test.testScript) (builtins.removeAttrs checks [ "package" ]);
  machines = builtins.mapAttrs (_: test: builtins.attrNames test.nodes) (
    builtins.removeAttrs checks [ "package" ]
  );
  package = outputs.packages.x86_64-linux.default;
  shell = outputs.devShells.x86_64-linux.default;
}
