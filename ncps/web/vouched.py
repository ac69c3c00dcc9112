"""The user of a request, as a trusted proxy names it in the header of `auth-proxy-header`.

From all other clients, ncps ignores the header and uses the other credentials. It does not refuse
such a request, because the header has no effect; a log line names the address, which may be a proxy
that is missing in `server-trusted-proxies`.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.http_headers import Headers

from ncps.aio.recent import RecentSet
from ncps.errors import Malformed

QUIET_S: Final = 3600.0
"""Seconds in which an untrusted address that names users is logged only once."""

MAX_QUIET: Final = 100
LONGEST: Final = 256
"""Characters of a user's name."""


class ProxiedUsers:
    """The reader of the names of users in requests.

    :param header: the name of the header; empty if no proxy names users.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, header: str = "") -> None:
        self._header = header.encode("ascii")
        self._reported = RecentSet(clock, ttl_s=QUIET_S, max_entries=MAX_QUIET)

    def take(self, header: str) -> None:
        """Read another header from now on; none if empty."""
        self._header = header.encode("ascii")

    @property
    def are_named(self) -> bool:
        """Whether trusted proxies name users."""
        return bool(self._header)

    def user(self, headers: Headers, peer: str, is_trusted: bool) -> str:
        """Return the user of a request; empty if no proxy names one.

        Raises Malformed if the proxy does not name exactly one user.

        :param peer: the address of the connection.
        :param is_trusted: whether that address is a trusted proxy.
        """
        if not self._header:
            return ""
        values = headers.getRawHeaders(self._header)
        if values is None:
            return ""
        if not is_trusted:
            self._tell(peer)
            return ""
        if len(values) > 1:
            raise Malformed("the proxy names several users")
        try:
            name = values[0].strip().decode("utf-8")
        except UnicodeDecodeError:
            raise Malformed("the proxy names a user that is not in UTF-8") from None
        if len(name) > LONGEST or not name.isprintable() or "," in name:
            raise Malformed("the proxy names several users, or an invalid name")
        return name

    def _tell(self, peer: str) -> None:
        if peer not in self._reported and len(self._reported) < MAX_QUIET:
            self._reported.add(peer)
            self._log.warn(
                "{client} names the user of a request (auth-proxy-header), and is ignored: it is"
                " not one of server-trusted-proxies",
                client=peer,
            )
