"""Uploads: the size of parts, damaged files, and remains of dead processes."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from ncps.errors import Corrupt, NcpsError, Refused, StorageFull, Unavailable
from ncps.nix.hashes import sha256_of
from ncps.storage.s3.bucket import connect
from ncps.storage.s3.parts import MOST_PARTS, part_size
from ncps.storage.s3.probe import ABANDONED_AFTER, probe_blocking, sweep_blocking
from ncps.storage.s3.upload import LARGEST_OBJECT, Upload, UploadOptions
from tests.contract.samples import spooled
from tests.fakes.s3 import FakeS3, error
from tests.unit.storage.s3.rig import PART, BucketCase, access

DATA = bytes(range(256)) * 43_000  # two parts and a bit


class PartTests(SynchronousTestCase):
    def test_parts_grow_with_the_file(self) -> None:
        """Parts grow if there would be more than 10,000; five tebibytes can be sent."""
        self.assertEqual(part_size(1, 16 << 20), 16 << 20)
        self.assertEqual(part_size(MOST_PARTS * (16 << 20), 16 << 20), 16 << 20)
        for size in (MOST_PARTS * (16 << 20) + 1, LARGEST_OBJECT - 1, LARGEST_OBJECT):
            part = part_size(size, 16 << 20)
            self.assertLessEqual(-(-size // part), MOST_PARTS)
            self.assertTrue(16 << 20 < part <= 5 << 30)
            self.assertEqual(part % (1 << 20), 0)


class UploadTests(BucketCase):
    def upload(self, data: bytes = DATA, **changes: Any) -> Upload:
        source = evolve(spooled(self.sources, data), **changes)
        return Upload(
            bucket=self.bucket,
            key="k",
            source=source,
            options=UploadOptions(PART),
            given_up=Event(),
        )

    def test_a_small_file_goes_in_one_request(self) -> None:
        """A small file is sent in one request, with the MD5 of its bytes."""
        self.upload(b"some bytes").run_blocking()
        stored = self.client.objects["p/k"]
        self.assertEqual(stored.data, b"some bytes")
        digest = hashlib.md5(b"some bytes").digest()
        self.assertEqual(stored.options["ContentMD5"], base64.b64encode(digest).decode())

    def test_a_large_file_goes_in_parts(self) -> None:
        """Each part has the MD5 of its bytes, and can be read again for a retry."""
        sent = []
        put = self.client.on_upload_part

        def send_twice(*, Body: io.RawIOBase, ContentMD5: str, **given: Any) -> Any:  # noqa: N803
            size = Body.seek(0, os.SEEK_END)
            Body.seek(-1, os.SEEK_CUR)
            last = Body.read()
            Body.seek(0)
            data = Body.read()
            assert data is not None
            self.assertEqual((len(data), data[-1:]), (size, last))
            self.assertEqual(Body.read(5), b"")
            self.assertEqual(base64.b64encode(hashlib.md5(data).digest()).decode(), ContentMD5)
            sent.append(size)
            Body.seek(0)
            return put(Body=Body, **given)

        self.client.script["upload_part"].extend([send_twice] * 3)
        self.upload().run_blocking()
        self.assertEqual(self.client.objects["p/k"].data, DATA)
        self.assertEqual(sent, [PART, PART, len(DATA) - 2 * PART])
        self.assertEqual(self.client.begun, {})

    def test_a_damaged_spool_is_never_published(self) -> None:
        """A file with other bytes is never published, in one request or in parts."""
        for data in (b"some bytes", DATA):
            upload = self.upload(data, sha256=sha256_of(b"others"))
            self.assertRaises(Corrupt, upload.run_blocking)
            self.assertEqual((self.client.objects, self.client.begun), ({}, {}))

    def test_an_upload_that_fails_leaves_no_parts(self) -> None:
        """A failed upload is aborted; its error is raised, even if the abort fails."""
        for step in ("upload_part", "complete_multipart_upload"):
            self.client.script[step].append(error("SlowDown", 503))
            self.assertRaises(Unavailable, self.upload().run_blocking)
            self.assertEqual((self.client.objects, self.client.begun), ({}, {}))
        self.client.script["upload_part"].append(error("QuotaExceeded", 403))
        self.client.script["abort_multipart_upload"].append(error("SlowDown", 503))
        self.assertRaises(StorageFull, self.upload().run_blocking)

    def test_an_upload_that_was_given_up_ends(self) -> None:
        """A cancelled upload ends before its next part, and leaves none."""
        upload = self.upload()
        upload.given_up.set()
        self.assertRaises(Unavailable, upload.run_blocking)
        self.assertEqual((self.client.objects, self.client.begun), ({}, {}))

    def test_more_than_s3_takes_is_refused_at_once(self) -> None:
        """A file that is too large is refused before the first byte."""
        self.assertRaises(StorageFull, self.upload(size=LARGEST_OBJECT + 1).run_blocking)
        self.assertEqual(self.client.calls, [])


class ProbeTests(BucketCase):
    def refused(self, kind: type[NcpsError] = Refused) -> str:
        return str(self.assertRaises(kind, probe_blocking, self.bucket, {}))

    def test_a_good_bucket_is_left_as_it_was(self) -> None:
        """The probe writes with the options of NARs, and removes its object."""
        put = self.client.on_put_object
        seen = {}

        def look(**given: Any) -> Any:
            seen.update(given)
            return put(**given)

        self.client.script["put_object"].append(look)
        probe_blocking(self.bucket, {"StorageClass": "X"})
        self.assertEqual(self.client.objects, {})
        self.assertEqual(seen["StorageClass"], "X")

    def test_missing_privileges_are_named(self) -> None:
        """The error names a missing privilege; a full bucket can still be read."""
        for method in ("put_object", "delete_object"):
            self.client.script[method].append(error("AccessDenied", 403))
            self.assertIn("s3:PutObject", self.refused())
        self.client.script["put_object"].append(error("QuotaExceeded", 403))
        self.refused(StorageFull)
        self.client.script["list_objects_v2"].append(error("SlowDown", 503))
        self.refused(Unavailable)

    def test_absence_must_be_reported(self) -> None:
        """Without permission to list, AWS never reports absence, so the bucket is refused."""
        read = self.client.on_get_object
        self.client.script["get_object"].extend([read, error("AccessDenied", 403)])
        self.assertIn("s3:ListBucket", self.refused())

    def test_a_server_that_forgets_or_remembers_is_refused(self) -> None:
        """The probe refuses a server that returns other bytes, or keeps removed objects."""
        self.client.script["put_object"].append(lambda **_: {})
        self.assertIn("the bytes read differ", self.refused())
        self.client.script["delete_object"].append(lambda **_: {})
        self.assertIn("still there", self.refused())

    def test_old_parts_are_swept(self) -> None:
        """Old uploads of ncps are aborted, but not those of today or of other programs."""
        old = datetime.now(UTC) - ABANDONED_AFTER - timedelta(minutes=1)
        for upload, key, begun in (
            ("old", "p/store/nar/0/00/x.nar", old),
            ("new", "p/store/nar/0/00/y.nar", datetime.now(UTC)),
            ("other", "q/store/nar/0/00/x.nar", old),
        ):
            self.client.begun[upload] = (key, begun)
            self.client.parts[upload] = {}
        self.assertEqual(sweep_blocking(self.bucket), 1)
        self.assertEqual(set(self.client.begun), {"new", "other"})

    def test_old_probes_are_swept(self) -> None:
        """Old probes are removed, but not those of today."""
        for key in ("p/store/probe/old", "p/store/probe/new", "p/store/nar/0/00/x.nar"):
            self.client.put(key, b"x")
            self.client.objects[key].modified -= ABANDONED_AFTER + timedelta(minutes=1)
        self.client.put("p/store/probe/new", b"x")
        self.assertEqual(sweep_blocking(self.bucket), 1)
        self.assertEqual({"p/store/probe/new", "p/store/nar/0/00/x.nar"}, set(self.client.objects))

    def test_a_server_that_does_not_list_parts_is_fine(self) -> None:
        """A server that does not list uploads is accepted."""
        self.client.script["list_multipart_uploads"].append(error("NotImplemented", 501))
        self.assertEqual(sweep_blocking(self.bucket), 0)


class ClientTests(SynchronousTestCase):
    def test_a_client_is_made_as_set(self) -> None:
        """To make a client sends no request and shows no secret."""
        way = access(
            endpoint="http://127.0.0.1:9",
            region="eu",
            access_key_id="me",
            secret_access_key="hunter2",
            session_token="hunter2",
            force_path_style=True,
        )
        client = connect(way)
        self.addCleanup(client.close)
        self.assertNotIn("hunter2", repr(way))
        self.assertEqual(client.meta.endpoint_url, "http://127.0.0.1:9")
        self.assertEqual(client.meta.region_name, "eu")
        config = client.meta.config
        self.assertEqual(config.request_checksum_calculation, "when_required")
        self.assertEqual(config.response_checksum_validation, "when_required")
        self.assertEqual(config.retries["total_max_attempts"], 1)

    def test_closing_closes_the_client(self) -> None:
        """Closing the bucket closes the idle connections."""
        case = BucketCase()
        case.connect(FakeS3())
        case.bucket.close()
        self.assertTrue(case.client.is_closed)
