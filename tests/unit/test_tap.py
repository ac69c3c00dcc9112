from __future__ import annotations

import contextlib
import io
import sys
from unittest import mock

from twisted.application.app import ServerOptions
from twisted.logger import ILogObserver, LogLevel
from twisted.python import usage
from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

import ncps
from ncps import tap
from ncps.settings.surroundings import Surroundings
from tests.unit.settings.around import surroundings


class TapCase(SynchronousTestCase):
    """Parses options in its own surroundings."""

    def setUp(self) -> None:
        self.patch(Surroundings, "of_process", lambda: surroundings({"LOG_LEVEL": "warn"}))

    def parse(self, *words: str, parent: usage.Options | None = None) -> tap.Options:
        options = tap.Options()
        options.parent = parent
        options.parseOptions(words)
        return options


class OptionsTests(TapCase):
    def test_settings_are_options(self) -> None:
        """`twistd ncps` accepts the same flags and variables as `ncps serve`."""
        settings = self.parse(
            "--cache-hostname=a",
            "--cache-upstream-url",
            "http://a",
            "--cache-upstream-url=http://b",
            "--prometheus-enabled",
        ).settings
        assert settings is not None
        self.assertEqual(settings.cache.hostname, "a")
        self.assertEqual(settings.cache.upstream.urls, ("http://a", "http://b"))
        self.assertIs(settings.prometheus.enabled, True)
        self.assertEqual(settings.log.level, "warn")

    def test_mistakes_are_usage_errors(self) -> None:
        """twistd prints the mistake instead of a traceback."""
        for words, reason in (
            (["--cache-hostname=http://a", "--log-level=x"], "(?s)bare host name.*flag|log-level"),
            (["--cache-hostnme=a"], "did you mean --cache-hostname"),
            (["--cache-host=a"], "unknown option --cache-host"),
            (["--cache-hostname"], "needs a value"),
            (["zzz"], "unknown option zzz$"),
        ):
            with self.assertRaisesRegex(usage.UsageError, reason):
                self.parse(*words)

    def test_a_mistake_is_not_lost_below_the_settings(self) -> None:
        """The usage before a mistake is one line that names the help."""
        for word in ("--cache-hostnme=a", "--log-level=x", "--workers=2"):
            options = tap.Options()
            self.assertRaises(usage.UsageError, options.parseOptions, [word])
            self.assertIn("`twistd ncps --help` explains the settings.", str(options))
            self.assertLess(len(str(options)), 100)

    def test_version_and_help_are_ours(self) -> None:
        """`twistd ncps --version` prints the version of ncps, --help its options."""
        with contextlib.redirect_stdout(io.StringIO()) as out:
            self.assertRaises(SystemExit, self.parse, "--version")
        self.assertEqual(out.getvalue(), f"ncps {ncps.__version__}\n")
        with contextlib.redirect_stdout(io.StringIO()) as out:
            self.assertRaises(SystemExit, self.parse, "--help")
        for part in ("\nServer:\n", "--cache-hostname HOST", "[CACHE_HOSTNAME; cache.hostname"):
            self.assertIn(part, out.getvalue())
        self.assertLessEqual(max(map(len, out.getvalue().splitlines())), 100)


class ObserverTests(TapCase):
    def test_in_the_foreground_the_settings_decide(self) -> None:
        """`twistd -n ncps` logs as the settings say."""
        parent = ServerOptions()
        parent["nodaemon"] = True
        self.parse(parent=parent)
        factory = namedAny(str(parent["logger"]))
        verifyObject(ILogObserver, factory())

    def test_level_form_and_prefix_are_those_of_the_settings(self) -> None:
        """Events below the level are left out."""
        stream = io.StringIO()
        self.patch(sys, "stdout", stream)
        self.parse("--log-console-writer-enabled", "--log-console-writer-prefix=> ")
        for level in (LogLevel.info, LogLevel.warn):
            event = {"log_format": "handled", "log_level": level, "log_time": 0.0}
            tap.observer()(event)
        self.assertRegex(stream.getvalue(), r"^> .* WARN  handled\n$")

    def test_options_of_twistd_decide(self) -> None:
        """Logging options of twistd, and of twist, override the settings."""
        for option, value in (("logger", "a.b"), ("logfile", "/a"), ("syslog", True)):
            parent = ServerOptions()
            parent["nodaemon"] = True
            parent[option] = value
            before = parent["logger"]
            self.parse(parent=parent)
            self.assertEqual(parent["logger"], before)
        daemon = ServerOptions()
        self.parse(parent=daemon)
        self.assertIsNone(daemon["logger"])
        twist = usage.Options()
        self.parse(parent=twist)
        self.assertNotIn("logger", twist)


class WorkersTests(TapCase):
    def test_several_workers_are_not_for_twistd(self) -> None:
        """The error names the right command."""
        error = self.assertRaises(usage.UsageError, self.parse, "--workers=2")
        self.assertIn("ncps serve", str(error))
        self.parse("--workers=1")


class MakeServiceTests(TapCase):
    def test_the_service_gets_the_settings(self) -> None:
        """The service is made from the options, parsed or not."""
        with mock.patch("ncps.assembly.service.NcpsService") as service:
            options = self.parse("--cache-hostname=a")
            self.assertIs(tap.makeService(options), service.return_value)
            service.assert_called_once_with(options.settings)
            tap.makeService(tap.Options())
        self.assertEqual(service.call_args.args[0].cache.hostname, "box")
