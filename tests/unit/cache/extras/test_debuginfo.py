"""Debug information: links, and the files with symbols."""

from __future__ import annotations

import re
from typing import Any

from attrs import evolve

from ncps.auth.principal import Principal, Scope
from ncps.cache.answers import Absent, Outcome
from ncps.cache.extras import debuginfo
from ncps.cache.write.uploads import CacheUploads
from ncps.codec import xz
from ncps.errors import (
    Busy,
    Conflict,
    Corrupt,
    Malformed,
    NotFound,
    Refused,
    StorageFull,
    Unavailable,
)
from ncps.nix.judge import Look
from ncps.nix.narurl import NarKey
from ncps.ports import ExtraKey
from tests.fakes.samples import Sample, sample
from tests.nars import Tree
from tests.unit.cache.extras.rig import BUILD_ID, LIB, MEMBER, SYMBOLS, TREE, ExtrasCase, packed
from tests.unit.cache.write.rig import UploadCase

FETCHED = ExtraKey("debuginfo", BUILD_ID)


def link_to(archive: str, member: str = MEMBER) -> bytes:
    return f'{{"archive":"{archive}","member":"{member}"}}'.encode()


class LinkTests(ExtrasCase):
    def link(self) -> tuple[bytes, str]:
        return self.get(self.read(self.extras.debug_link(BUILD_ID)))

    def test_link_of_an_upstream_names_our_nar(self) -> None:
        """An upstream's link gets a URL of ours, and is kept."""
        one = packed(TREE)
        self.origin.add(one)
        url = f"https://elsewhere.example/x/{one.conventional.file_name}"
        self.origin.texts[f"debuginfo/{BUILD_ID}"] = link_to(url)
        expected = link_to(f"../nar/{one.conventional.file_name}")
        self.assertEqual((expected, "miss"), self.link())
        self.assertEqual((expected, "hit"), self.link())
        self.assertEqual({FETCHED: expected}, self.kept.objects)

    def test_link_may_bear_the_name_that_nix_gives(self) -> None:
        """Nix writes `.debug` after the build ID, Hydra does not."""
        one = packed(TREE)
        self.origin.add(one)
        self.mirror.texts[f"debuginfo/{BUILD_ID}.debug"] = link_to(f"../{one.url}")
        self.assertEqual(link_to(f"../{one.url}"), self.link()[0])

    def test_link_to_nothing_is_not_given(self) -> None:
        """A link whose NAR no client can get is treated as absent, and is not kept."""
        one = packed(TREE)
        self.origin.texts[f"debuginfo/{BUILD_ID}"] = link_to(f"../{one.url}")
        self.refused(self.extras.debug_link(BUILD_ID), NotFound)
        self.assertEqual({}, self.kept.objects)

    def test_link_goes_with_its_nar(self) -> None:
        """A kept link is forgotten when no upstream has its NAR any more."""
        self.kept.objects[FETCHED] = link_to(f"../{packed(TREE).url}")
        self.refused(self.extras.debug_link(BUILD_ID), Absent)
        self.assertEqual({}, self.kept.objects)

    def test_link_stays_while_no_upstream_answers(self) -> None:
        """No link is dropped because an upstream is away."""
        self.kept.objects[FETCHED] = link_to(f"../{packed(TREE).url}")
        self.origin.is_away = self.mirror.is_away = True
        self.refused(self.extras.debug_link(BUILD_ID), Unavailable)
        self.assertIn(FETCHED, self.kept.objects)

    def test_an_invalid_link_is_absent(self) -> None:
        """Garbage, or an archive without a hash in its name, is treated as absent."""
        half = link_to(f"../{packed(TREE).url}", "\\ud800")  # of a character in UTF-16
        for text in (b"garbage", b"{}", link_to("../nar/some-uuid"), link_to(""), half):
            self.origin.texts[f"debuginfo/{BUILD_ID}"] = text
            error = self.refused(self.extras.debug_link(BUILD_ID), Absent)
            self.assertIs(Outcome.UNSURE, error.outcome)

    def test_absence_is_remembered(self) -> None:
        """gdb asks for very many build IDs that no cache has."""
        self.refused(self.extras.debug_link(BUILD_ID), Absent)
        asked = len(self.origin.log)
        error = self.refused(self.extras.debug_link(BUILD_ID), Absent)
        self.assertIs(Outcome.NEGATIVE, error.outcome)
        self.assertEqual(asked, len(self.origin.log))

    def test_names_that_are_no_build_ids_are_malformed(self) -> None:
        """Nothing is asked for them."""
        for name in ("", BUILD_ID.upper(), BUILD_ID[1:], "../" + BUILD_ID):
            self.refused(self.extras.debug_link(name), Malformed)
        self.assertEqual([], self.origin.log)


