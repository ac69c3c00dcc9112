# ncps with the drivers of all databases and OpenTelemetry: `pkgs.callPackage ./nix/package.nix { }`.
#
# `bin/ncps` is the program. The `services.ncps` of nixpkgs also calls `bin/dbmate-ncps`.
{
  lib,
  stdenv,
  fetchPypi,
  libpq,
  libsodium,
  libyaml,
  python3,
  withOpenTelemetry ? true,
}:
let
  python = python3.override {
    self = python;
    packageOverrides = import ./python-packages.nix {
      inherit
        fetchPypi
        lib
        libpq
        libsodium
        libyaml
        ;
    };
  };
  packages = python.pkgs;
  project = lib.importTOML ../pyproject.toml;
  version = lib.head (
    builtins.match ".*__version__ = \"([^\"]+)\".*" (lib.readFile ../ncps/__init__.py)
  );
in
packages.buildPythonApplication {
  pname = "ncps";
  inherit version;
  pyproject = true;

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../LICENSE
      ../README.md
      ../ncps
      ../pyproject.toml
      ../schema
      ../twisted
    ];
  };

  build-system = [ packages.hatchling ];

  dependencies = [
    packages.attrs
    packages.boto3
    packages.brotli
    packages.cronsim
    packages.cryptography
    packages.lz4
    packages.platformdirs
    packages.prometheus-client
    packages.psycopg
    packages.pyjwt
    packages.pymysql
    packages.pynacl
    packages.pyyaml
    packages.treq
    packages.twisted
    packages.txredisapi
    packages.zope-interface
    packages.zstandard
  ]
  ++ packages.twisted.optional-dependencies.tls
  ++ lib.optionals withOpenTelemetry [
    packages.opentelemetry-exporter-otlp-proto-grpc
    packages.opentelemetry-exporter-otlp-proto-http
    packages.opentelemetry-sdk
  ]
  ++ lib.optional (lib.versionOlder python.pythonVersion "3.14") packages.backports-zstd;

  # The tests need servers, which no build has. So the check only tries what a start needs.
  doCheck = false;
  pythonImportsCheck = [
    "ncps.assembly.bucket"
    "ncps.assembly.database_servers"
    "ncps.assembly.lease_backends"
    "ncps.assembly.service"
    "ncps.process.crew"
    "psycopg"
    "pymysql"
  ];
  postFixup = lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
    HOME=$(mktemp -d) $out/bin/ncps settings >/dev/null
    $out/bin/dbmate-ncps --version
  '';

  meta = {
    inherit (project.project) description;
    license = lib.licenses.mit;
    mainProgram = "ncps";
    platforms = lib.platforms.linux;
  };
}
