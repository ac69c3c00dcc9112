# Says which Python packages the package of ncps takes, without nixpkgs: of these packages, nixpkgs
# has `version`.
{ version }:
let
  lib = {
    inherit (builtins)
      filter
      head
      mapAttrs
      readFile
      ;
    versionAtLeast = one: other: builtins.compareVersions one other >= 0;
    versionOlder = one: other: builtins.compareVersions one other < 0;
    optional = condition: item: if condition then [ item ] else [ ];
    optionals = condition: items: if condition then items else [ ];
    optionalString = condition: text: if condition then text else "";
    importTOML = file: builtins.fromTOML (builtins.readFile file);
    fileset = {
      toSource = source: source.fileset;
      unions = files: files;
    };
    licenses.mit = "MIT";
    platforms.linux = [ ];
  };

  # Packages that nixpkgs has at any version.
  others = [
    "automat"
    "cffi"
    "constantly"
    "cryptography"
    "cython"
    "googleapis-common-protos"
    "grpcio"
    "hatchling"
    "hyperlink"
    "idna"
    "incremental"
    "jmespath"
    "multipart"
    "packaging"
    "pkgconfig"
    "protobuf"
    "pyopenssl"
    "python-dateutil"
    "requests"
    "service-identity"
    "setuptools"
    "setuptools-scm"
    "typing-extensions"
    "urllib3"
  ];
  ours = builtins.attrNames (overlay { } { });
  overlay = import ../../nix/python-packages.nix {
    inherit lib;
    fetchPypi = source: source;
    libpq.pg_config = "libpq";
    libsodium = "libsodium";
    libyaml = "libyaml";
  };
  stub = name: {
    inherit name;
    value = {
      inherit version;
      pname = name;
      optional-dependencies.tls = [ ];
    };
  };
  python3 = {
    pythonVersion = "3.13";
    interpreter = "python3";
    override =
      { packageOverrides, ... }:
      python3
      // {
        pkgs =
          let
            prev = builtins.listToAttrs (map stub (others ++ ours));
            final =
              prev
              // packageOverrides final prev
              // {
                buildPythonPackage = package: package;
                buildPythonApplication = package: package;
              };
          in
          final;
      };
  };
  package = import ../../nix/package.nix {
    inherit lib python3;
    fetchPypi = source: source;
    libpq.pg_config = "libpq";
    libsodium = "libsodium";
    libyaml = "libyaml";
    stdenv = {
      buildPlatform.canExecute = _: true;
      hostPlatform = { };
    };
  };
  told = found: {
    inherit (found) pname version;
    source = found.src or null;
    needs = map (each: each.pname) (found.dependencies or [ ]);
  };
in
told package
// {
  files = map baseNameOf package.src;
  packages = map told package.dependencies;
}
