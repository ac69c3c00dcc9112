"""Credentials: the parts of a request that name the client, and the sources that look them up.

A source knows one kind of credentials: the tokens of the database, the token of the settings, and
others. The guard asks the sources in order.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final, Literal, Protocol

from attrs import field, frozen

from ncps.auth.principal import Principal
from ncps.errors import Malformed, Refused

LONGEST: Final = 16 * 1024
"""Bytes of a field with credentials, at most; the token of an issuer may have some KiB."""

WrongKind = Literal["unknown", "expired", "revoked", "invalid"]
"""The ways in which credentials are wrong: nobody knows them; they are too old, or not valid yet;
they were withdrawn; they are no credentials at all, or forged."""


class WrongCredentials(Refused):
    """The credentials are of this source, and they are wrong. Clients: 401.

    The text goes to the client. It never repeats any part of the credentials.

    :param kind: for metrics.
    """

    def __init__(self, message: str, kind: WrongKind = "invalid") -> None:
        super().__init__(message)
        self.kind: WrongKind = kind


@frozen(kw_only=True)
class ClientCertificate:
    """The names in the verified certificate of a client.

    :param common_name: of its subject; empty if it has none.
    :param names: its alternative names, each with its kind: `DNS:ci.example`, `URI:spiffe://...`,
        `email:ci@example`.
    """

    common_name: str = ""
    names: tuple[str, ...] = ()


@frozen(kw_only=True)
class Credentials:
    """The credentials of one request. `repr` shows no secret.

    :param client: address of the client; see `ncps.web.clients`.
    :param bearer: token of `Authorization: Bearer`.
    :param user: of `Authorization: Basic`, with its `password`.
    :param certificate: that the client has shown in TLS, verified.
    :param proxy_user: the user that a trusted proxy names; empty for any other client.
    """

    client: str = ""
    bearer: str = field(default="", repr=False)
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    certificate: ClientCertificate | None = None
    proxy_user: str = ""

    @property
    def secret(self) -> str:
        """The token: that of Bearer, else the password of Basic. Nix can only send the latter."""
        return self.bearer or self.password

    @property
    def is_empty(self) -> bool:
        """Whether the request has no credentials."""
        return not (self.bearer or self.password or self.user or self.certificate) and (
            not self.proxy_user
        )


NO_CREDENTIALS: Final = Credentials()


class CredentialSource(Protocol):
    """Knows the clients that have one kind of credentials.

    :ivar name: for metrics and the log; one of `SOURCES` of `observe.auth_metrics`.
    """

    name: str

    @property
    def is_configured(self) -> bool | None:
        """Whether anybody may have such credentials; None if that cannot be told.

        While no source is configured, a verb that a setting opens is open to everybody.
        """

    def recall(self, credentials: Credentials) -> Principal | None:
        """Return the principal if it is known without waiting; None if `identify` must tell.

        Runs for each request: it must take few microseconds and raises nothing.
        """

    async def identify(self, credentials: Credentials) -> Principal | None:
        """Return the principal; None if such credentials are not of this source.

        Raises WrongCredentials if they are of this source, and wrong; Unavailable if the source
        cannot tell.
        """


def read_authorization(value: bytes) -> tuple[str, str, str]:
    """Read the field `Authorization`: return the bearer's token, or user and password of Basic.

    The names of the schemes may be in capitals (RFC 9110, 11.1). Raises Malformed if it is neither.
    """
    if len(value) > LONGEST:
        raise Malformed(f"credentials of more than {LONGEST} bytes")
    scheme, _, rest = value.strip().partition(b" ")
    rest = rest.strip()
    kind = scheme.lower()
    if kind == b"bearer" and rest:
        return _text(rest), "", ""
    if kind == b"basic" and rest:
        try:
            plain = base64.b64decode(rest, validate=True)
        except (binascii.Error, ValueError):
            raise Malformed("the credentials of Basic are not in base64") from None
        user, colon, password = plain.partition(b":")
        if not colon:
            raise Malformed("the credentials of Basic have no colon")
        return "", _text(user), _text(password)
    raise Malformed("Authorization should be Bearer with a token, or Basic with a password")


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("the credentials are not in UTF-8") from None
