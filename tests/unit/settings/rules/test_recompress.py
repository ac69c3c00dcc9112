"""Recompression: its default for a store, and its forms in a file."""

from __future__ import annotations

from ncps.settings.schema.recompress import RecompressSettings
from tests.unit.settings.around import FileCase, load_with

_BUCKET = {
    "cache-storage-s3-bucket": "nars",
    "cache-storage-s3-endpoint": "https://s3.example.org",
    "cache-storage-s3-region": "eu-1",
}


class AutoTests(FileCase):
    def test_a_directory_of_any_size(self) -> None:
        """A store in a directory without a maximum size gets files in zstd."""
        self.assertEqual("auto", load_with().cache.recompress.to)

    def test_a_store_that_makes_room(self) -> None:
        """Other stores do not, since evicted new files would have to be made again."""
        for flags in ({"cache-max-size": "10G"}, _BUCKET):
            self.assertEqual("off", load_with(flags).cache.recompress.to)
            for word in ("zstd", "off"):
                told = load_with({**flags, "cache-recompress": word}).cache.recompress
                self.assertEqual(word, told.to)

    def test_off(self) -> None:
        """A given word overrides the default; a branch without a load does nothing."""
        self.assertEqual("off", load_with(CACHE_RECOMPRESS="off").cache.recompress.to)
        self.assertEqual("off", RecompressSettings().to)


class FileTests(FileCase):
    def test_a_word_in_place_of_the_table(self) -> None:
        """A file gives a word, even one that YAML reads as false, or a table."""
        for text in (
            "cache:\n  recompress: off\n",
            "cache:\n  recompress:\n    to: off\n    level: 12\n",
        ):
            self.assertEqual("off", self.load_file(text).cache.recompress.to)
        told = self.load_file('[cache.recompress]\nlevel = 12\nhours = "22-6"\n', "config.toml")
        self.assertEqual((12, "auto"), (told.cache.recompress.level, told.cache.recompress.to))
        self.assertEqual((), told.warnings)

    def test_mistakes(self) -> None:
        """A wrong word and an unknown key of the table are errors."""
        self.assertEqual(
            ("key cache.recompress: 'zst' should be one of auto, zstd, off: did you mean zstd?",),
            self.problems_of_file("cache:\n  recompress: zst\n"),
        )
        (problem,) = self.problems_of_file("cache:\n  recompress:\n    levell: 3\n")
        self.assertIn("did you mean cache.recompress.level?", problem)
