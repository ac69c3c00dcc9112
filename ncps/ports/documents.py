"""Documents: small files of a web server, such as the keys of an issuer."""

from __future__ import annotations

from typing import Protocol


class Documents(Protocol):
    """The documents of one server, and of the servers that it names."""

    async def fetch(self, url: str) -> bytes:
        """Return a whole document, without its Content-Encoding.

        The implementation has a deadline and a limit of the size. It does not follow redirects.
        Raises Unavailable if the server does not answer, breaks off, or answers with an error;
        Corrupt if the answer is invalid, too large, or a redirect.
        """
