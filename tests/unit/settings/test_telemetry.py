"""Settings of OpenTelemetry."""

from __future__ import annotations

from ncps.settings.kinds.telemetry import Header
from ncps.settings.report import effective
from ncps.settings.rules.telemetry import gets_traces
from tests.unit.settings.around import FileCase, load_with, problems_of

UPSTREAM = "https://cache.example.org:8443/x"


class TelemetryTests(FileCase):
    def test_a_file_of_the_go_program(self) -> None:
        """The section means the same as in the Go program."""
        found = self.load_file("opentelemetry: {enabled: true, grpc-url: 'http://otel:4317'}")
        self.assertEqual(
            (True, "http://otel:4317"), (found.opentelemetry.enabled, found.opentelemetry.grpc_url)
        )
        self.assertEqual((), found.warnings)

    def test_urls_of_collectors(self) -> None:
        """The scheme says whether TLS is used; the port of gRPC may be missing."""
        for flag, given, meant in (
            ("otel-grpc-url", "http://otel", "http://otel:4317"),
            ("otel-grpc-url", "grpc://otel:1/", "http://otel:1"),
            ("otel-grpc-url", "https://otel.example.org:443", "https://otel.example.org:443"),
            ("otel-grpc-url", "http://[::1]:4317", "http://[::1]:4317"),
            ("otel-http-url", "http://otel:4318/base/", "http://otel:4318/base"),
        ):
            found = load_with({flag: given, "otel-enabled": "true"}).opentelemetry
            self.assertEqual(meant, found.grpc_url or found.http_url)

    def test_wrong_values_are_told(self) -> None:
        """Each error says what is right, without a password."""
        for flag, given, told in (
            ("otel-grpc-url", "otel:4317", "should be http://HOST:4317"),
            ("otel-grpc-url", "http://otel:4317/v1", "without a path"),
            ("otel-grpc-url", "http://me:hunter2@otel:4317", "belong in the file of --otel-head"),
            ("otel-grpc-url", "http://otel:99999", "should be http://HOST:4317"),
            ("otel-http-url", "grpc://otel:4318", "should be http://HOST:4318"),
            ("otel-sampling-ratio", "1.5", "a number between 0 and 1"),
            ("otel-sampling-ratio", "-0", "a number between 0 and 1"),
            ("otel-headers", "hunter2", "should be NAME=VALUE"),
            ("otel-headers", "a b=hunter2", "should be NAME=VALUE"),
            ("otel-headers", "a=hunter2%0ab", "not plain ASCII"),
            ("otel-headers", "a!b=hunter2", "should have letters"),
            ("otel-headers", "a-bin=hunter2", "not end in -bin"),
        ):
            (problem,) = problems_of({flag: given})
            self.assertIn(told, problem)
            self.assertNotIn("hunter2", problem.replace("me:hunter2@otel", ""))

    def test_one_collector_only(self) -> None:
        """Two URLs are an error."""
        (problem,) = problems_of({"otel-grpc-url": "http://a", "otel-http-url": "http://b"})
        self.assertIn("give one of them", problem)

    def test_a_url_alone_does_nothing_and_says_so(self) -> None:
        """Another setting turns telemetry on."""
        self.assertEqual(
            ("otel-grpc-url has no effect without otel-enabled",),
            load_with({"otel-grpc-url": "http://a"}).warnings,
        )

    def test_blanks_around_the_value_of_a_header_are_no_part_of_it(self) -> None:
        """Also those written as %20, which would break the request."""
        found = load_with({"otel-headers": "authorization=%20Bearer%20x%20%0a"})
        self.assertEqual((Header("authorization", "Bearer x"),), found.opentelemetry.headers)

    def test_headers_come_from_a_file(self) -> None:
        """One on each line, or in the standard form; nothing shows their values."""
        path = self.write("Authorization: Bearer a, b=c\n\nx-scope=1,y=%20z\n", "headers")
        found = load_with({"otel-headers-file": str(path)})
        self.assertEqual(
            (
                Header("authorization", "Bearer a, b=c"),
                Header("x-scope", "1"),
                Header("y", "z"),
            ),
            found.opentelemetry.headers,
        )
        shown = {key: value for key, value, _ in effective(found)}
        self.assertEqual("***, ***, ***", shown["opentelemetry.headers"])
        self.assertNotIn("Bearer", repr(found))

    def test_a_ratio_is_a_number_in_a_file(self) -> None:
        """YAML has numbers with a decimal point."""
        found = self.load_file("opentelemetry: {sampling-ratio: 0.05}")
        self.assertEqual(0.05, found.opentelemetry.sampling_ratio)

    def test_traces_go_to_upstreams_by_name(self) -> None:
        """By default to none; a name of no upstream is an error."""
        for name, is_meant in (("cache.example.org", True), ("cache.example.org:8443", True)):
            load_with({"cache-upstream-url": UPSTREAM, "otel-propagate-to": name})
            self.assertEqual(is_meant, gets_traces(UPSTREAM, (name,)))
        self.assertFalse(gets_traces(UPSTREAM, ()))
        self.assertTrue(gets_traces(UPSTREAM, ("all",)))
        (problem,) = problems_of({"cache-upstream-url": UPSTREAM, "otel-propagate-to": "other.org"})
        self.assertIn("should be all, or one of cache.example.org", problem)
