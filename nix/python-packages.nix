# Python packages of ncps in versions that nixpkgs may lack, as an overlay of a set of Python
# packages. If nixpkgs has at least the version `minimum`, which pyproject.toml requires, the overlay
# keeps the package of nixpkgs.
#
# To change a version: `pip download --no-deps NAME==VERSION` (with `--no-binary NAME` for a source),
# and `nix-hash --type sha256 --sri --flat FILE` for the hash.
{
  lib,
  fetchPypi,
  libpq,
  libsodium,
  libyaml,
}:
final: prev:
let
  # Pure Python: the wheel is the package.
  wheel =
    {
      pname,
      version,
      hash,
      ...
    }@described:
    {
      format = "wheel";
      src = fetchPypi {
        inherit pname version hash;
        format = "wheel";
        dist = "py3";
        python = "py3";
      };
    }
    // removeAttrs described [ "hash" ];

  # With parts in C: built from source.
  source =
    {
      pname,
      version,
      hash,
      ...
    }@described:
    {
      pyproject = true;
      src = fetchPypi { inherit pname version hash; };
      # The source pins the build tools to the versions of its authors.
      pypaBuildFlags = [ "--skip-dependency-check" ];
      doCheck = false;
    }
    // removeAttrs described [ "hash" ];

  described = {
    attrs = wheel {
      pname = "attrs";
      version = "26.1.0";
      minimum = "26.1";
      hash = "sha256-xkeqShLfutkzPKTnH+Yt3Db05jstJgo3qLg9LwQ6wwk=";
    };

    backports-zstd = source {
      pname = "backports_zstd";
      version = "1.8.0";
      minimum = "1.8";
      hash = "sha256-na5PTEgXFuPbRz1mdFe09Qj/dFnAkxtWelyWd/s9sxY=";
      build-system = [ final.setuptools ];
    };

    boto3 = wheel {
      pname = "boto3";
      version = "1.44.8";
      minimum = "1.44";
      hash = "sha256-CZyvIVU7u/7xGJBKoC+tuHdqU0cEzwC+3g7Z8ppNqI4=";
      dependencies = [
        final.botocore
        final.jmespath
        final.s3transfer
      ];
    };

    # Each version of boto3 needs the botocore of the same version.
    botocore = wheel {
      pname = "botocore";
      version = "1.44.8";
      minimum = if isMissing "boto3" then "1.44.8" else "1.44";
      hash = "sha256-djQqdsM4cB24DcuK/hyb0HkoPW//u52IFEKrsCohUEM=";
      dependencies = [
        final.jmespath
        final.python-dateutil
        final.urllib3
      ];
    };

    brotli = source {
      pname = "brotli";
      version = "1.2.1";
      minimum = "1.2";
      hash = "sha256-ArL3tag0he/kSKRN33mD3vBcO7Hc+RfU9xVAcCYOE94=";
      build-system = [
        final.pkgconfig
        final.setuptools
      ];
    };

    cronsim = wheel {
      pname = "cronsim";
      version = "2.8";
      minimum = "2.8";
      hash = "sha256-YhFcq6oSGVOsS78uZoCLUinKbkc3KnTnUrQvzfKDJKU=";
    };

    lz4 = source {
      pname = "lz4";
      version = "4.4.5";
      minimum = "4.4.5";
      hash = "sha256-XwueU8HoLojBDXwYAGk2OYATa516gwbE3KT3YNYMOfA=";
      build-system = [
        final.pkgconfig
        final.setuptools
        final.setuptools-scm
      ];
    };

    # These packages come from one release, and each requires exactly that release.
    opentelemetry-api = wheel {
      pname = "opentelemetry_api";
      version = "1.45.2";
      minimum = "1.45";
      hash = "sha256-LL1zc3fnEO50DSYclOk/oPCObQN8GPF1E8wKLZRHmjQ=";
      dependencies = [ final.typing-extensions ];
    };

    opentelemetry-exporter-http-transport = wheel {
      pname = "opentelemetry_exporter_http_transport";
      version = "0.66b2";
      minimum = "0.66";
      hash = "sha256-/V9bSQwJms2hzXuQnV6JgUNr8YzIxgmNMC0RTCcXIOk=";
      dependencies = [
        final.opentelemetry-api
        final.requests
      ];
    };

    opentelemetry-exporter-otlp-common = wheel {
      pname = "opentelemetry_exporter_otlp_common";
      version = "0.66b2";
      minimum = "0.66";
      hash = "sha256-rOhu+3VIn5JfHvgJhWrl8MfbU05K/cYkUwIiIosSNqU=";
      dependencies = [ final.opentelemetry-sdk ];
    };

    opentelemetry-exporter-otlp-proto-common = wheel {
      pname = "opentelemetry_exporter_otlp_proto_common";
      version = "1.45.2";
      minimum = "1.45";
      hash = "sha256-r0g7JCFwKIkvAXCWcxt5SxlreFAl0uaAiHRyD9CwWoA=";
      dependencies = [ final.opentelemetry-proto ];
    };

    opentelemetry-exporter-otlp-proto-grpc = wheel {
      pname = "opentelemetry_exporter_otlp_proto_grpc";
      version = "1.45.2";
      minimum = "1.45";
      hash = "sha256-ikjWCDXpBTaEa9gt5Ie/vYG8y1obPQ+4Lt7qF9sHOVw=";
      dependencies = [
        final.googleapis-common-protos
        final.grpcio
        final.opentelemetry-api
        final.opentelemetry-exporter-otlp-common
        final.opentelemetry-exporter-otlp-proto-common
        final.opentelemetry-proto
        final.opentelemetry-sdk
        final.typing-extensions
      ];
    };

    opentelemetry-exporter-otlp-proto-http = wheel {
      pname = "opentelemetry_exporter_otlp_proto_http";
      version = "1.45.2";
      minimum = "1.45";
      hash = "sha256-bk0CUTiCnQ7leUaTDCzK1kka1NkqlY6cfuppJ4/mDPw=";
      dependencies = [
        final.googleapis-common-protos
        final.opentelemetry-api
        final.opentelemetry-exporter-http-transport
        final.opentelemetry-exporter-otlp-common
        final.opentelemetry-exporter-otlp-proto-common
        final.opentelemetry-proto
        final.opentelemetry-sdk
        final.requests
        final.typing-extensions
      ];
    };

    opentelemetry-proto = wheel {
      pname = "opentelemetry_proto";
      version = "1.45.2";
      minimum = "1.45";
      hash = "sha256-A6fKG0P4n9W5ZdWXWQK7JRXAyG4kKLRWg26aYUnGI1o=";
      dependencies = [ final.protobuf ];
    };

    opentelemetry-sdk = wheel {
      pname = "opentelemetry_sdk";
      version = "1.45.2";
      minimum = "1.45";
      hash = "sha256-/5dOpw7k8dUeLsFS2zfCtibHv4K7P32GEU/YcE5xmcY=";
      dependencies = [
        final.opentelemetry-api
        final.opentelemetry-semantic-conventions
        final.typing-extensions
      ];
    };

    opentelemetry-semantic-conventions = wheel {
      pname = "opentelemetry_semantic_conventions";
      version = "0.66b2";
      minimum = "0.66";
      hash = "sha256-TL5h5fknXVerMXCERueTjvQpHrvmp/ym96Ypxayuh9g=";
      dependencies = [
        final.opentelemetry-api
        final.typing-extensions
      ];
    };

    platformdirs = wheel {
      pname = "platformdirs";
      version = "4.14.8";
      minimum = "4.14";
      hash = "sha256-HjSvWQ3k2XhjG3UesiAvL+5El1N6F8FyCxL89XszE5I=";
    };

    prometheus-client = wheel {
      pname = "prometheus_client";
      version = "0.26.0";
      minimum = "0.26";
      hash = "sha256-+pPQZzeqArrNBXlHaFCLuX0vvuKMs7ygTqrpLwypU9Y=";
    };

    psycopg = wheel {
      pname = "psycopg";
      version = "3.3.9";
      minimum = "3.3";
      hash = "sha256-0tfQShzm2rT1snMWvqO1JYXK+i8tYx5bCd1pgj9cJvY=";
      dependencies = [
        psycopg-c
        final.typing-extensions
      ];
    };

    pyjwt = wheel {
      pname = "pyjwt";
      version = "2.15.1";
      minimum = "2.15";
      hash = "sha256-QtWdYx93aKECimTH/1gam/dRmATa+R/FtsVuMO7F4ZM=";
    };

    pymysql = wheel {
      pname = "pymysql";
      version = "1.2.4";
      minimum = "1.2";
      hash = "sha256-4Wm+2QYWj//QCIkl9Fs98CTCd1xv0SjaDfdz1HxFiEA=";
    };

    pynacl = source {
      pname = "pynacl";
      version = "1.6.2";
      minimum = "1.6";
      hash = "sha256-AYSU1taWrgPH5lbl50zf2OoTJpYsxAG88Bjx7YQ2gRw=";
      build-system = [
        final.cffi
        final.setuptools
      ];
      buildInputs = [ libsodium ];
      propagatedNativeBuildInputs = [ final.cffi ];
      dependencies = [ final.cffi ];
      env.SODIUM_INSTALL = "system";
    };

    pyyaml = source {
      pname = "pyyaml";
      version = "6.0.4";
      minimum = "6.0.3";
      hash = "sha256-4kv3GvikMteAj6v/E0043+FtPLtB8oc7tLHkJCLeCho=";
      build-system = [
        final.cython
        final.setuptools
      ];
      buildInputs = [ libyaml ];
    };

    s3transfer = wheel {
      pname = "s3transfer";
      version = "0.19.3";
      minimum = if isMissing "boto3" then "0.19" else "0.10";
      hash = "sha256-JOt1NYBDBjVeMclSqQAiv1svnXYPmhEGLHSTohfAhVM=";
      dependencies = [ final.botocore ];
    };

    treq = wheel {
      pname = "treq";
      version = "26.7.0";
      minimum = "26.7";
      hash = "sha256-ClasTZcPex4npN9AV9Il79hFJLGEfhI6clxTEDlwL5g=";
      dependencies = [
        final.attrs
        final.hyperlink
        final.incremental
        final.multipart
        final.twisted
        final.typing-extensions
      ]
      ++ final.twisted.optional-dependencies.tls;
    };

    twisted = wheel {
      pname = "twisted";
      version = "26.10.0";
      minimum = "26.10";
      hash = "sha256-NzL0KvIYkloP541maNtVhT9/tTIkWomiZpur59MAD6g=";
      dependencies = [
        final.attrs
        final.automat
        final.constantly
        final.hyperlink
        final.incremental
        final.typing-extensions
        final.zope-interface
      ];
      optional-dependencies.tls = [
        final.idna
        final.pyopenssl
        final.service-identity
      ];
    };

    txredisapi = wheel {
      pname = "txredisapi";
      version = "1.6.0";
      minimum = "1.6";
      hash = "sha256-iQMHKUQDCHWMfqkkWZJdNWctrm/sZtg6Wnxknf5tfVM=";
      dependencies = [ final.twisted ] ++ final.twisted.optional-dependencies.tls;
    };

    zope-interface = source {
      pname = "zope_interface";
      version = "8.7";
      minimum = "8.7";
      hash = "sha256-C0e2Lo0NmbJLzdMvTyEgQl5QGcO+4q1poOHXVzdIepY=";
      build-system = [ final.setuptools ];
    };

    zstandard = source {
      pname = "zstandard";
      version = "0.25.0";
      minimum = "0.25";
      hash = "sha256-dxPhF50WLPXHkG2oduwsy5w6ncvf/vDMf3DDZnogXws=";
      build-system = [
        final.cffi
        final.packaging
        final.setuptools
      ];
    };
  };

  # The part of psycopg that finds libpq; it needs the path of libpq in nixpkgs.
  psycopg-c = final.buildPythonPackage (source {
    pname = "psycopg_c";
    version = "3.3.9";
    hash = "sha256-WR/Ly0DgiSNafwlrnoh+ccyueP0zeroZjZGOM3B8XgE=";
    build-system = [
      final.cython
      final.setuptools
    ];
    nativeBuildInputs = [ libpq.pg_config ];
    buildInputs = [ libpq ];
  });

  isMissing =
    name: !(prev ? ${name} && lib.versionAtLeast prev.${name}.version described.${name}.minimum);
in
lib.mapAttrs (
  name: package:
  if isMissing name then
    final.buildPythonPackage (removeAttrs package [ "minimum" ])
  else
    prev.${name}
) described
