"""Documents: small files that a server on the web publishes, such as the keys of an issuer."""

from __future__ import annotations

from typing import Protocol


class Documents(Protocol):
    """The documents of one server, and of those that it names."""

    async def fetch(self, url: str) -> bytes:
        """Return a whole document, without its Content-Encoding.

        Ends within a deadline of its own, and never returns more than a bound of its own. Redirects
        are not followed. Raises Unavailable if the server does not answer, breaks off, or answers
        with an error; Corrupt if the answer is none, too large, or a redirect.
        """
