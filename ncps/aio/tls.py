"""TLS to servers that prove their name: the one place that makes TLS clients on Twisted.

Twisted's own `optionsForClientTLS` refuses a certificate for another host. But it accepts every
certificate whose names it cannot read: one without subjectAltName, or one with an IP address or a
wildcard in a wrong place. Its callback handles one of the errors of that check. It logs the others
and keeps OpenSSL's verdict, which does not know the host. Here a name that cannot be read counts as
missing, and a server is accepted only if a name in its certificate is that of the host.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from cryptography.x509 import DNSName, ExtensionNotFound, IPAddress, SubjectAlternativeName
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import (
    DNS_ID,
    CertificatePattern,
    DNSPattern,
    IPAddress_ID,
    IPAddressPattern,
    verify_service_identity,
)
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    PrivateCertificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.python.failure import Failure
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from ncps.aio.authorities import authorities_file
from ncps.aio.reasons import in_words

_UNTRUSTED: Final[Mapping[int, str]] = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is signed by itself",
    19: "no trusted authority signed it",
    20: "no trusted authority signed it",
    21: "no trusted authority signed it",
    23: "it is revoked",
}
"""The meaning of OpenSSL's numbers (X509_verify_cert_error_string) that occur in practice."""


def trouble_with_callbacks() -> str:
    """Say why this process can check no certificate; empty if it can.

    The library needs memory that it may write and execute for each callback of OpenSSL, and
    `MemoryDenyWriteExecute=` of systemd forbids such memory.
    """
    try:
        SSL.Context(SSL.TLS_METHOD).set_info_callback(lambda *_: None)
    except MemoryError:
        return (
            "this process may not have memory that it may write and execute, so it can check no"
            " certificate and ask no server by https: remove MemoryDenyWriteExecute= from its unit"
        )
    return ""


class WrongCertificate(Exception):
    """The server has no certificate of a trusted authority for this host.

    The text says what is wrong and names the host.
    """


def verified(
    host: str,
    *,
    trust: Any = None,
    own: PrivateCertificate | None = None,
) -> IOpenSSLClientConnectionCreator:
    """Return the options of a connection that verify the server's name.

    A connection to another server ends with `WrongCertificate` before anything is sent. Raises
    ValueError if `host` is not a host name or an IP address.

    :param host: name or IP address.
    :param trust: as `trustRootFromCertificates` makes it; None trusts the system's authorities.
    :param own: a certificate of our own, for servers that ask for one.
    """
    path = "" if trust is not None else authorities_file(os.environ)
    trust = trustRootFromCertificates([]) if path else trust
    stock = optionsForClientTLS(host, trustRoot=trust, clientCertificate=own)
    return _Verified(host, stock, path)


@implementer(IPolicyForHTTPS)
class VerifiedHTTPS:
    """A policy that verifies the servers of HTTPS; see `verified`.

    :param trust: as `trustRootFromCertificates` makes it; None trusts the system's authorities.
    """

    def __init__(self, trust: Any = None) -> None:
        self._trust = trust

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        """See `IPolicyForHTTPS`."""
        del port
        return verified(hostname.decode("ascii"), trust=self._trust)


@implementer(IOpenSSLClientConnectionCreator)
class _Verified:
    """A creator of connections that replaces the callback of Twisted's own creator.

    :param authorities: file of further authorities to trust; empty for none.
    """

    def __init__(self, host: str, stock: IOpenSSLClientConnectionCreator, authorities: str) -> None:
        self._host = host
        self._authorities = authorities
        self._stock = stock
        is_address = isIPAddress(host) or isIPv6Address(host)
        self._wanted = IPAddress_ID(host) if is_address else DNS_ID(host)

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """See `IOpenSSLClientConnectionCreator`."""
        connection: SSL.Connection = self._stock.clientConnectionForTLS(tlsProtocol)
        if self._authorities:
            store = connection.get_context().get_cert_store()
            assert store is not None
            with suppress(crypto.Error):  # then no authority is trusted; a warning was logged
                store.load_locations(self._authorities)
        mode = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        connection.set_verify(mode, self._check(tlsProtocol))
        return connection

    def _check(self, protocol: Any) -> Callable[[Any, crypto.X509, int, int, int], bool]:
        """Make the callback of one handshake. It must not raise: OpenSSL would not learn of it."""
        waiting = [protocol]  # emptied afterwards: protocol and connection refer to each other

        def check(_: Any, certificate: crypto.X509, code: int, depth: int, is_good: int) -> bool:
            trouble = ""
            if not is_good:
                why = _UNTRUSTED.get(code, f"error {code} of OpenSSL")
                trouble = f"the certificate of {self._host} is not trusted: {why}"
            elif depth == 0:
                trouble = self._trouble(certificate)
            if trouble and waiting:
                waiting[0].failVerification(Failure(WrongCertificate(trouble)))
            if trouble or depth == 0:
                waiting.clear()
            return not trouble

        return check

    def _trouble(self, certificate: crypto.X509) -> str:
        """Say why a certificate is not for this host; empty if it is."""
        try:
            patterns = _patterns(certificate)
            if not patterns:
                return f"the certificate of {self._host} names no host (no good subjectAltName)"
            verify_service_identity(patterns, [self._wanted], [])
        except VerificationError:
            return f"the certificate of {self._host} is for another host"
        except Exception as error:  # noqa: BLE001 - parsers of extensions raise anything
            return f"the certificate of {self._host} cannot be read: {in_words(type(error))}"
        return ""


def _patterns(certificate: crypto.X509) -> list[CertificatePattern]:
    """Return the names in a certificate's subjectAltName, without those that cannot be read."""
    extensions = certificate.to_cryptography().extensions
    try:
        names = extensions.get_extension_for_class(SubjectAlternativeName).value
    except ExtensionNotFound:
        return []
    found: list[CertificatePattern] = [
        IPAddressPattern(address)
        for address in names.get_values_for_type(IPAddress)
        if isinstance(address, IPv4Address | IPv6Address)
    ]
    for name in names.get_values_for_type(DNSName):
        with suppress(CertificateError):
            found.append(DNSPattern.from_bytes(name.encode("utf-8")))
    return found
