"""The credentials of requests, and the answers to requests that they do not permit."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from ncps.auth.credentials import NO_CREDENTIALS, Credentials, read_authorization
from ncps.auth.guard import Forbidden, Guard, TooManyFailures, Unauthenticated, VerbOff
from ncps.auth.principal import Principal, Scope
from ncps.errors import Malformed, NcpsError, Unavailable
from ncps.web.answer import RETRY_AFTER, fail, tell
from ncps.web.request import NcpsRequest
from ncps.web.state import ClientConnection

CHALLENGE: Final = b'Bearer realm="ncps", Basic realm="ncps"'
_log = Logger()
_STATUSES: Final[Mapping[type[NcpsError], int]] = {
    Unauthenticated: 401,
    Forbidden: 403,
    VerbOff: 405,
    TooManyFailures: 429,
    Malformed: 400,
    Unavailable: 503,
}


class Users(Protocol):
    """The reader of the user that a proxy names."""

    @property
    def are_named(self) -> bool:
        """Whether trusted proxies name users."""

    def user(self, headers: Headers, peer: str, is_trusted: bool) -> str:
        """Return the user; empty if none is named. Raises Malformed if not exactly one is named.

        :param peer: the address of the connection.
        :param is_trusted: whether that is the address of a trusted proxy.
        """


class NoUsers:
    """The reader where no proxy names users."""

    are_named = False

    def user(self, headers: Headers, peer: str, is_trusted: bool) -> str:
        """Return an empty text; see `Users`."""
        return ""


class CredentialGuard:
    """A `RouteGuard` that decides by the credentials of a request.

    :param guard: decides which credentials permit a scope.
    """

    def __init__(self, guard: Guard, users: Users | None = None) -> None:
        self._guard = guard
        self._users = users or NoUsers()

    def admit(
        self, request: NcpsRequest, scope: Scope, allowed: bytes, go_on: Callable[[], object]
    ) -> None:
        """See `guard.RouteGuard`."""
        try:
            found: Principal | Coroutine[Any, Any, Principal] | None = self._guard.anybody(scope)
            if found is None:
                request.is_private = True
                credentials = self._credentials(request.requestHeaders, request.channel)
                found = self._guard.admit(evolve(credentials, client=request.client), scope)
        except NcpsError as error:
            _refuse(request, error, allowed)
            return
        if isinstance(found, Principal):
            request.principal = found
            go_on()
        else:
            self._decide_later(request, found, allowed, go_on)

    def _decide_later(
        self,
        request: NcpsRequest,
        deciding: Coroutine[Any, Any, Principal],
        allowed: bytes,
        go_on: Callable[[], object],
    ) -> None:
        """Go on, or refuse, once a source has named the principal; stop if the client leaves."""

        def decided(principal: Principal) -> None:
            if not request.gone:
                request.principal = principal
                go_on()

        def refused(failure: Failure) -> None:
            if failure.check(CancelledError) is not None:
                request.abort()
            elif isinstance(failure.value, NcpsError):
                _refuse(request, failure.value, allowed)
            else:
                fail(request, failure)

        asking = Deferred.fromCoroutine(deciding)
        request.notifyFinish().addErrback(lambda _: asking.cancel())
        asking.addCallbacks(decided, refused)
        asking.addErrback(lambda failure: fail(request, failure))

    def reader(self, connection: ClientConnection, headers: Headers) -> Principal | None:
        """Return the principal that may get a ready answer, if it is known without waiting.

        None for all others, and for clients that may not read every path: the usual way decides
        about their requests.
        """
        try:
            anybody = self._guard.anybody(Scope.READ)
            if anybody is not None:
                return anybody
            return self._guard.reader(self._credentials(headers, connection))
        except NcpsError:
            return None

    def _credentials(self, headers: Headers, connection: ClientConnection) -> Credentials:
        """Read the credentials of a request. Raises Malformed if they cannot be read."""
        found = headers.getRawHeaders(b"authorization")
        certificate = getattr(connection.transport, "client_certificate", None)
        if connection.is_proxied and self._users.are_named:
            certificate = None  # it belongs to the proxy, not to its users
        user = self._users.user(headers, connection.client, connection.is_proxied)
        if found is None and certificate is None and not user:
            return NO_CREDENTIALS
        if found is not None and len(found) > 1:
            raise Malformed("a request should have one Authorization field, not several")
        bearer, name, password = ("", "", "") if found is None else read_authorization(found[0])
        return Credentials(
            client=connection.client,
            bearer=bearer,
            user=name,
            password=password,
            certificate=certificate,
            proxy_user=user,
        )


def refuse_secret(request: NcpsRequest) -> None:
    """Answer 400 to a request whose target holds a token, and remove the token from it."""
    request.uri = request.path
    tell(
        request,
        400,
        "a token does not belong in a URL, since proxies write URLs into their logs: revoke it,"
        " and send the next one as `Authorization: Bearer TOKEN` or as the password of Basic",
    )


def _refuse(request: NcpsRequest, error: NcpsError, allowed: bytes) -> None:
    """Answer a request that is not permitted; the text says what to do."""
    if request.gone:
        return
    status = next((_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES), 403)
    if status == 401:
        request.setHeader(b"WWW-Authenticate", CHALLENGE)
    elif status == 405:
        left = [name for name in allowed.split(b", ") if name != request.method]
        request.setHeader(b"Allow", b", ".join(left))
    text, retry_after = str(error), None
    if isinstance(error, Unavailable):
        retry_after = error.retry_after or RETRY_AFTER
        if status == 503:  # the text of an error of the database is for the log
            text = "ncps cannot check credentials now"
            _log.warn(
                "{client}: credentials cannot be checked: {reason}",
                client=request.client,
                reason=str(error),
            )
    tell(request, status, text, retry_after=retry_after)
