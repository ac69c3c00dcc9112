"""Copies within a bucket whose server refuses to copy."""

from __future__ import annotations

import os

from ncps.errors import Conflict, NotFound, Refused
from ncps.storage.s3 import copy
from ncps.storage.s3.copy import copy_blocking
from ncps.storage.s3.upload import UploadOptions
from tests.fakes.s3 import error
from tests.unit.storage.s3.rig import PART, BucketCase

MIB = 1024**2


class CarryTests(BucketCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(copy, "PIECE", MIB)
        self.data = os.urandom(2 * MIB + 17)

    def copy(self, size: int, *, largest: int = 10 * MIB) -> None:
        call = "copy_object" if size <= largest else "upload_part_copy"
        self.client.script[call].append(error("NotImplemented", 501))
        self.client.put("p/here", self.data[:size])
        facts = self.bucket.stat("here")
        assert facts is not None
        copy_blocking(
            self.bucket, facts, "there", UploadOptions(PART, {"StorageClass": "X"}, largest)
        )

    def test_the_bytes_come_by_here(self) -> None:
        """This machine copies the bytes, in one piece or in several."""
        for size, largest in (
            (0, 10 * MIB),
            (5, 10 * MIB),
            (MIB, 10 * MIB),
            (2 * MIB + 17, 10 * MIB),
            (2 * MIB + 17, MIB),
        ):
            self.copy(size, largest=largest)
            self.assertEqual(self.client.objects["p/there"].data, self.data[:size])
            self.assertEqual(self.client.begun, {})
            self.assertTrue(all(stream.closed for stream in self.client.streams))

    def test_another_object_is_never_spliced_in(self) -> None:
        """An object that changes during the copy is not copied, and the upload is aborted."""
        self.client.script["get_object"] += [
            self.client.on_get_object,
            self.client.on_get_object,
            error("PreconditionFailed", 412),
        ]
        self.assertRaises(Conflict, self.copy, len(self.data))
        self.assertNotIn("p/there", self.client.objects)
        self.assertEqual(self.client.begun, {})

    def test_an_object_that_disappears_is_absent(self) -> None:
        """If the object disappears, the caller gets NotFound."""
        self.client.script["get_object"] += [self.client.on_get_object, error("NoSuchKey", 404)]
        self.assertRaises(NotFound, self.copy, 5)

    def test_a_copy_that_cannot_be_written(self) -> None:
        """If the copy cannot be written, the error gives the reason."""
        self.client.script["put_object"].append(error("NotImplemented", 501))
        self.assertRaises(Refused, self.copy, 5)
