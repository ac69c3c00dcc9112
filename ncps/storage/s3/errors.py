"""The translation of errors of S3 and of the network into those of `ncps.errors`.

An object is absent only if the server answers NoSuchKey. After a missing bucket, a proxy's own 404,
or a refusal, the state of the object is unknown. AWS also refuses absent keys if the credentials do
not allow listing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
    SSLError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from ncps.aio.reasons import in_words
from ncps.errors import Conflict, NcpsError, NotFound, Refused, StorageFull, Unavailable

RETRY_AFTER_S: Final = 5.0

_FLAG: Final = "cache-storage-s3-"
_DENIED: Final = frozenset({"AccessDenied", "AllAccessDisabled", "403", "AccountProblem"})
_FULL: Final = frozenset(
    {"QuotaExceeded", "EntityTooLarge", "InsufficientCapacity", "XMinioStorageFull", "507"}
)

_SKEWED: Final = (
    "the clocks of this machine and of the server differ by too much: set this machine's (NTP)"
)
_ELSEWHERE: Final = f"the bucket is in another region: correct {_FLAG}region"
_NOT_TAKEN: Final = (
    "the server does not accept the request: does it support the values of"
    f" {_FLAG}storage-class and {_FLAG}server-side-encryption?"
)

_MEANINGS: Final[Mapping[str, str]] = {
    "NoSuchBucket": f"the bucket does not exist: make it, or correct {_FLAG}bucket",
    "InvalidBucketName": f"this is not a valid name of a bucket: correct {_FLAG}bucket",
    "InvalidAccessKeyId": f"the server does not know the access key: correct {_FLAG}access-key-id",
    "SignatureDoesNotMatch": "the secret does not belong to the access key:"
    f" correct {_FLAG}secret-access-key",
    "InvalidToken": f"the session token is not valid: correct {_FLAG}session-token",
    "ExpiredToken": f"the session token has expired: renew {_FLAG}session-token",
    "RequestTimeTooSkewed": _SKEWED,
    "RequestExpired": _SKEWED,
    "PermanentRedirect": _ELSEWHERE,
    "AuthorizationHeaderMalformed": _ELSEWHERE,
    "IllegalLocationConstraintException": _ELSEWHERE,
    "InvalidArgument": _NOT_TAKEN,
    "InvalidRequest": _NOT_TAKEN,
    "NotImplemented": _NOT_TAKEN,
    "InvalidStorageClass": f"there is no such storage class: correct {_FLAG}storage-class",
    "KMS.NotFoundException": f"there is no such key: correct {_FLAG}kms-key-id",
    "BadDigest": "the bytes were damaged on their way",
    "XAmzContentSHA256Mismatch": "the bytes were damaged on their way",
    "SlowDown": "the server asks to slow down",
}


class Denied(StorageFull):
    """The credentials do not allow writing."""


class OutOfRange(Exception):
    """No byte of the range is in the object. The adapter handles this error itself."""


@contextmanager
def calling(what: str, *, writing: bool = False) -> Iterator[None]:
    """Turn every error of a call into one of `ncps.errors`, or OutOfRange.

    Raises NotFound if the object is absent; Conflict if a condition failed; StorageFull without
    room or permission to write; Refused if the server does not support the request; or else
    Unavailable.

    :param what: the name of the object and its bucket, for the message.
    :param writing: whether a refusal means that the store is read-only.
    """
    try:
        yield
    except ClientError as error:
        raise _answered(what, error.response, writing=writing) from error
    except (BotoCoreError, ResponseParserError, HTTPError, OSError) as error:
        raise _unanswered(what, error) from error


def _answered(what: str, response: Mapping[str, Any], *, writing: bool) -> NcpsError | OutOfRange:
    """Return the error for an answer of the server."""
    code = str(response.get("Error", {}).get("Code", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchKey":
        return NotFound(f"{what} is not in the store")
    if code == "InvalidRange" or status == 416:
        return OutOfRange()
    if code in {"PreconditionFailed", "ConditionalRequestConflict", "412"}:
        return Conflict(f"{what} is there, or has changed")
    message = f"{what}: {_why(code, status, response)}"
    if status == 501:
        return Refused(message)
    if writing and code in _DENIED:
        return Denied(message)
    if code in _FULL:
        return StorageFull(message)
    return Unavailable(message, retry_after=RETRY_AFTER_S)


def _why(code: str, status: int, response: Mapping[str, Any]) -> str:
    if code in _DENIED:
        return "the credentials do not allow this"
    why = _MEANINGS.get(code)
    if why is None:
        return f"the server answered {status} {code[:64]!r}"
    region = response.get("Error", {}).get("Region") or response.get("ResponseMetadata", {}).get(
        "HTTPHeaders", {}
    ).get("x-amz-bucket-region")
    return f"{why} to {region}" if region and why is _ELSEWHERE else why


def _unanswered(what: str, error: Exception) -> Unavailable:
    """Return the error if no answer came, or an invalid one."""
    timed_out = isinstance(error, ConnectTimeoutError | ReadTimeoutError)
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError):
        why = (
            f"no credentials: give {_FLAG}access-key-id and {_FLAG}secret-access-key, or what"
            " AWS's own tools would use (environment, profile, role)"
        )
    elif isinstance(error, SSLError):
        why = f"no trusted TLS connection to {_where(error)}: is {_FLAG}endpoint right, with https?"
    elif isinstance(error, EndpointConnectionError):
        why = f"cannot connect to {_where(error)}: is the server up, and is {_FLAG}endpoint right?"
    elif timed_out:
        why = f"{_where(error)} does not answer in time"
    else:
        why = f"the connection or the answer broke ({in_words(type(error))})"
    return Unavailable(f"{what}: {why}", retry_after=RETRY_AFTER_S, timed_out=timed_out)


def _where(error: BotoCoreError) -> str:
    """Return scheme, host and port of the server, without the rest of its URL."""
    parts = urlsplit(str(error.kwargs.get("endpoint_url", "")))
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}" if host else "the server"
