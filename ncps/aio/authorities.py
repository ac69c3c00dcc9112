"""The authorities that a TLS client trusts to sign certificates.

They are those of OpenSSL, so `SSL_CERT_FILE` can name others. If that is not set,
`NIX_SSL_CERT_FILE` can name others, as for Nix. The settings use this module, so it is without
Twisted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

NIX_FILE: Final = "NIX_SSL_CERT_FILE"
OPENSSL_FILE: Final = "SSL_CERT_FILE"


def authorities_file(environ: Mapping[str, str]) -> str:
    """Return the file of authorities to read instead of OpenSSL's own; empty for none."""
    return "" if environ.get(OPENSSL_FILE) else environ.get(NIX_FILE, "")


def system_file(environ: Mapping[str, str]) -> Path | None:
    """Return the file of the trusted authorities, for a library that has its own list.

    None where the system does not have them in a file.
    """
    import ssl  # noqa: PLC0415 - the settings need none of it

    system = ssl.get_default_verify_paths()
    named = environ.get(OPENSSL_FILE) or environ.get(NIX_FILE)
    bundle = f"{system.capath}/ca-certificates.crt" if system.capath else None
    candidates = [named] if named else [system.cafile, bundle]
    return next((Path(path) for path in candidates if path and Path(path).is_file()), None)


def trouble_of_authorities(environ: Mapping[str, str]) -> str:
    """Say what is wrong with the file of authorities in the environment; empty if nothing is.

    If the file is wrong, ncps trusts no authority.
    """
    name = OPENSSL_FILE if environ.get(OPENSSL_FILE) else NIX_FILE
    path = environ.get(name, "")
    try:
        if path and b"-----BEGIN " not in Path(path).read_bytes():
            return f"environment {name}: {path} holds no certificates (PEM)"
    except OSError as error:
        return f"environment {name}: {path} cannot be read: {error.strerror}"
    return ""