class UploadedLinkTests(ExtrasCase):
    def add(self, text: bytes) -> bool:
        return self.get(self.extras.add_debug_link(BUILD_ID, text))

    def test_uploaded_link_counts_when_its_nar_is_here(self) -> None:
        """Nix uploads the link first, then the NAR; the link is not shown before that."""
        one = packed(TREE)
        link = link_to(f"../{one.url}")
        self.assertTrue(self.add(link))
        self.assertFalse(self.add(link))
        self.refused(self.extras.debug_link(BUILD_ID, is_local=True), NotFound)
        self.store_nar(one)
        found = self.extras.debug_link(BUILD_ID, is_local=True)
        self.assertEqual((link, "hit"), self.get(self.read(found)))

    def test_link_whose_nar_is_stored_stays(self) -> None:
        """Another link is a conflict while the first one's NAR is here; else it replaces it."""
        one, other = packed(TREE), packed({b"x": b"y"}, "other-1.0")
        self.assertTrue(self.add(link_to(f"../{other.url}")))
        self.assertTrue(self.add(link_to(f"../{one.url}")))
        self.store_nar(one)
        self.refused(self.extras.add_debug_link(BUILD_ID, link_to(f"../{other.url}")), Conflict)

    def test_an_invalid_link_is_refused(self) -> None:
        """Garbage, other archives and other names are malformed."""
        for text in (b"", b"{}", link_to("../nar/some-uuid"), link_to("../nar/x", "../../x")):
            self.refused(self.extras.add_debug_link(BUILD_ID, text), Malformed)
        self.refused(self.extras.add_debug_link("x", link_to(f"../{packed(TREE).url}")), Malformed)
        self.assertEqual({}, self.kept.objects)


class IndexTests(ExtrasCase):
    def check(self, one: Sample) -> None:
        self.assertEqual(link_to(f"../{one.key.url}"), self.kept.objects.pop(FETCHED))

    def test_symbols_are_known_once_their_nar_is_stored(self) -> None:
        """The verification finds them, in each compression and for paths of any name."""
        for end in ("", "-debug"):
            for compression in ("none", "zstd", "xz"):
                name = f"{compression}-1.0{end}"
                one = packed({b"lib": LIB, b"name": name.encode()}, name, compression)
                self.store_nar(one)
                self.check(one)
        self.assertEqual({}, self.kept.objects)
        self.kept.objects[FETCHED] = link_to(f"../{one.key.url}")
        self.assertEqual(SYMBOLS, self.get(self.read(self.extras.symbols(BUILD_ID)))[0])
        self.assertEqual([], self.origin.asked("text"))

    def test_a_nar_that_is_verified_later(self) -> None:
        """It is searched then; a NAR whose name ends in -debug is searched immediately."""
        self.inner_look = Look.IF_CHEAP
        self.restart()
        one, other = packed(TREE, "hello-1.0"), packed({b"lib": LIB}, "hello-1.0-debug")
        self.store_nar(one)
        self.assertNotIn(FETCHED, self.kept.objects)
        nar = self.get(self.catalog.nar(one.key))
        assert nar is not None
        self.get(self.core.verifier.verify(nar))
        self.check(one)
        self.store_nar(other)
        self.check(other)

    def test_bytes_that_are_taken_over(self) -> None:
        """A NAR of the store whose row was lost is searched as well."""
        one = packed(TREE, "hello-1.0")
        self.origin.add(one)
        self.learn(one)
        self.store.objects[one.key] = one.file
        self.get(self.core.adoption.adopt(one.key, self.get(self.catalog.nar(one.key))))
        self.check(one)

    def test_debug_output_that_is_no_nar_is_passed_over(self) -> None:
        """A failed search is logged and changes nothing."""
        self.origin.texts.clear()
        self.store_nar(packed({b"x": b"y"}, "hello-1.0-debug"))
        self.assertNotIn(FETCHED, self.kept.objects)


class UploadedNarTests(UploadCase, ExtrasCase):
    def make(self, **rules: Any) -> CacheUploads:
        uploads = super().make(**rules)
        uploads.watch_symbols(self.extras.found)
        return uploads

    def test_symbols_of_an_upload_are_known_by_any_name(self) -> None:
        """It is read once: while it arrives, or later if that is expensive. No listing is made."""
        for is_eager, compression, announced in (
            (True, "none", True),
            (True, "zstd", False),
            (True, "xz", True),
            (False, "xz", False),
        ):
            self.make(is_eager=is_eager)
            tree: Tree = {b"lib": LIB, b"zz": f"{is_eager} {compression}".encode()}
            one = packed(tree, f"hello-{compression}-{is_eager}", compression)
            self.kept.objects.clear()
            self.put_nar(one, announced=announced)
            self.assertEqual({}, self.kept.objects, "its path is not known")
            self.put_narinfo(one)
            link = link_to(f"../{one.conventional.url}")
            self.assertEqual({FETCHED: link}, self.kept.objects, compression)
            self.assertEqual(SYMBOLS, self.get(self.read(self.extras.symbols(BUILD_ID)))[0])

    def test_an_upload_without_symbols_has_no_links(self) -> None:
        """The same holds for files that only look like symbols."""
        name = b"c" * 38
        trees: tuple[Tree, ...] = (
            {b"x": b"y"},
            {b"lib": b"debug"},
            {b"lib": {b"debug": {b".build-id": {b"ab": b"x", b"ac": {name: b"x"}}}}},
            {b"lib": {b"debug": {b".build-id": {b"abc": {name[1:] + b".debug": b"x"}}}}},
        )
        for number, tree in enumerate(trees):
            one = packed(tree, f"hello-{number}", "zstd")
            self.put(one)
            self.assertEqual({}, self.kept.objects)

    def test_a_client_brings_no_symbols_by_a_path_that_it_may_not_write(self) -> None:
        """The NAR alone has no name, and leads to nothing."""
        one = packed(TREE, "hello-1.0", "zstd")
        self.put_nar(one)
        limited = Principal(
            name="ci", scopes=frozenset({Scope.WRITE}), paths=re.compile(".*-other-.*")
        )
        self.refused(self.uploads.put_narinfo(one.digest, one.narinfo.render(), limited), Refused)
        self.assertEqual({}, self.kept.objects)

    def test_links_that_cannot_be_kept_spoil_no_upload(self) -> None:
        """A full store of extras does not refuse a NAR."""
        self.kept.full = StorageFull("full")
        self.put(packed(TREE, "hello-1.0", "zstd"))
        self.assertEqual({}, self.kept.objects)


