from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ncps.settings.kinds.s3 import (
    parse_bucket,
    parse_endpoint,
    parse_prefix,
    parse_region,
    parse_storage_class,
)
from tests.unit.settings.around import load_with, problems_of

_BUCKET = {"cache-storage-s3-bucket": "nix"}
_KEYS = {
    "cache-storage-s3-access-key-id": "me",
    "cache-storage-s3-secret-access-key": "hunter2",
}


class KindTests(SynchronousTestCase):
    def test_buckets_have_names_that_every_server_takes(self) -> None:
        """A URL, an ARN and capital letters are refused."""
        for text in ("", "nix", "my.bucket-1", "a" * 63):
            self.assertEqual(parse_bucket(text), text)
        for text in ("ab", "a" * 64, "Nix", "s3://nix", "a_b", "-ab", "ab.", "a..b", "a/b"):
            with self.assertRaisesRegex(ValueError, "name of a bucket"):
                parse_bucket(text)

    def test_endpoints_carry_their_scheme(self) -> None:
        """The scheme decides about TLS; credentials have settings of their own."""
        self.assertEqual(parse_endpoint(""), "")
        self.assertEqual(parse_endpoint("https://s3.example.com/"), "https://s3.example.com")
        self.assertEqual(parse_endpoint("http://[::1]:9000"), "http://[::1]:9000")
        for text, reason in (
            ("s3.example.com", r"start with http.* as in https://s3\.example\.com"),
            ("minio:9000", r"start with http.* as in https://s3\.example\.com"),
            ("http://minio:api", "wrong port: it should be a number from 1 to 65535"),
            ("http://[::1", r"a URL such as https://s3\.example\.com"),
            ("http://", r"name a host, as in https://s3\.example\.com"),
        ):
            with self.assertRaisesRegex(ValueError, reason):
                parse_endpoint(text)
        for text in ("http://a..b", "http://-a", "http://a-", "http://my_minio:9000", "http://."):
            with self.assertRaisesRegex(ValueError, r"host of letters.* as in https://s3"):
                parse_endpoint(text)
        for text in ("http://me:hunter2@host", "http://host?priority=3"):
            with self.assertRaisesRegex(ValueError, "neither credentials"):
                parse_endpoint(text)

    def test_a_prefix_is_made_of_plain_words(self) -> None:
        """Slashes at its ends are removed."""
        for text in ("", "/", "//"):
            self.assertEqual(parse_prefix(text), "")
        self.assertEqual(parse_prefix("/caches/nix-1/"), "caches/nix-1")
        for text in ("a//b", "a b", "a/../b", "./a", "ä", "a" * 513, "a\0"):
            with self.assertRaisesRegex(ValueError, "should"):
                parse_prefix(text)

    def test_regions_and_classes_are_words(self) -> None:
        """A class whose objects cannot be read immediately is refused."""
        self.assertEqual(parse_region("eu-central-1"), "eu-central-1")
        self.assertEqual(parse_storage_class("STANDARD_IA"), "STANDARD_IA")
        self.assertEqual((parse_region(""), parse_storage_class("")), ("", ""))
        for parse in (parse_region, parse_storage_class):
            with self.assertRaisesRegex(ValueError, "should be the name"):
                parse("a b")
        with self.assertRaisesRegex(ValueError, "restored"):
            parse_storage_class("DEEP_ARCHIVE")


class DecisionTests(SynchronousTestCase):
    def test_a_directory_is_the_default(self) -> None:
        """Without a bucket, nothing changes."""
        found = load_with()
        self.assertEqual(found.cache.storage.local, Path("/state/storage"))
        self.assertEqual(found.cache.storage.s3.bucket, "")
        self.assertIs(found.cache.temp_path, None)

    def test_a_bucket_takes_the_place_of_the_directory(self) -> None:
        """Unfinished downloads go to the state directory by default."""
        found = load_with(_BUCKET | _KEYS)
        self.assertIs(found.cache.storage.local, None)
        self.assertEqual(found.cache.temp_path, Path("/state/spool"))
        found = load_with(_BUCKET | _KEYS, CACHE_TEMP_PATH="/fast")
        self.assertEqual(found.cache.temp_path, Path("/fast"))

    def test_both_are_one_too_many(self) -> None:
        """With a directory and a bucket, the message asks which one is meant."""
        for local in ({"cache-storage-local": "/x"}, {"cache-data-path": "/x"}):
            (problem,) = problems_of(_BUCKET | _KEYS | local)
            self.assertIn("cache-storage-local and cache-storage-s3-bucket", problem)

    def test_neither_is_one_too_few(self) -> None:
        """An empty text is not a directory."""
        (problem,) = problems_of({"cache-storage-local": ""})
        self.assertIn("cache-storage-local", problem)

    def test_settings_of_a_bucket_need_one(self) -> None:
        """A missing bucket is reported once; a template may leave all empty."""
        for name, value in (("endpoint", "http://h"), ("prefix", "a"), ("redirect", "true")):
            (problem,) = problems_of({f"cache-storage-s3-{name}": value})
            self.assertIn(f"cache-storage-s3-{name}", problem)
            self.assertIn("cache-storage-s3-bucket", problem)
        for name, value in (("endpoint", ""), ("redirect", "false")):
            self.assertEqual(problems_of({f"cache-storage-s3-{name}": value}), ())

    def test_a_bucket_that_is_malformed_is_the_only_problem(self) -> None:
        """No problem that follows from it is reported."""
        problems = problems_of({"cache-storage-s3-bucket": "s3://x"} | _KEYS)
        self.assertEqual(len(problems), 1)

    def test_credentials_come_in_pairs(self) -> None:
        """One half is an error, none means AWS's own search, a session token needs both."""
        self.assertEqual(problems_of(_BUCKET), ())
        for name in _KEYS:
            (problem,) = problems_of(_BUCKET | {name: "x"})
            self.assertIn("give both", problem)
        (problem,) = problems_of(_BUCKET | {"cache-storage-s3-session-token": "x"})
        self.assertIn("access-key-id", problem)

    def test_a_secret_may_be_in_a_file(self) -> None:
        """A file may hold the secret, as for all secrets."""
        path = Path(self.mktemp())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("hunter2\n")
        named = {
            "cache-storage-s3-access-key-id": "me",
            "cache-storage-s3-secret-access-key-file": str(path),
        }
        found = load_with(_BUCKET | named)
        self.assertEqual(found.cache.storage.s3.secret_access_key, "hunter2")
        self.assertNotIn("hunter2", repr(found))

    def test_a_key_of_kms_needs_kms(self) -> None:
        """Without KMS, the server would ignore the key."""
        key = {"cache-storage-s3-kms-key-id": "arn"}
        (problem,) = problems_of(_BUCKET | key)
        self.assertIn("server-side-encryption", problem)
        kms = {"cache-storage-s3-server-side-encryption": "aws:kms"}
        self.assertEqual(problems_of(_BUCKET | key | kms), ())
