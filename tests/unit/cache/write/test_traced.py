"""Spans of uploads: each has a tree, with outcome and bytes, and no words of clients."""

from __future__ import annotations

from typing import Any

from ncps.cache.cluster import lease_of
from ncps.cache.write.verbs import UploadOutcome
from ncps.errors import Malformed, NcpsError, Unavailable
from ncps.observe.tracing.spans import within
from tests.fakes.spans import MemorySpan
from tests.unit.cache.write.rig import CLIENT, UploadCase, chunks_of, upload

SECRET = "xyzzy-6f1c"


class TracedTests(UploadCase):
    def setUp(self) -> None:
        super().setUp()
        self.make()

    def traced(self, upload: Any) -> MemorySpan:
        """Upload something in a trace; return its span, which has ended."""
        root = MemorySpan("PUT")

        async def request() -> UploadOutcome | None:
            with within(root):
                try:
                    return await upload  # type: ignore[no-any-return]
                except NcpsError:
                    return None

        self.get(request())
        (found,) = root.children
        self.assertTrue(found.has_ended)
        return found

    def put_both(self, one: Any, text: bytes = b"") -> tuple[MemorySpan, MemorySpan]:
        size = len(one.file)
        nar = self.traced(self.uploads.put_nar(one.conventional, chunks_of(one.file), size))
        text = text or one.narinfo.render()
        return nar, self.traced(self.uploads.put_narinfo(one.digest, text, CLIENT))

    def test_an_upload_is_a_tree(self) -> None:
        """The publication is below the upload of the NAR; the second upload publishes nothing."""
        one = upload()
        nar, narinfo = self.put_both(one)
        self.assertEqual(("upload.nar", "upload.narinfo"), (nar.name, narinfo.name))
        facts = {
            "ncps.hash": one.conventional.file_name,
            "ncps.bytes": len(one.file),
            "ncps.outcome": "stored",
        }
        self.assertEqual(facts, nar.facts)
        self.assertEqual({"ncps.hash": one.digest, "ncps.outcome": "stored"}, narinfo.facts)
        (publication,) = nar.find("nar.publish")
        self.assertTrue(publication.has_ended)
        nar, narinfo = self.put_both(one)
        self.assertEqual(
            ("known", "known"), (nar.facts["ncps.outcome"], narinfo.facts["ncps.outcome"])
        )
        self.assertEqual([], nar.children)

    def test_an_upload_that_joins_another_has_a_link_to_it(self) -> None:
        """Two clients that upload one NAR at the same time share one publication."""
        one = upload()
        lease = self.get(self.leases.take(lease_of(one.conventional)))
        first, second, later = (MemorySpan("PUT") for _ in range(3))
        key, size = one.conventional, len(one.file)
        uploads = []
        for root in (first, second):
            with within(root):
                putting = self.uploads.put_nar(key, chunks_of(one.file), size)
                uploads.append(self.start(putting))
        self.get(lease.release())
        for each in uploads:
            self.assertIs(UploadOutcome.STORED, self.successResultOf(each))
        (work,), (joined,) = first.children, second.children
        self.assertEqual(1, len(work.find("nar.publish")))
        self.assertEqual(([], [work]), (joined.find("nar.publish"), joined.links))
        self.assertEqual([], work.links)
        with within(later):
            self.put_nar(one)
        self.assertEqual([], later.children[0].links)

    def test_a_refusal_keeps_its_words_to_itself(self) -> None:
        """A narinfo may hold a secret by mistake, and the error quotes it."""
        one = upload()
        text = one.narinfo.render().replace(b"NarSize: ", b"NarSize: " + SECRET.encode())
        _, narinfo = self.put_both(one, text)
        error = self.refused(self.uploads.put_narinfo(one.digest, text, CLIENT), Malformed)
        self.assertIn(SECRET, str(error))
        self.assertEqual("refused", narinfo.facts["ncps.outcome"])
        self.assertNotIn(SECRET, str((narinfo.facts, narinfo.events, narinfo.errors)))

    def test_a_failure_is_an_error(self) -> None:
        """The store is away: the span says so."""
        self.store.failing = Unavailable("the store is away")
        nar, _ = self.put_both(upload())
        self.assertEqual(
            ("failed", "Unavailable"), (nar.facts["ncps.outcome"], nar.facts["error.type"])
        )
        self.assertIn("the store is away", nar.errors)
