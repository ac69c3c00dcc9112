"""The errors of the cache, each class for one thing that a caller can do about it.

Adapters translate every error of a driver or a library into one of these, so that callers of
adapters need to know no others. `web.respond` has the table from error to status.
"""

from __future__ import annotations

import errno
from typing import Final, Literal

FailureKind = Literal["connect", "timeout", "status", "broken", "corrupt", "malformed"]
"""The ways in which an upstream fails, in this order: it does not answer; it answers too late; its
status is an error; its answer breaks off; its bytes or facts are wrong; its text is malformed."""


class NcpsError(Exception):
    """Base of all errors below; its `str()` is for a log line and never holds a secret.

    :ivar told: text for clients besides the status; empty for none.
    :ivar is_refusal: whether an upstream refuses our credentials.
    """

    told = ""
    is_refusal = False


class Malformed(NcpsError, ValueError):
    """Text or bytes are not in the right format. Status: 400, or 404 for a path."""


class NotFound(NcpsError):
    """The object is certainly not here, or not at the upstream: try another place. Status: 404.

    :param is_certain: whether the absence may be remembered; False if an upstream could not be
        asked.
    """

    def __init__(self, message: str, *, is_certain: bool = True, is_refusal: bool = False) -> None:
        super().__init__(message)
        self.is_certain = is_certain
        self.is_refusal = is_refusal


class Unavailable(NcpsError):
    """ncps cannot do this now, or cannot know it: try later. It is no absence. Status: 503, 504.

    :param retry_after: seconds after which to try again, if known.
    :param timed_out: whether a deadline was the cause; the status is then 504 instead of 503.
    :param kind: the way in which an upstream failed, for metrics.
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
    """A limit of ncps is reached: try later. The upstream may be healthy."""


class Unconfirmed(Unavailable):
    """An answer without length has ended, and only its content can show whether it is complete.

    Such an answer ends with its connection, which may also break. A reader that can check the
    content for completeness accepts it; for all other readers it has broken off.
    """


class Corrupt(NcpsError):
    """Bytes or facts are not as announced: distrust the source. Status: 502.

    :param kind: see Unavailable.
    """

    def __init__(self, message: str, *, kind: FailureKind = "corrupt") -> None:
        super().__init__(message)
        self.kind: FailureKind = kind


class Unusable(Corrupt):
    """An upstream has an object of this name that ncps cannot use. Status: 404.

    No trusted key has signed it, or it is a web page. To ask again does not help, so it counts as
    absent.
    """


class Oversized(Corrupt):
    """An upstream has an object of this name that is larger than a limit of ncps."""


class UnknownEncoding(NcpsError):
    """A client sends a body in an encoding that ncps cannot decode. Status: 415."""


class Refused(NcpsError):
    """The request is not allowed or not possible; to try again does not help. Status: 403."""


class TooLarge(NcpsError):
    """A client sends more than ncps accepts. Status: 413."""


class SlowClient(NcpsError):
    """A client sends its request too slowly, or stops. Status: 408."""


class Conflict(NcpsError):
    """Other bytes already have this name. Status: 409."""


class StorageFull(NcpsError):
    """The store is full or read-only. Status: 507 for an upload; reads do not need the store."""


_LOST: Final = frozenset({errno.EIO, errno.EUCLEAN, errno.EBADMSG})


def unreadable(what: str, error: OSError) -> NcpsError:
    """Return the error for bytes of an open file that cannot be read.

    Corrupt if the disk or its checksums say that the bytes are lost, since waiting does not bring
    them back; otherwise Unavailable.
    """
    message = f"{what} cannot be read: {error.strerror or type(error).__name__}"
    return Corrupt(message) if error.errno in _LOST else Unavailable(message)
