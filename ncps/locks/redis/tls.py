"""TLS to Redis; the server's certificate is always verified."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from OpenSSL import SSL
from twisted.internet.ssl import Certificate, PrivateCertificate, trustRootFromCertificates

from ncps.aio.tls import verified
from ncps.errors import Refused
from ncps.locks.redis.connection import TLS

_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"


def verified_tls(
    ca_file: Path | None = None, cert_file: Path | None = None, key_file: Path | None = None
) -> TLS:
    """Read the files. Raises Refused if one of them cannot be used.

    :param ca_file: certificates to trust, PEM; None for those of the system.
    :param cert_file: ncps's own certificate, PEM, for servers that ask for one; with `key_file`.
    """
    trust = None if ca_file is None else trustRootFromCertificates(_roots(ca_file))
    own = _own(cert_file, key_file) if cert_file is not None and key_file is not None else None
    return partial(verified, trust=trust, own=own)


def _roots(path: Path) -> list[Certificate]:
    data = _read("cache-redis-tls-ca-file", path)
    blocks = [_BEGIN + block.partition(_END)[0] + _END + b"\n" for block in data.split(_BEGIN)[1:]]
    try:
        roots = [Certificate.loadPEM(block) for block in blocks]
    except SSL.Error:
        roots = []
    if not roots:
        raise Refused(f"cache-redis-tls-ca-file: {path} should hold certificates in PEM")
    return roots


def _own(cert_file: Path, key_file: Path) -> PrivateCertificate:
    pem = _read("cache-redis-tls-key-file", key_file)
    pem += b"\n" + _read("cache-redis-tls-cert-file", cert_file)
    try:
        loaded: PrivateCertificate = PrivateCertificate.loadPEM(pem)
    except (SSL.Error, ValueError):
        raise Refused(
            f"cache-redis-tls-cert-file: {cert_file} and {key_file} should hold a certificate and"
            " its key in PEM"
        ) from None
    return loaded


def _read(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Refused(f"{setting}: {path} cannot be read: {error.strerror}") from error
