"""A client of S3 that keeps objects in memory, for faults that no real server has on demand.

It has the methods of boto3's client that `ncps.storage.s3.bucket` calls, no more. `script` holds,
by method, what the next calls shall do: raise an error, or be called instead of the real thing.
"""

# ruff: noqa: N803 - the names of arguments are those of S3

from __future__ import annotations

import io
import re
from collections import defaultdict, deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import md5
from typing import Any

from attrs import define, field
from botocore.exceptions import ClientError


def error(code: str, status: int, **more: str) -> ClientError:
    """Return the exception that boto3 raises for this answer of a server."""
    response: Any = {
        "Error": {"Code": code, "Message": "told", **more},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}},
    }
    return ClientError(response, "Call")


class Stream:
    """A body that is being read; it may fail at its end.

    :param failure: raised at the end of `data`; None: that is the end.
    """

    def __init__(self, data: bytes, failure: Exception | None = None) -> None:
        self._file = io.BytesIO(data)
        self._failure = failure
        self.closed = 0
        self.sizes: list[int | None] = []

    def read(self, size: int | None = None) -> bytes:
        self.sizes.append(size)
        data = self._file.read(size)
        if not data and self._failure is not None:
            raise self._failure
        return data

    def close(self) -> None:
        self.closed += 1


@define
class Stored:
    """An object."""

    data: bytes
    modified: datetime
    options: dict[str, Any] = field(factory=dict)

    @property
    def etag(self) -> str:
        """Changes with the bytes."""
        return f'"{md5(self.data, usedforsecurity=False).hexdigest()}"'


