"""How often an upload asks the catalog: each question costs a part of the whole upload."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from ncps.errors import Malformed, NotFound
from tests.unit.cache.write.rig import CLIENT, UploadCase, upload

QUESTIONS = ("nar", "stored_file", "narinfo", "narinfos_of")


class QuestionTests(UploadCase):
    def setUp(self) -> None:
        super().setUp()
        self.asked: Counter[str] = Counter()
        for port, names in (
            (self.catalog, QUESTIONS),
            (self.world.removals, ("is_blocked", "is_blocked_file")),
        ):
            for name in names:
                self.patch(port, name, self.counting(name, getattr(port, name)))

    def counting(self, name: str, ask: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            self.asked[name] += 1
            return ask(*args)

        return counted

    def count(self) -> dict[str, int]:
        """Return the questions since the last call."""
        asked, self.asked = self.asked, Counter()
        return dict(asked)

    def test_a_new_path(self) -> None:
        """Nix asks for path and NAR, and uploads the NAR and then the narinfo."""
        one = upload("new", "zstd", 2_000)
        self.refused(self.uploads.narinfo(one.digest), NotFound)
        self.assertEqual({"narinfo": 1}, self.count())
        self.refused(self.uploads.stat_nar(one.conventional), NotFound)
        self.assertEqual({"nar": 1, "stored_file": 1}, self.count())
        self.put_nar(one)
        self.assertEqual({"is_blocked_file": 1, "nar": 2, "stored_file": 1}, self.count())
        self.put_narinfo(one)
        self.assertEqual({"is_blocked": 1, "nar": 1, "narinfo": 1}, self.count())

    def test_a_nar_that_was_removed_before_its_narinfo(self) -> None:
        """The client must send the NAR again, as if this process did not remember it."""
        one = upload("gone", "zstd", 2_000)
        self.put_nar(one)
        self.get(self.catalog.mark_missing(one.conventional))
        self.get(self.store.delete(one.conventional))
        self.assertIn("upload the NAR before", self.refuse_narinfo(one, Malformed))
        self.put(one)
        self.assertIn(one.digest, self.catalog.entries)

    def test_what_is_remembered_vouches_for_nothing(self) -> None:
        """A narinfo that contradicts the NAR is refused, with and without the memory of it."""
        one, other = upload("one", "zstd", 2_000), upload("other", "zstd", 3_000)
        self.put_nar(one)
        text = one.narinfo.render().replace(
            str(one.narinfo.nar_hash).encode(), str(other.narinfo.nar_hash).encode()
        )
        for _ in range(2):
            self.refused(self.uploads.put_narinfo(one.digest, text, CLIENT), Malformed)
        self.assertNotIn(one.digest, self.catalog.entries)
