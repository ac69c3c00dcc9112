"""The authorities that a client of TLS trusts to sign certificates.

The system's authorities are those of OpenSSL, so `SSL_CERT_FILE` names others. If it is not set,
`NIX_SSL_CERT_FILE` names them, as for Nix. The settings look at both, without Twisted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

NIX_FILE: Final = "NIX_SSL_CERT_FILE"
OPENSSL_FILE: Final = "SSL_CERT_FILE"


def authorities_file(environ: Mapping[str, str]) -> str:
    """Return the file that is read for authorities instead of OpenSSL's; empty for none."""
    return "" if environ.get(OPENSSL_FILE) else environ.get(NIX_FILE, "")


def system_file(environ: Mapping[str, str]) -> Path | None:
    """Return the file with the authorities that are trusted, for a library that has its own list.

    None where the system has them in another form.
    """
    import ssl  # noqa: PLC0415 - the settings need none of it

    system = ssl.get_default_verify_paths()
    named = environ.get(OPENSSL_FILE) or environ.get(NIX_FILE)
    bundle = f"{system.capath}/ca-certificates.crt" if system.capath else None
    candidates = [named] if named else [system.cafile, bundle]
    return next((Path(path) for path in candidates if path and Path(path).is_file()), None)


def trouble_of_authorities(environ: Mapping[str, str]) -> str:
    """Say what is wrong with the environment's file of authorities; empty if nothing is.

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
