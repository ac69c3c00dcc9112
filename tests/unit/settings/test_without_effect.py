"""Settings without effect, and variables whose names are close to settings."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ncps.settings.problems import InvalidSettings
from tests.unit.settings.around import OTHER_KEY, FileCase, load_with, problems_of


class WithoutEffectTests(FileCase):
    def test_their_defaults_are_welcome(self) -> None:
        """A configuration that switches such a setting off works without a warning."""
        found = load_with(
            {
                "cache-max-size": "",
                "cache-allow-put-verb": "false",
                "cache-lock-backend": "local",
                "cache-redis-addrs": "",
                "cache-redis-db": "0",
                "analytics-reporting-enabled": "0",
                "cache-cdc-min": "16384",
                "cache-lock-lru-ttl": "30m",
            }
        )
        self.assertEqual(found.warnings, ())

    def test_a_harmless_setting_causes_one_warning(self) -> None:
        """Other values of such settings cause one warning each."""
        found = load_with(
            {"analytics-reporting-enabled": "true", "cache-cdc-background-workers": "3"},
            XZ_BINARY_PATH="/bin/xz",
        )
        self.assertEqual(
            found.warnings,
            (
                (
                    "flag --analytics-reporting-enabled has no effect: ncps sends no reports to"
                    " anybody."
                ),
                (
                    "environment XZ_BINARY_PATH has no effect: Nothing here runs the xz program: a"
                    " library decompresses."
                ),
                (
                    "flag --cache-cdc-background-workers has no effect: It tunes content-defined"
                    " chunking, which ncps does not have."
                ),
            ),
        )
        self.assertIn("should be a duration", problems_of(CACHE_LOCK_LRU_TTL="5")[0])

    def test_a_table_that_only_documents_had_is_passed_over(self) -> None:
        """Its contents are ignored: the Go program never read it."""
        for text in ("otel: {enabled: false, endpoint: x}", "otel: yes", "otel: [{a: 1}]"):
            (warning,) = self.load_file(text).warnings
            self.assertRegex(warning, r"^file .*: key otel has no effect: .* called opentelemetry$")
        self.assertIn("unknown key otell", self.problems_of_file("otell: {enabled: true}")[0])

    def test_names_of_elsewhere_are_answered_with_ours(self) -> None:
        """Also if the two names are not similar."""
        for flag, hint in (
            ("server-listen", "server-addr"),
            ("cache-storage-s3-use-ssl", "cache-storage-s3-endpoint"),
        ):
            (problem,) = problems_of({flag: "true"})
            self.assertIn(f"unknown flag --{flag}: ", problem)
            self.assertIn(hint, problem)
            (problem,) = self.problems_of_file(f"{flag.replace('-', ': {', 1)}: true}}")
            self.assertIn(hint, problem)
            (warning,) = load_with({}, **{flag.upper().replace("-", "_"): "true"}).warnings
            self.assertIn(hint, warning)


class VariableTests(SynchronousTestCase):
    """Unknown variables whose names are close to ours."""

    def test_the_singular_of_a_list_is_understood(self) -> None:
        """It corresponds to the flag, causes a warning, and the right one wins."""
        found = load_with({}, CACHE_UPSTREAM_URL="http://a", CACHE_UPSTREAM_PUBLIC_KEY=OTHER_KEY)
        self.assertEqual(found.cache.upstream.urls, ("http://a",))
        self.assertEqual(found.cache.upstream.public_keys, (OTHER_KEY,))
        self.assertEqual(
            found.warnings,
            (
                "environment CACHE_UPSTREAM_URL is called otherwise: use CACHE_UPSTREAM_URLS",
                (
                    "environment CACHE_UPSTREAM_PUBLIC_KEY is called otherwise: use"
                    " CACHE_UPSTREAM_PUBLIC_KEYS"
                ),
            ),
        )
        both = load_with({}, CACHE_UPSTREAM_URL="http://a", CACHE_UPSTREAM_URLS="http://b")
        self.assertEqual(both.cache.upstream.urls, ("http://b",))
        self.assertIn("is called otherwise and not used", both.warnings[0])

    def test_a_misspelt_variable_is_reported_with_a_suggestion(self) -> None:
        """The warning has no value, which may be a secret."""
        for name, meant in (
            ("CACHE_HOSTNAM", "CACHE_HOSTNAME"),
            ("CACHE_DATABASE_URL_FILES", "CACHE_DATABASE_URL_FILE"),
            ("NCPS_CACHE_MAX_SIZE", "CACHE_MAX_SIZE"),
            ("SERVER_ADDRS", "SERVER_ADDR"),
            ("SERVER_TRUSTED_PROXY", "SERVER_TRUSTED_PROXIES"),
            ("CACHE_REDIS_ADDR", "CACHE_REDIS_ADDRS"),
            ("UPSTREAM_CACHE", "CACHE_UPSTREAM_URLS"),
            ("CACHE_UPSTREAM_UR", "CACHE_UPSTREAM_URLS"),
            ("CACHE_UPSTREAM_URLZ", "CACHE_UPSTREAM_URLS"),
        ):
            found = load_with({}, **{name: "hunter2"})
            self.assertEqual(
                found.warnings, (f"environment {name} is not a setting: did you mean {meant}?",)
            )
        (warning,) = load_with({}, CACHE_HOSTNAME_FILE="/x").warnings
        self.assertIn("only secrets are read from files", warning)

    def test_variables_of_others_are_their_own(self) -> None:
        """A variable that only begins like ours causes no warning."""
        others = ("CACHE_DIR", "CACHE_URL", "SERVER_NAME", "SERVER_PORT", "LOG_FILE", "OTEL_X")
        found = load_with({}, **dict.fromkeys((*others, "NCPS_WORKER", "XCACHE_HOSTNAM"), "x"))
        self.assertEqual(found.warnings, ())
        self.assertEqual(load_with({}, CACHE_HOSTNAM="").warnings, ())

    def test_errors_are_reported_with_misspelt_names(self) -> None:
        """The misspelt variable may be the reason for the error."""
        with self.assertRaises(InvalidSettings) as caught:
            load_with({}, CACHE_MAX_SIZ="1G", CACHE_LRU_SCHEDULE="@daily")
        self.assertIn("did you mean CACHE_MAX_SIZE?", caught.exception.warnings[0])
