"""Credentials: the parts of a request that name the client, and the sources that check them.

A source knows one kind of credentials, such as the tokens of the database or the token of the
settings. The guard asks the sources in order.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final, Literal, Protocol

from attrs import field, frozen

from ncps.auth.principal import Principal
from ncps.errors import Malformed, Refused

LONGEST: Final = 16 * 1024
"""Bytes of a header with credentials, at most; the token of an issuer may have some KiB."""

WrongKind = Literal["unknown", "expired", "revoked", "invalid"]
"""The faults of credentials: no source knows them; they have expired or are not valid yet; somebody
has revoked them; they are malformed or forged."""


class WrongCredentials(Refused):
    """The credentials belong to this source, and they are wrong. Clients get 401.

    The client gets the text, which never repeats any part of the credentials.

    :param kind: the value of a label in metrics.
    """

    def __init__(self, message: str, kind: WrongKind = "invalid") -> None:
        super().__init__(message)
        self.kind: WrongKind = kind


@frozen(kw_only=True)
class ClientCertificate:
    """The names in the verified certificate of a client.

    :param common_name: the common name of its subject; empty if it has none.
    :param names: its alternative names, each with its kind: `DNS:ci.example`, `URI:spiffe://...`,
        `email:ci@example`.
    """

    common_name: str = ""
    names: tuple[str, ...] = ()


@frozen(kw_only=True)
class Credentials:
    """The credentials of one request. `repr` shows no secret.

    :param client: the address of the client; see `ncps.web.clients`.
    :param bearer: the token of `Authorization: Bearer`.
    :param user: the user of `Authorization: Basic`, with its `password`.
    :param certificate: the verified certificate that the client has sent in TLS.
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
        """The token of Bearer, else the password of Basic, because Nix can only send Basic."""
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

    :ivar name: its name in metrics and logs; one of `SOURCES` in `observe.auth_metrics`.
    """

    name: str

    @property
    def is_configured(self) -> bool | None:
        """Whether anybody may have such credentials; None if that is unknown now.

        While no source is configured, a verb that a setting opens is open to everybody.
        """

    def recall(self, credentials: Credentials) -> Principal | None:
        """Return the principal if it is known without waiting; else None, and `identify` decides.

        Runs for each request, so it must take only a few microseconds. Raises nothing.
        """

    async def identify(self, credentials: Credentials) -> Principal | None:
        """Return the principal; None if the credentials do not belong to this source.

        Raises WrongCredentials if they belong to this source and are wrong, Unavailable if the
        source cannot tell now.
        """


def read_authorization(value: bytes) -> tuple[str, str, str]:
    """Parse `Authorization`: return the token of Bearer, and user and password of Basic.

    The names of the schemes may be in capitals (RFC 9110 section 11.1). Raises Malformed if the
    value has another scheme or form.
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
