"""Objects in parts, which are sent one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from ncps.errors import NcpsError
from ncps.storage.s3.bucket import Bucket, Facts, tag_of
from ncps.storage.s3.errors import calling

MOST_PARTS: Final = 10_000
_MIB: Final = 1024**2


def part_size(size: int, wanted: int) -> int:
    """Return bytes per part: `wanted`, or more if that would make more than `MOST_PARTS` parts."""
    least = -(-size // MOST_PARTS)
    return max(wanted, -(-least // _MIB) * _MIB)


@contextmanager
def in_parts(bucket: Bucket, key: str, options: Mapping[str, Any]) -> Iterator[Parts]:
    """Begin an upload in parts; abort it if the block fails.

    Raises StorageFull if nothing may be written, Unavailable if it fails now.

    :param options: of the object, in S3's spelling.
    """
    with calling(bucket.name(key), writing=True):
        answer = bucket.client.create_multipart_upload(
            **bucket.at(key), **bucket.at_rest, **options
        )
    upload = str(answer["UploadId"])
    try:
        yield Parts(bucket, key, upload)
    except BaseException:
        with suppress(NcpsError):  # a later sweep aborts it
            bucket.abort(key, upload)
        raise


class Parts:
    """The parts of one upload.

    Every method raises StorageFull if nothing may be written, Unavailable if it fails now.
    """

    def __init__(self, bucket: Bucket, key: str, upload: str) -> None:
        self._bucket = bucket
        self._key = key
        self._upload = upload
        self._tags: list[str] = []

    @property
    def _place(self) -> dict[str, Any]:
        """The parameters that name the next part; parts are counted from 1."""
        at = self._bucket.at(self._key)
        return {**at, "UploadId": self._upload, "PartNumber": len(self._tags) + 1}

    def put(self, body: Any, md5: str) -> None:
        """Send the next part.

        :param body: a file that can be read again for another attempt.
        """
        with calling(self._bucket.name(self._key), writing=True):
            answer = self._bucket.client.upload_part(**self._place, Body=body, ContentMD5=md5)
        self._tags.append(str(answer["ETag"]))

    def copy(self, source: Facts, span: range) -> None:
        """Copy bytes of another object as the next part.

        Raises NotFound if that object is absent, Conflict if it has another tag.
        """
        with calling(self._bucket.name(self._key), writing=True):
            answer = self._bucket.client.upload_part_copy(
                **self._place,
                CopySource=self._bucket.at(source.key),
                CopySourceIfMatch=f'"{source.tag}"',
                CopySourceRange=f"bytes={span.start}-{span.stop - 1}",
            )
        self._tags.append(str(answer["CopyPartResult"]["ETag"]))

    def complete(self) -> str:
        """Make the object from its parts; return its tag, or "" where Ceph returns none."""
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(self._tags, 1)]
        with calling(self._bucket.name(self._key), writing=True):
            answer = self._bucket.client.complete_multipart_upload(
                **self._bucket.at(self._key),
                UploadId=self._upload,
                MultipartUpload={"Parts": parts},
            )
        return tag_of(answer)
