"""A bucket: the few requests that stores send to S3, with a method for each.

All methods block, so threads call them; all threads share one client. Errors are those of
`ncps.errors` (see `calling`). Keys are those of `ncps.storage.keys`; the bucket adds its prefix.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

import boto3
from attrs import field, frozen
from botocore.config import Config

from ncps.errors import NotFound, Unavailable
from ncps.storage.blobs import Blob
from ncps.storage.s3.errors import OutOfRange, calling

DEFAULT_REGION: Final = "us-east-1"
PAGE: Final = 1000
"""Keys per page of a listing; servers return no more."""


@frozen(kw_only=True)
class BucketAccess:
    """The access to a bucket: server, credentials, timeouts.

    :param endpoint: URL of the server; empty for AWS.
    :param region: empty for the region that AWS's tools would use, or else `us-east-1`.
    :param access_key_id: empty, like `secret_access_key`, for the credentials of AWS's tools.
    :param attempts: for each request, in all.
    :param encryption: at rest, in S3's spelling; empty for the server's default.
    :param is_direct: whether to ignore the proxies in the environment.
    """

    bucket: str
    endpoint: str = ""
    region: str = ""
    prefix: str = ""
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)
    force_path_style: bool = False
    connect_timeout_s: float
    read_timeout_s: float
    attempts: int
    connections: int
    encryption: str = ""
    kms_key_id: str = ""
    is_direct: bool = False


@frozen(kw_only=True)
class Facts(Blob):
    """The properties of an object in a server's answer.

    :param sha256: hash of the object's bytes according to its metadata, in hexadecimal; unchecked.
    """

    sha256: str = ""


@frozen(kw_only=True)
class Opened:
    """An open object; the caller closes `stream`, an object of botocore."""

    facts: Facts
    stream: Any


def connect(access: BucketAccess) -> Any:
    """Make the client. Raises Unavailable if AWS's files of settings are invalid."""
    # Each body has a connection; the pool keeps fewer and would warn about the others.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    with calling(f"S3 bucket {access.bucket}"):
        session = boto3.session.Session(
            aws_access_key_id=access.access_key_id or None,
            aws_secret_access_key=access.secret_access_key or None,
            aws_session_token=access.session_token or None,
        )
        return session.client(
            "s3",
            endpoint_url=access.endpoint or None,
            region_name=access.region or session.region_name or DEFAULT_REGION,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path" if access.force_path_style else "auto"},
                connect_timeout=access.connect_timeout_s,
                read_timeout=access.read_timeout_s,
                retries={"mode": "standard", "total_max_attempts": access.attempts},
                max_pool_connections=access.connections,
                proxies={} if access.is_direct else None,
                # By default the client sends trailers, which many other servers refuse.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )


def md5_of(data: bytes) -> str:
    """Return the value of Content-MD5, which every server checks."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


class Bucket:
    """One bucket, with the prefix of ncps's keys in it.

    Methods raise Unavailable if they fail now, StorageFull if writing is not possible.

    :param client: the result of `connect`, or a fake with its methods.
    """

    def __init__(self, client: Any, access: BucketAccess) -> None:
        self.client = client
        self._access = access
        self._prefix = f"{access.prefix}/" if access.prefix else ""
        self.at_rest: Mapping[str, str] = MappingProxyType(
            {
                name: value
                for name, value in (
                    ("ServerSideEncryption", access.encryption),
                    ("SSEKMSKeyId", access.kms_key_id),
                )
                if value
            }
        )

    def name(self, key: str = "") -> str:
        """Return the object's name for messages."""
        return f"S3 bucket {self._access.bucket}" + (f", {self._prefix}{key}" if key else "")

    def at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._access.bucket, "Key": self._prefix + key}

    # Reading

    def open(self, key: str, start: int = 0, stop: int | None = None, *, etag: str = "") -> Opened:
        """Begin to read bytes, at least one.

        Raises NotFound if the object is absent, OutOfRange if no byte of the range is in it,
        Conflict if it has another tag than `etag`.
        """
        wanted: dict[str, str] = {}
        if start or stop is not None:
            wanted["Range"] = f"bytes={start}-" + ("" if stop is None else str(stop - 1))
        if etag:
            wanted["IfMatch"] = f'"{etag}"'
        with calling(self.name(key)):
            answer = self.client.get_object(**self.at(key), **wanted)
        size = int(answer["ContentLength"])
        if "Range" in wanted:
            first, total = _content_range(str(answer.get("ContentRange", "")))
            if first != start:
                answer["Body"].close()
                raise Unavailable(f"{self.name(key)}: the server sent other bytes than requested")
            size = total
        facts = Facts(
            key=key,
            size=size,
            modified=answer["LastModified"],
            tag=tag_of(answer),
            sha256=str(answer.get("Metadata", {}).get("sha256", "")),
        )
        return Opened(facts=facts, stream=answer["Body"])

    def stat(self, key: str) -> Facts | None:
        """Return an object's properties; None if it is surely absent.

        It requests one byte: the answer to HEAD is the same for a missing key or a missing bucket.
        """
        try:
            opened = self.open(key, 0, 1)
        except NotFound:
            return None
        except OutOfRange:
            return self._stat_empty(key)
        try:
            with calling(self.name(key)):
                opened.stream.read()  # to its end, so that the connection can be used again
        finally:
            opened.stream.close()
        return opened.facts

    def _stat_empty(self, key: str) -> Facts | None:
        try:
            opened = self.open(key)
        except NotFound:
            return None
        opened.stream.close()
        return opened.facts

    def read(self, key: str) -> bytes | None:
        """Return a small object's bytes; None if it is surely absent."""
        try:
            opened = self.open(key)
        except NotFound:
            return None
        try:
            with calling(self.name(key)):
                data: bytes = opened.stream.read()
        finally:
            opened.stream.close()
        return data

    def page(self, base: str, after: str = "") -> tuple[list[Blob], str]:
        """Return some objects below `base`, and the `after` of the next page, empty at the end."""
        more = {"ContinuationToken": after} if after else {}
        with calling(self.name(base)):
            answer = self.client.list_objects_v2(
                Bucket=self._access.bucket, Prefix=self._prefix + base, MaxKeys=PAGE, **more
            )
        found = [
            Blob(
                key=entry["Key"][len(self._prefix) :],
                size=int(entry["Size"]),
                modified=entry["LastModified"],
                tag=tag_of(entry),
            )
            for entry in answer.get("Contents", ())
        ]
        return found, answer.get("NextContinuationToken", "") if answer["IsTruncated"] else ""

    # Writing

    def write(self, key: str, data: bytes, *, create: bool = False) -> None:
        """Write or replace a small object.

        :param create: whether to raise Conflict if the object exists already.
        """
        self.put(key, data, md5_of(data), {"IfNoneMatch": "*"} if create else {})

    def put(self, key: str, body: Any, md5: str, options: Mapping[str, Any]) -> str:
        """Make an object in one request; return its tag, or "" if the server returns none.

        Raises Conflict if a condition in `options` fails.

        :param body: bytes, or a file that can be read again for another attempt.
        """
        with calling(self.name(key), writing=True):
            answer = self.client.put_object(
                **self.at(key), Body=body, ContentMD5=md5, **self.at_rest, **options
            )
        return tag_of(answer)

    def delete(self, key: str) -> None:
        """Remove an object, if it exists."""
        with calling(self.name(key), writing=True):
            self.client.delete_object(**self.at(key))

    def copy(self, key: str, target: str, etag: str, options: Mapping[str, Any]) -> str:
        """Copy an object of at most 5 GiB; return the tag of the copy.

        Raises NotFound if the object is absent, Conflict if it has another tag than `etag`.
        """
        with calling(self.name(key), writing=True):
            answer = self.client.copy_object(
                **self.at(target),
                CopySource=self.at(key),
                CopySourceIfMatch=f'"{etag}"',
                **self.at_rest,
                **options,
            )
        return tag_of(answer["CopyObjectResult"])

    def abort(self, key: str, upload: str) -> None:
        """Abort an upload and free its parts."""
        with calling(self.name(key), writing=True):
            self.client.abort_multipart_upload(**self.at(key), UploadId=upload)

    def uploads(self, base: str) -> list[tuple[str, str, datetime]]:
        """Return up to a page of unfinished uploads: key, id, time of their begin."""
        with calling(self.name(base)):
            answer = self.client.list_multipart_uploads(
                Bucket=self._access.bucket, Prefix=self._prefix + base
            )
        return [
            (entry["Key"][len(self._prefix) :], entry["UploadId"], entry["Initiated"])
            for entry in answer.get("Uploads", ())
        ]

    def address(self, key: str, ttl_s: float) -> str:
        """Return a URL from which any client may GET the object for `ttl_s` seconds."""
        with calling(self.name(key)):
            url: str = self.client.generate_presigned_url(
                "get_object", Params=self.at(key), ExpiresIn=int(ttl_s)
            )
        return url

    def close(self) -> None:
        """Close the idle connections."""
        self.client.close()


def tag_of(answer: Mapping[str, Any]) -> str:
    """Return the tag in an answer, without quotes; empty if there is none."""
    return str(answer.get("ETag", "")).strip('"')


def _content_range(text: str) -> tuple[int, int]:
    """Return the first byte and the whole size; -1 and -1 if the header lacks one of them."""
    span, _, total = text.removeprefix("bytes ").partition("/")
    first = span.partition("-")[0]
    if not (first.isdecimal() and total.isdecimal()):
        return -1, -1
    return int(first), int(total)