class SymbolsTests(ExtrasCase):
    def of_upstream(self, tree: Tree = TREE, compression: str = "xz") -> Sample:
        one = packed(tree, "hello-1.0", compression)
        self.origin.add(one)
        self.origin.texts[f"debuginfo/{BUILD_ID}"] = link_to(f"../{one.url}")
        return one

    def symbols(self) -> bytes:
        return self.get(self.read(self.extras.symbols(BUILD_ID)))[0]

    def test_symbols_come_out_of_a_nar_that_is_fetched_for_them(self) -> None:
        """In each compression; this also stores the NAR."""
        for compression in ("xz", "zstd", "none"):
            self.kept.objects.clear()
            one = self.of_upstream(compression=compression)
            self.assertEqual(SYMBOLS, self.symbols())
            self.assertIn(one.conventional, self.store.objects)
            self.assertEqual(SYMBOLS, self.symbols())
            self.assertEqual(1, len([u for u, _ in self.origin.asked("nar") if u == one.url]))

    def test_empty_file_is_a_file(self) -> None:
        """A member without bytes is an answer."""
        folder: Tree = {b"ab": {b"c" * 38 + b".debug": b""}}
        self.of_upstream({b"lib": {b"debug": {b".build-id": folder}}})
        self.assertEqual(b"", self.symbols())

    def test_nar_without_the_file_is_not_found(self) -> None:
        """A false link leads to 404, not to other bytes."""
        self.of_upstream({b"x": b"y"})
        self.refused(self.extras.symbols(BUILD_ID), NotFound)

    def test_nar_that_cannot_be_read_is_not_found(self) -> None:
        """A file that ncps cannot decompress, or only with much memory, gives no symbols."""
        one = self.of_upstream()
        key = NarKey(one.conventional.name, "lzip")
        self.origin.add(evolve(one, narinfo=evolve(one.narinfo, url=key.url, compression="lzip")))
        self.origin.texts[f"debuginfo/{BUILD_ID}"] = link_to(f"../{key.url}")
        self.refused(self.extras.symbols(BUILD_ID), NotFound)
        self.kept.objects.clear()
        self.of_upstream()
        self.patch(xz, "MEMORY_LIMIT", 1024 * 1024)
        self.refused(self.extras.symbols(BUILD_ID), NotFound)

    def test_an_invalid_nar_is_corrupt(self) -> None:
        """A file without a NAR inside has no symbols."""
        one = sample("garbage")
        self.origin.add(one)
        self.origin.texts[f"debuginfo/{BUILD_ID}"] = link_to(f"../{one.url}")
        self.refused(self.extras.symbols(BUILD_ID), Corrupt)

    def test_clients_that_leave_give_their_places_back(self) -> None:
        """After a client has read half of the file and left, nothing is left behind."""
        self.of_upstream()
        for _ in range(3 * debuginfo.AT_ONCE):
            found = self.get(self.extras.symbols(BUILD_ID))
            self.get(anext(aiter(found.body)))  # type: ignore[arg-type]
            found.body.close()
            found.body.close()
        self.assertEqual(SYMBOLS, self.symbols())

    def test_number_at_once_is_bounded(self) -> None:
        """Further clients wait, and get 503 after a while."""
        self.of_upstream()
        found = [self.get(self.extras.symbols(BUILD_ID)) for _ in range(debuginfo.AT_ONCE)]
        waiting = self.start(self.read(self.extras.symbols(BUILD_ID)))
        late = self.start(self.read(self.extras.symbols(BUILD_ID)))
        self.assertNoResult(waiting)
        found.pop().body.close()
        self.assertEqual(SYMBOLS, self.successResultOf(waiting)[0])
        self.assertEqual(SYMBOLS, self.successResultOf(late)[0])
        found.append(self.get(self.extras.symbols(BUILD_ID)))
        late = self.start(self.read(self.extras.symbols(BUILD_ID)))
        self.clock.advance(debuginfo.PATIENCE_S)
        self.failureResultOf(late, Busy)
        for one in found:
            one.body.close()