class FakeS3:
    """A client with objects in memory.

    :param honours: whether a write may depend on an object's absence.
    :ivar calls: names of the methods called, in order.
    """

    def __init__(self, *, honours: bool = True) -> None:
        self.objects: dict[str, Stored] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.begun: dict[str, tuple[str, datetime]] = {}
        self.options: dict[str, dict[str, Any]] = {}
        self.streams: list[Stream] = []
        self.calls: list[str] = []
        self.script: dict[str, deque[Exception | Callable[..., Any]]] = defaultdict(deque)
        self.page_size = 1000
        self.is_closed = False
        self._honours = honours
        self._last = datetime.now(UTC)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(type(self), f"on_{name}").__get__(self)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            if self.script[name]:
                step = self.script[name].popleft()
                if isinstance(step, Exception):
                    raise step
                return step(*args, **kwargs)
            return method(*args, **kwargs)

        return call

    def now(self) -> datetime:
        """The time, which goes on with each call."""
        self._last = max(datetime.now(UTC), self._last + timedelta(microseconds=1))
        return self._last

    def put(self, key: str, data: bytes, **options: Any) -> None:
        """Have the object there, just so."""
        self.objects[key] = Stored(data, self.now(), options)

    def on_get_object(self, *, Key: str, Range: str = "", IfMatch: str = "", **_: str) -> Any:
        if Key not in self.objects:
            raise error("NoSuchKey", 404)
        found = self.objects[Key]
        if IfMatch not in {"", found.etag}:
            raise error("PreconditionFailed", 412)
        data = found.data
        answer: dict[str, Any] = {
            "LastModified": found.modified,
            "ETag": found.etag,
            "Metadata": found.options.get("Metadata", {}),
        }
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", Range):
            start, stop = int(match[1]), int(match[2] or len(data) - 1) + 1
            if start >= len(data):
                raise error("InvalidRange", 416)
            answer["ContentRange"] = f"bytes {start}-{min(stop, len(data)) - 1}/{len(data)}"
            data = data[start:stop]
        self.streams.append(Stream(data))
        return {**answer, "ContentLength": len(data), "Body": self.streams[-1]}

    def on_put_object(
        self, *, Key: str, Body: Any, IfNoneMatch: str = "", **options: Any
    ) -> dict[str, str]:
        if self._honours and IfNoneMatch and Key in self.objects:
            raise error("PreconditionFailed", 412)
        self.put(Key, Body if isinstance(Body, bytes) else Body.read(), **options)
        return {"ETag": self.objects[Key].etag}

    def on_delete_object(self, *, Key: str, **_: str) -> dict[str, str]:
        self.objects.pop(Key, None)
        return {}

    def _source(self, source: dict[str, str], etag: str) -> Stored:
        if source["Key"] not in self.objects:
            raise error("NoSuchKey", 404)
        found = self.objects[source["Key"]]
        if etag not in {"", found.etag}:
            raise error("PreconditionFailed", 412)
        return found

    def on_copy_object(
        self, *, Key: str, CopySource: dict[str, str], CopySourceIfMatch: str = "", **options: Any
    ) -> dict[str, Any]:
        self.put(Key, self._source(CopySource, CopySourceIfMatch).data, **options)
        return {"CopyObjectResult": {"ETag": self.objects[Key].etag}}

    def on_list_objects_v2(
        self, *, Prefix: str, ContinuationToken: str = "", **_: Any
    ) -> dict[str, Any]:
        found = sorted(k for k in self.objects if k.startswith(Prefix) and k > ContinuationToken)
        page = found[: self.page_size]
        answer: dict[str, Any] = {
            "IsTruncated": len(page) < len(found),
            "Contents": [
                {
                    "Key": key,
                    "Size": len(self.objects[key].data),
                    "LastModified": self.objects[key].modified,
                    "ETag": self.objects[key].etag,
                }
                for key in page
            ],
        }
        if answer["IsTruncated"]:
            answer["NextContinuationToken"] = page[-1]
        return answer

    def on_create_multipart_upload(self, *, Key: str, **options: Any) -> dict[str, str]:
        upload = f"upload {len(self.begun)}"
        self.begun[upload] = (Key, self.now())
        self.parts[upload] = {}
        self.options[upload] = options
        return {"UploadId": upload}

    def on_upload_part(
        self, *, UploadId: str, PartNumber: int, Body: Any, **_: Any
    ) -> dict[str, str]:
        self.parts[UploadId][PartNumber] = Body.read()
        return {"ETag": f"tag {PartNumber}"}

    def on_upload_part_copy(
        self,
        *,
        UploadId: str,
        PartNumber: int,
        CopySource: dict[str, str],
        CopySourceRange: str,
        CopySourceIfMatch: str = "",
        **_: Any,
    ) -> dict[str, Any]:
        first, last = CopySourceRange.removeprefix("bytes=").split("-")
        source = self._source(CopySource, CopySourceIfMatch)
        data = source.data[int(first) : int(last) + 1]
        self.parts[UploadId][PartNumber] = data
        return {"CopyPartResult": {"ETag": f"tag {PartNumber}"}}

    def on_complete_multipart_upload(
        self, *, Key: str, UploadId: str, MultipartUpload: dict[str, Any], **_: Any
    ) -> dict[str, str]:
        parts = self.parts.pop(UploadId)
        del self.begun[UploadId]
        data = b"".join(parts[part["PartNumber"]] for part in MultipartUpload["Parts"])
        self.put(Key, data, **self.options.pop(UploadId))
        return {"ETag": self.objects[Key].etag}

    def on_abort_multipart_upload(self, *, UploadId: str, **_: Any) -> dict[str, str]:
        del self.parts[UploadId]
        del self.begun[UploadId]
        return {}

    def on_list_multipart_uploads(self, *, Prefix: str, **_: Any) -> dict[str, Any]:
        return {
            "Uploads": [
                {"Key": key, "UploadId": upload, "Initiated": begun}
                for upload, (key, begun) in self.begun.items()
                if key.startswith(Prefix)
            ]
        }

    def on_generate_presigned_url(
        self, method: str, *, Params: dict[str, str], ExpiresIn: int
    ) -> str:
        return f"https://s3.example/{Params['Key']}?for={method}&seconds={ExpiresIn}"

    def on_close(self) -> None:
        self.is_closed = True
