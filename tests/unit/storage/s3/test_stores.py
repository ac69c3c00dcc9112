"""The stores in a bucket: number of requests, cancelled callers, and elections.

The contracts run on the fake, too, to show that the fake behaves like a bucket.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import CancelledError

from ncps.errors import Busy, NotFound, StorageFull, Unavailable
from ncps.ports import SetAside
from ncps.storage import keys
from ncps.storage.s3.blobs import Redirect
from ncps.storage.s3.election import SETTLE_S
from ncps.storage.stores import BlobExtraStore, BlobRealisationStore
from tests.contract.blobs import BlobsContract
from tests.contract.body import content
from tests.contract.config_store import ConfigStoreContract
from tests.contract.extra_store import ExtraStoreContract
from tests.contract.nar_store import NarStoreContract
from tests.contract.narinfo_store import NarInfoStoreContract
from tests.contract.realisations import RealisationStoreContract
from tests.contract.running import start, synchronously
from tests.contract.samples import digest_of, key_of, spooled
from tests.fakes.s3 import FakeS3, error
from tests.fakes.threads import HeldThreads
from tests.unit.storage.s3.rig import BucketCase

KEY = key_of(1)
WHERE = f"p/{keys.nar_key(KEY)}"


@synchronously
class S3BlobsTests(BlobsContract, BucketCase):
    def setUp(self) -> None:
        super().setUp()
        self.blobs = self.new_blobs()


@synchronously
class NarStoreTests(NarStoreContract, BucketCase):
    def setUp(self) -> None:
        super().setUp()
        self.client.page_size = 7
        self.store = self.nars()


@synchronously
class ExtraStoreTests(ExtraStoreContract, BucketCase):
    def setUp(self) -> None:
        super().setUp()
        self.client.page_size = 1
        self.store = BlobExtraStore(self.new_blobs())


@synchronously
class NarInfoStoreTests(NarInfoStoreContract, BucketCase):
    def setUp(self) -> None:
        super().setUp()
        self.client.page_size = 7
        self.store = self.narinfos()


@synchronously
class RealisationStoreTests(RealisationStoreContract, BucketCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = BlobRealisationStore(self.new_blobs())


@synchronously
class ConfigStoreTests(ConfigStoreContract, BucketCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = self.config()


class RequestTests(BucketCase):
    """The requests of each method, and their options."""

    def run_calls(self, coroutine: Any) -> list[str]:
        self.client.calls.clear()
        self.successResultOf(start(coroutine))
        return self.client.calls

    def test_a_hit_is_one_request(self) -> None:
        """A hit is one request, whole or in part, checked or not."""
        store = self.nars()
        self.client.put(WHERE, b"some bytes")

        async def read(*span: int) -> None:
            await content(await store.open(KEY, *span, size=10))

        for span in ((), (2,), (2, 5), (0, 10)):
            self.assertEqual(self.run_calls(read(*span)), ["get_object"])
        self.assertTrue(all(stream.closed for stream in self.client.streams))

    def test_an_empty_part_moves_one_byte(self) -> None:
        """An empty range reads one byte, for HEAD."""
        self.client.put(WHERE, b"some bytes")
        body = self.successResultOf(start(self.nars().open(KEY, 0, 0, size=10)))
        self.assertEqual((body.size, self.client.calls), (0, ["get_object"]))
        self.assertEqual([stream.closed for stream in self.client.streams], [1])

    def test_absence_is_one_request(self) -> None:
        """An absent object needs one request."""
        store = self.nars()
        self.assertEqual(self.run_calls(store.stat(KEY)), ["get_object"])
        self.failureResultOf(start(store.open(KEY)), NotFound)
        self.client.put(WHERE, b"")
        self.assertEqual(self.run_calls(store.stat(KEY)), ["get_object"] * 2)

    def test_only_a_missing_key_is_absence(self) -> None:
        """A missing bucket, a 404 of a proxy, and a refusal are no absence."""
        for code, status in (("NoSuchBucket", 404), ("404", 404), ("AccessDenied", 403)):
            for verb in (self.nars().stat(KEY), self.nars().open(KEY), self.nars().delete(KEY)):
                self.client.script["get_object"].append(error(code, status))
                self.failureResultOf(start(verb), Unavailable)
            self.client.script["get_object"].append(error(code, status))
            self.failureResultOf(start(self.narinfos().get(digest_of(1))), Unavailable)

    def test_a_server_that_ignores_ranges_is_not_believed(self) -> None:
        """If a server ignores ranges, its bytes are not used."""
        self.client.put(WHERE, b"some bytes")
        whole = self.client.on_get_object

        def ignore_range(**given: Any) -> Any:
            del given["Range"]
            return whole(**given)

        self.client.script["get_object"].append(ignore_range)
        self.failureResultOf(start(self.nars().open(KEY, 5)), Unavailable)
        self.assertEqual([stream.closed for stream in self.client.streams], [1])

    def test_an_object_that_is_not_there_after_writing_is_an_error(self) -> None:
        """An object that cannot be read after the writing is an error."""
        self.client.script["put_object"].append(lambda **_: {})
        source = spooled(self.sources, b"some bytes")
        self.failureResultOf(start(self.nars().publish(KEY, source)), Unavailable)
        self.assertTrue(source.path.exists())

    def test_properties_of_objects(self) -> None:
        """Objects have type, hash, storage class and encryption; the class only for NARs."""
        self.connect(FakeS3(), encryption="aws:kms", kms_key_id="arn")
        store = self.nars(options={"StorageClass": "STANDARD_IA"})
        source = spooled(self.sources, b"some bytes")
        self.successResultOf(start(store.publish(KEY, source)))
        at_rest = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "arn"}
        options = self.client.objects[WHERE].options
        self.assertEqual(options["Metadata"], {"sha256": source.sha256.digest.hex()})
        self.assertEqual(options["ContentType"], "application/x-nix-nar")
        self.assertEqual(options["StorageClass"], "STANDARD_IA")
        self.assertLessEqual(at_rest.items(), options.items())
        self.successResultOf(start(self.narinfos().put(digest_of(1), b"text")))
        options = self.client.objects[f"p/{keys.narinfo_key(digest_of(1))}"].options
        self.assertLessEqual(at_rest.items(), options.items())
        self.assertNotIn("StorageClass", options)

    def test_a_large_object_is_set_aside_in_parts(self) -> None:
        """A large object is set aside in parts; one that disappears counts as absent."""
        self.client.put(WHERE, b"0123456789")
        store = self.nars(largest_copy=4, now=lambda: 5.0)
        self.assertTrue(self.successResultOf(start(store.quarantine(KEY))))
        ((aside, stored),) = self.client.objects.items()
        self.assertTrue(aside.startswith(f"p/{keys.quarantine_key(KEY, '5000000')}-"), aside)
        self.assertEqual(stored.data, b"0123456789")
        self.client.put(WHERE, b"0123456789")
        self.client.script["upload_part_copy"].append(error("SlowDown", 503))
        self.failureResultOf(start(store.quarantine(KEY)), Unavailable)
        self.assertEqual(self.client.begun, {})
        self.client.script["upload_part_copy"].append(error("NoSuchKey", 404))
        self.assertFalse(self.successResultOf(start(store.quarantine(KEY))))

    def test_objects_set_aside_at_the_same_time_get_different_keys(self) -> None:
        """Objects that are set aside in the same microsecond get different keys."""
        for data in (b"one", b"two"):
            self.client.put(WHERE, data)
            self.successResultOf(start(self.nars(now=lambda: 5.0).quarantine(KEY)))
        self.assertEqual({o.data for o in self.client.objects.values()}, {b"one", b"two"})

    def test_without_room_for_a_copy_the_wrong_bytes_go(self) -> None:
        """Without room for a copy, wrong bytes are replaced nevertheless."""
        self.client.put(WHERE, b"wrong")
        store, told = self.nars(), []
        store.watch(lambda: told.append(1))
        self.client.script["copy_object"].append(error("QuotaExceeded", 403))
        source = spooled(self.sources, b"some bytes")
        self.successResultOf(start(store.publish(KEY, source)))
        self.assertEqual(
            {k: o.data for k, o in self.client.objects.items()}, {WHERE: b"some bytes"}
        )
        self.assertEqual([], told)

    def test_nothing_of_another_make_is_taken_for_set_aside(self) -> None:
        """Other names and deeper keys do not belong to the quarantine."""
        ours = keys.quarantine_key(KEY, "17-0123456789abcdef")
        for key in (ours, f"{ours}~", f"{keys.QUARANTINE}/README", f"{keys.QUARANTINE}/x/{ours}"):
            self.client.put(f"p/{key}", b"x")

        async def found() -> list[str]:
            store = self.nars()
            return [aside.mark async for aside in store.walk_quarantine()]

        self.assertEqual(self.successResultOf(start(found())), ["17-0123456789abcdef"])

    def test_discarding_is_one_request(self) -> None:
        """Discarding is one request, and a refusal is an error."""
        store = self.nars()
        aside = SetAside(key=KEY, mark="17", size=1, since=datetime.now(UTC))
        self.assertEqual(self.run_calls(store.discard(aside)), ["delete_object"])
        self.client.script["delete_object"].append(error("AccessDenied", 403))
        self.failureResultOf(start(store.discard(aside)), StorageFull)
        self.client.script["delete_object"].append(error("SlowDown", 503))
        self.failureResultOf(start(store.discard(aside)), Unavailable)

    def test_a_location_is_given_for_large_objects(self) -> None:
        """Large objects have a location for the set time; without the setting none has."""
        store = self.nars(redirect=Redirect(min_size=100, ttl_s=60.0))
        self.assertIs(self.successResultOf(start(store.location(KEY, size=99))), None)
        self.assertEqual(
            self.successResultOf(start(store.location(KEY, size=100))),
            f"https://s3.example/{WHERE}?for=get_object&seconds=60",
        )
        self.assertIs(self.successResultOf(start(self.nars().location(KEY, size=10**9))), None)


class LineTests(BucketCase):
    """Waiting and cancelled callers."""

    def setUp(self) -> None:
        super().setUp()
        self.held = self.threads = HeldThreads()
        self.client.put(WHERE, b"some bytes")

    def test_requests_wait_in_a_bounded_line(self) -> None:
        """Four requests run and four wait; the ninth is Busy, and one that waits too long."""
        store = self.nars()
        asked = [start(store.stat(KEY)) for _ in range(8)]
        self.failureResultOf(start(store.stat(KEY)), Busy)
        self.assertEqual(len(self.held), 4)
        self.clock.advance(10)
        for waiting in asked[4:]:
            self.failureResultOf(waiting, Busy)
        self.held.release()
        for running in asked[:4]:
            self.assertEqual(self.successResultOf(running).size, 10)
        self.assertEqual(self.slots.free, 4)

    def test_uploads_leave_threads_to_reads(self) -> None:
        """Uploads have their own queue."""
        store = self.nars()
        uploads = [
            start(store.publish(KEY, spooled(self.sources, b"some bytes"))) for _ in range(3)
        ]
        read = start(store.stat(KEY))
        self.assertEqual(len(self.held), 2)
        self.held.release()
        for finished in (*uploads, read):
            self.assertEqual(self.successResultOf(finished).size, 10)

    def test_a_cancelled_caller_frees_no_slot_while_its_thread_is_busy(self) -> None:
        """A cancelled caller frees no slot while its thread is busy."""
        store = self.nars()
        for _ in range(4):
            leaving = start(store.stat(KEY))
            leaving.cancel()
            self.failureResultOf(leaving, CancelledError)
        staying = start(store.stat(KEY))
        self.assertEqual(len(self.held), 4)
        self.held.release()
        self.assertEqual(self.successResultOf(staying).size, 10)
        self.assertEqual(self.slots.free, 4)

    def test_an_object_opened_for_a_cancelled_caller_is_closed(self) -> None:
        """An object that was opened for a cancelled caller is closed."""
        self.client.put(WHERE, b"x" * 1_000_000)
        store = self.nars()
        leaving = start(store.open(KEY))
        leaving.cancel()
        self.failureResultOf(leaving, CancelledError)
        self.held.release()
        self.assertEqual([stream.closed for stream in self.client.streams], [1])

    def test_an_error_for_a_cancelled_caller_is_dropped(self) -> None:
        """An error for a cancelled caller is dropped."""
        self.client.script["get_object"].append(error("SlowDown", 503))
        leaving = start(self.nars().open(KEY))
        leaving.cancel()
        self.failureResultOf(leaving, CancelledError)
        self.held.release()
        self.assertEqual(self.slots.free, 4)

    def test_a_cancelled_upload_is_given_up_between_parts(self) -> None:
        """After a cancellation the thread sends no more parts, and aborts the upload."""
        self.client.objects.clear()
        source = spooled(self.sources, b"x" * (self.client.page_size + 11 * 1024**2))
        uploading = start(self.nars().publish(KEY, source))
        put = self.client.on_upload_part

        def put_and_cancel(**given: Any) -> Any:
            uploading.cancel()
            return put(**given)

        self.client.script["upload_part"].append(put_and_cancel)
        self.held.release()
        self.failureResultOf(uploading, CancelledError)
        self.assertEqual(self.client.calls.count("upload_part"), 1)
        self.assertEqual((self.client.begun, self.client.objects), ({}, {}))
        self.assertEqual(self.line.free, 1)


class CreationTests(BucketCase):
    """A value never changes, with `If-None-Match` and without."""

    def test_a_creator_beaten_at_the_last_moment_takes_the_winner(self) -> None:
        """If another creator comes between the look and the write, its value wins."""
        store = self.config()
        write = self.client.on_put_object

        def beaten(**given: Any) -> Any:
            self.client.put("p/config/cache.key", b"winner")
            return write(**given)

        self.client.script["put_object"].extend([write, write, beaten])
        self.assertEqual(self.successResultOf(start(store.create("cache.key", b"x"))), b"winner")

    def test_a_tie_is_tried_again(self) -> None:
        """If the server refuses two creators at the same time, they try again, but not for ever."""
        store = self.config()
        tie = error("ConditionalRequestConflict", 409)
        write = self.client.on_put_object
        self.client.script["put_object"].extend([write, write, tie, tie])
        self.assertEqual(self.successResultOf(start(store.create("cache.key", b"x"))), b"x")
        self.client.script["put_object"].extend([write, write, *[tie] * 5])
        self.failureResultOf(start(store.create("other", b"x")), Unavailable)

    def test_without_help_creators_elect(self) -> None:
        """After `SETTLE_S` every creator finds the same winner, the earliest candidate."""
        for refusal in (None, error("NotImplemented", 501)):
            self.connect(FakeS3(honours=False))
            if refusal is not None:
                put = self.client.on_put_object

                def refuse(put: Any = put, refusal: Exception = refusal, **given: Any) -> Any:
                    if "IfNoneMatch" in given:
                        raise refusal
                    return put(**given)

                self.client.script["put_object"].extend([refuse] * 30)
            stores = [self.config() for _ in range(3)]
            creating = []
            for number, store in enumerate(stores):
                creating.append(start(store.create("cache.key", b"%d" % number)))
                self.clock.advance(SETTLE_S / 4)
            for one in creating:
                self.assertNoResult(one)
            self.clock.advance(SETTLE_S)
            self.assertEqual([self.successResultOf(one) for one in creating], [b"0"] * 3)
            late = start(self.config().create("cache.key", b"late"))
            self.assertEqual(self.successResultOf(late), b"0")
            left = [key for key in self.client.objects if "candidates" in key]
            self.assertEqual(len(left), 1, "the winner stays")

    def test_candidates_of_several_pages_are_all_counted(self) -> None:
        """The earliest candidate is found on any page."""
        self.connect(FakeS3(honours=False))
        self.client.page_size = 2
        self.client.put("p/config/cache.key.candidates/zzz", b"first")
        creating = [start(self.config().create("cache.key", b"x")) for _ in range(5)]
        self.clock.advance(SETTLE_S)
        self.assertEqual([self.successResultOf(one) for one in creating], [b"first"] * 5)

    def test_candidates_that_disappear_are_an_error(self) -> None:
        """If the candidates disappear, the creator gets an error."""
        self.connect(FakeS3(honours=False))
        creating = start(self.config().create("cache.key", b"x"))
        self.client.objects.clear()
        self.clock.advance(SETTLE_S)
        self.failureResultOf(creating, Unavailable)

    def test_a_cancelled_election_leaves_no_timer(self) -> None:
        """A cancelled election leaves no timer."""
        self.connect(FakeS3(honours=False))
        creating = start(self.config().create("cache.key", b"x"))
        creating.cancel()
        self.failureResultOf(creating, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_server_that_refuses_to_write_counts_as_full(self) -> None:
        """If the server refuses to write, the store counts as full."""
        self.client.script["put_object"].append(error("AccessDenied", 403))
        self.failureResultOf(start(self.config().create("cache.key", b"x")), StorageFull)
