"""The certificate by which a server proves its name: how it is read, and when it must be reread."""

from __future__ import annotations

import re
import ssl
from datetime import datetime
from pathlib import Path
from stat import S_ISREG
from typing import Final

from attrs import frozen
from cryptography import x509

from ncps.errors import Refused

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""The ciphers of TLS 1.2 with forward secrecy; all ciphers of TLS 1.3 have it."""

_BLOCK: Final = re.compile(rb"-----BEGIN [A-Z0-9 ]+-----([^-]+)-----END")

MAX_SIZE: Final = 1024 * 1024
"""Bytes of each file, at most."""


@frozen(kw_only=True)
class CertificateFiles:
    """The paths of a server's certificate.

    :param key: the private key of the certificate.
    :param client_ca: authorities of which one must have signed a client's certificate; None: a
        client needs no certificate.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None


@frozen(kw_only=True)
class Certificate:
    """A certificate, ready for connections.

    :ivar context: for new connections.
    :ivar name: of the owner, for messages.
    :ivar begins: the time from which on it is valid.
    :ivar ends: the time from which on it is not valid any more.
    :ivar authorities: the certificates in `client_ca`; None if a client needs no certificate.
    """

    context: ssl.SSLContext
    name: str
    begins: datetime
    ends: datetime
    authorities: frozenset[bytes] | None

    def lets_in_all_of(self, other: Certificate) -> bool:
        """Return whether this one admits each client that the other one admits."""
        if self.authorities is None:
            return True
        return other.authorities is not None and other.authorities <= self.authorities


Signature = tuple[tuple[int, int, int] | None, ...]


def signature_blocking(files: CertificateFiles) -> Signature:
    """Return a value that changes when one of the files changes; None stands for no file."""
    return tuple(map(_stamp, (files.cert, files.key, files.client_ca)))


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else (found.st_ino, found.st_size, found.st_mtime_ns)


def load_blocking(files: CertificateFiles) -> Certificate:
    """Read the files. Raises Refused if one cannot be used, or if the key is a different one."""
    text = _read("server-tls-cert-file", files.cert)
    _read("server-tls-key-file", files.key)
    try:
        leaf = x509.load_pem_x509_certificates(text)[0]
    except ValueError:
        raise Refused(
            f"server-tls-cert-file: {files.cert} should hold a certificate in PEM"
        ) from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    _load_pair(context, files)
    authorities = None
    if files.client_ca is not None:
        authorities = _load_authorities(context, files.client_ca)
    return Certificate(
        context=context,
        name=leaf.subject.rfc4514_string() or _first_name(leaf),
        begins=leaf.not_valid_before_utc,
        ends=leaf.not_valid_after_utc,
        authorities=authorities,
    )


def check_authorities_blocking(path: Path) -> None:
    """Raise Refused if a file does not hold the authorities of clients."""
    _load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), path)


def _load_pair(context: ssl.SSLContext, files: CertificateFiles) -> None:
    asked: list[bool] = []

    def password() -> str:
        asked.append(True)
        return ""

    try:
        # Without this function OpenSSL would ask for the password at the terminal.
        context.load_cert_chain(files.cert, files.key, password=password)
    except (ssl.SSLError, ValueError) as error:
        if asked:
            raise Refused(
                f"server-tls-key-file: {files.key} is encrypted; it should hold the key without a"
                " password"
            ) from None
        if "MISMATCH" in str(getattr(error, "reason", "")):
            raise Refused(
                f"server-tls-key-file: {files.key} is not the key of the certificate in"
                f" {files.cert}"
            ) from None
        raise Refused(
            f"server-tls-key-file: {files.cert} and {files.key} should hold a certificate and its"
            f" private key in PEM ({_reason(error)})"
        ) from None
    except OSError as error:  # a file was removed after `_read`
        raise Refused(f"server-tls-cert-file: {files.cert}: {error.strerror}") from None


def _load_authorities(context: ssl.SSLContext, path: Path) -> frozenset[bytes]:
    text = _read("server-tls-client-ca-file", path)
    try:
        # Bundles have names of authorities between certificates, in any language.
        context.load_verify_locations(cadata=text.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError):
        raise Refused(
            f"server-tls-client-ca-file: {path} should hold certificates of authorities in PEM"
        ) from None
    context.verify_mode = ssl.CERT_REQUIRED
    return frozenset(b"".join(block.split()) for block in _BLOCK.findall(text))


def _read(setting: str, path: Path) -> bytes:
    try:
        found = path.stat()
        if not S_ISREG(found.st_mode):
            raise Refused(f"{setting}: {path} is not a file")
        if found.st_size > MAX_SIZE:
            raise Refused(f"{setting}: {path} is larger than {MAX_SIZE} bytes")
        return path.read_bytes()
    except OSError as error:
        raise Refused(f"{setting}: {path} cannot be read: {error.strerror}") from None


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or "not PEM").lower().replace("_", " ")


def _first_name(leaf: x509.Certificate) -> str:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return "a certificate without a name"
    return ", ".join(str(name.value) for name in list(names)[:1])


def trouble_of(certificate: Certificate, at: datetime, *, soon_s: float = 0.0) -> str:
    """Say that a certificate is not valid at a time, or expires soon; empty if all is well.

    :param soon_s: seconds before the end of which the text warns.
    """
    if at < certificate.begins:
        return f"the certificate of {certificate.name} is not valid before {certificate.begins}"
    if at >= certificate.ends:
        return f"the certificate of {certificate.name} has expired at {certificate.ends}"
    if (certificate.ends - at).total_seconds() < soon_s:
        return f"the certificate of {certificate.name} expires at {certificate.ends}"
    return ""
