"""A source of credentials whose answers a test chooses."""

from __future__ import annotations

from ncps.auth.credentials import Credentials, WrongCredentials
from ncps.auth.principal import Principal
from ncps.errors import Unavailable


class StubCredentials:
    """Knows some secrets by heart, and others after a question.

    :ivar known: principals by secret, that are known without waiting.
    :ivar asked: outcomes by secret, of `identify`.
    """

    def __init__(self, name: str = "token") -> None:
        self.name = name
        self.is_configured: bool | None = True
        self.known: dict[str, Principal] = {}
        self.asked: dict[str, Principal | WrongCredentials | Unavailable] = {}
        self.questions = 0

    def recall(self, credentials: Credentials) -> Principal | None:
        """See `CredentialSource`."""
        return self.known.get(credentials.secret)

    async def identify(self, credentials: Credentials) -> Principal | None:
        """See `CredentialSource`."""
        self.questions += 1
        found = self.asked.get(credentials.secret)
        if isinstance(found, WrongCredentials | Unavailable):
            raise found
        return found
