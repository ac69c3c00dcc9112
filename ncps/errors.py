"""The few errors of the cache, typed by what the caller can do about them.

Adapters translate every error of a driver or a library into one of these; nothing above the
adapters ever sees another one. `web.respond` has the table from error to status.
"""

from __future__ import annotations

import errno
from typing import Final, Literal

FailureKind = Literal["connect", "timeout", "status", "broken", "corrupt", "malformed"]
"""The ways in which an upstream fails: no connection or no answer; too late; a status that is no
answer; an answer that broke off; bytes or facts that are wrong; text in a wrong format."""


class NcpsError(Exception):
    """Base of all errors below; `str()` of it is fit for a log line, never holds a secret.

    :ivar told: text for clients besides the status; empty: none.
    :ivar is_refusal: whether an upstream wants to see other credentials than ours.
    """

    told = ""
    is_refusal = False


class Malformed(NcpsError, ValueError):
    """Text or bytes are not in the right format. Clients: 400, or 404 for a path."""


class NotFound(NcpsError):
    """The thing is surely not here (of an upstream: surely not there). Try elsewhere. Clients: 404.

    :param is_certain: whether it may be remembered; False if an upstream could not be asked.
    """

    def __init__(self, message: str, *, is_certain: bool = True, is_refusal: bool = False) -> None:
        super().__init__(message)
        self.is_certain = is_certain
        self.is_refusal = is_refusal


class Unavailable(NcpsError):
    """ncps cannot tell or cannot do it now; try later. Never taken for absence. Clients: 503, 504.

    :param retry_after: seconds after which trying again makes sense, if known.
    :param timed_out: whether the cause was a deadline (clients: 504 instead of 503).
    :param kind: kind of an upstream's failure, for metrics.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        timed_out: bool = False,
        kind: FailureKind = "connect",
        is_refusal: bool = False,
    ) -> None:
        super().__init__(message)
        self.is_refusal = is_refusal
        self.retry_after = retry_after
        self.timed_out = timed_out
        self.kind: FailureKind = "timeout" if timed_out else kind


class Busy(Unavailable):
    """A limit of our own is reached: try later. Says nothing about the health of an upstream."""


class Unconfirmed(Unavailable):
    """Bytes have ended, and only their content can tell whether that was all of them.

    An answer without length ends with its connection, no matter which side ended that. A reader
    that sees from the content that it is whole takes it as whole; for all others it has broken off.
    """


class Corrupt(NcpsError):
    """Bytes or facts are not what they were said to be: distrust the source. Clients: 502.

    :param kind: see Unavailable.
    """

    def __init__(self, message: str, *, kind: FailureKind = "corrupt") -> None:
        super().__init__(message)
        self.kind: FailureKind = kind


class Unusable(Corrupt):
    """An upstream has something of this name that cannot be used. Clients: 404.

    No key vouches for it, or it is a web page. Asking again does not help, so it counts as absent.
    """


class Oversized(Corrupt):
    """An upstream has something of this name that is larger than a limit of ours allows."""


class UnknownEncoding(NcpsError):
    """A client sends a body in an encoding that cannot be undone here. Clients: 415."""


class Refused(NcpsError):
    """Not allowed or not possible as asked; trying again will not help. Clients: 403."""


class TooLarge(NcpsError):
    """A client sends more than is taken here. Clients: 413."""


class SlowClient(NcpsError):
    """A client sends its request too slowly, or stops. Clients: 408."""


class Conflict(NcpsError):
    """Other bytes already bear this name. Clients: 409."""


class StorageFull(NcpsError):
    """The store has no room or is read-only. Clients: 507 on upload; reads stream through."""


_LOST: Final = frozenset({errno.EIO, errno.EUCLEAN, errno.EBADMSG})


def unreadable(what: str, error: OSError) -> NcpsError:
    """Return the error for bytes of an open file that cannot be read.

    Corrupt where the medium or its check sums say that they are lost: they will not come back by
    waiting. Everything else is Unavailable.
    """
    message = f"{what} cannot be read: {error.strerror or type(error).__name__}"
    return Corrupt(message) if error.errno in _LOST else Unavailable(message)
