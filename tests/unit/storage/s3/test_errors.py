"""Every error of S3 becomes one of `ncps.errors`, whose message has the remedy."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ReadTimeoutError,
    SSLError,
)
from botocore.parsers import ResponseParserError
from twisted.trial.unittest import SynchronousTestCase
from urllib3.exceptions import ProtocolError

from ncps.errors import Conflict, NcpsError, NotFound, Refused, StorageFull, Unavailable
from ncps.storage.s3.errors import Denied, OutOfRange, calling
from tests.fakes.s3 import error

PLACE = "https://s3.example:9000"
URL = "https://me:hunter2@s3.example:9000/bucket/key?X-Amz-Signature=hunter2"


class ErrorTests(SynchronousTestCase):
    def meaning(self, failure: Exception, *, writing: bool = False) -> Exception:
        def fail() -> None:
            with calling("x", writing=writing):
                raise failure

        found: Exception = self.assertRaises((NcpsError, OutOfRange), fail)
        return found

    def test_errors_of_the_server(self) -> None:
        """The class gives the remedy for the caller, the text the reason."""
        for code, status, kind, word in (
            ("NoSuchKey", 404, NotFound, "not in the store"),
            ("NoSuchBucket", 404, Unavailable, "s3-bucket"),
            ("404", 404, Unavailable, "404"),
            ("InvalidAccessKeyId", 403, Unavailable, "s3-access-key-id"),
            ("SignatureDoesNotMatch", 403, Unavailable, "s3-secret-access-key"),
            ("ExpiredToken", 400, Unavailable, "expired"),
            ("RequestTimeTooSkewed", 403, Unavailable, "clock"),
            ("AccessDenied", 403, Unavailable, "do not allow"),
            ("PreconditionFailed", 412, Conflict, ""),
            ("ConditionalRequestConflict", 409, Conflict, ""),
            ("InvalidRange", 416, OutOfRange, ""),
            ("QuotaExceeded", 403, StorageFull, "QuotaExceeded"),
            ("SlowDown", 503, Unavailable, "slow down"),
            ("InternalError", 500, Unavailable, "500"),
            ("NotImplemented", 501, Refused, "does not accept"),
            ("BadDigest", 400, Unavailable, "damaged"),
        ):
            found = self.meaning(error(code, status))
            self.assertIs(type(found), kind, code)
            self.assertIn(word, str(found))

    def test_refused_writing_is_a_full_store(self) -> None:
        """If writing is not allowed, the store counts as full, and reads continue."""
        self.assertIs(type(self.meaning(error("AccessDenied", 403), writing=True)), Denied)
        self.assertTrue(issubclass(Denied, StorageFull))

    def test_the_right_region_is_named(self) -> None:
        """The message names the right region if the server does, in either way."""
        found = self.meaning(error("AuthorizationHeaderMalformed", 400, Region="eu-west-3"))
        self.assertIn("s3-region to eu-west-3", str(found))
        response: Any = {
            "Error": {"Code": "PermanentRedirect"},
            "ResponseMetadata": {
                "HTTPStatusCode": 301,
                "HTTPHeaders": {"x-amz-bucket-region": "eu-west-3"},
            },
        }
        self.assertIn("s3-region to eu-west-3", str(self.meaning(ClientError(response, "Call"))))
        self.assertIn("s3-region", str(self.meaning(error("PermanentRedirect", 301))))

    def test_no_answer(self) -> None:
        """Without an answer the error is Unavailable."""
        for failure, word, timed_out in (
            (EndpointConnectionError(endpoint_url=URL), f"cannot connect to {PLACE}: ", False),
            (ConnectTimeoutError(endpoint_url=URL), f"{PLACE} does not answer in time", True),
            (ReadTimeoutError(endpoint_url=URL), f"{PLACE} does not answer in time", True),
            (ReadTimeoutError(endpoint_url=""), "the server does not answer in time", True),
            (SSLError(endpoint_url=URL, error=OSError("hunter2")), "TLS", False),
            (NoCredentialsError(), "no credentials", False),
            (HTTPClientError(error="hunter2"), "broke", False),
            (ResponseParserError("hunter2"), "broke", False),
            (ProtocolError("hunter2"), "broke", False),
            (OSError("hunter2"), "broke", False),
        ):
            found = self.meaning(failure)
            assert isinstance(found, Unavailable)
            self.assertIn(word, str(found))
            self.assertNotIn("hunter2", str(found))
            self.assertEqual(found.timed_out, timed_out)
            self.assertIsNotNone(found.retry_after)

    def test_other_errors_are_ours(self) -> None:
        """Other errors, such as those of the program, are not changed."""
        with self.assertRaises(KeyError), calling("x"):
            raise KeyError
