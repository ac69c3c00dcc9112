# Evaluates a module of NixOS with the lib of nixpkgs alone, once for each set of options.
#
#   lib      a folder with the lib of nixpkgs
#   module   the file of the module, which has options `services.ncps`
#   sets     the file of the sets: values of `services.ncps` by name
#
# Packages and files are texts between marks, so that nothing is built or written: a package is
# `@package@`, and a file is its own content between `@<` and `>@`, with the commands that check it
# behind `@check@`.
{
  lib,
  module,
  sets,
}:
let
  nixpkgs = import lib;
  inherit (nixpkgs) mkOption types;

  text = _: content: { outPath = "@<${content}>@"; };
  pkgs = {
    writeText = text;
    writeShellScript = text;
    writeTextFile = file: text file.name "${file.text}@check@${file.checkPhase}";
    stdenv = {
      buildPlatform.canExecute = _: true;
      hostPlatform = { };
    };
    ncps = package;
    coreutils = "@coreutils@";
    callPackage = _: _: package;
  };
  package = {
    type = "derivation";
    name = "ncps";
    outPath = "@package@";
    meta.mainProgram = "ncps";
  };

  # As in NixOS: several definitions of one directive of a unit become a list.
  directive = nixpkgs.mkOptionType {
    name = "directive";
    merge =
      loc: definitions:
      if nixpkgs.any (definition: nixpkgs.isList definition.value) definitions then
        nixpkgs.concatMap (definition: nixpkgs.toList definition.value) definitions
      else
        nixpkgs.mergeEqualOption loc definitions;
  };
  option = type: default: mkOption { inherit type default; };
  section = option (types.attrsOf directive) { };
  strings = option (types.listOf types.str) [ ];

  # The options of NixOS that such a module defines.
  nixos = {
    options = {
      assertions = option (types.listOf types.unspecified) [ ];
      warnings = strings;
      meta = option types.unspecified { };
      users = option types.unspecified { };
      systemd.tmpfiles.settings = option (types.attrsOf types.unspecified) { };
      systemd.services = option (types.attrsOf (
        types.submodule {
          options = {
            description = option types.str "";
            documentation = strings;
            after = strings;
            wants = strings;
            wantedBy = strings;
            preStart = option types.lines "";
            environment = option (types.attrsOf types.str) { };
            restartTriggers = option (types.listOf types.unspecified) [ ];
            serviceConfig = section;
            unitConfig = section;
          };
        }
      )) { };
    };
  };

  evaluate =
    options:
    let
      found = nixpkgs.evalModules {
        specialArgs = {
          inherit pkgs;
          modulesPath = "/modules";
        };
        modules = [
          nixos
          module
          { services.ncps = options; }
        ];
      };
      inherit (found) config;
      failed = map (assertion: assertion.message) (
        nixpkgs.filter (assertion: !assertion.assertion) config.assertions
      );
    in
    {
      inherit options failed;
    }
    // nixpkgs.optionalAttrs (failed == [ ]) {
      inherit (config) warnings;
      service = config.systemd.services.ncps or null;
      tmpfiles = config.systemd.tmpfiles.settings.ncps or { };
      users = config.users;
    };
in
builtins.mapAttrs (_: options: evaluate options) (import sets)
