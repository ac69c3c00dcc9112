from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import ncps
import twisted
from ncps import cli
from ncps.__main__ import main
from ncps.errors import Unavailable
from ncps.observe import logs
from ncps.settings.schema.tree import Settings
from ncps.settings.setting import Status
from ncps.settings.table import TABLE
from tests.unit.settings.around import surroundings


class CommandCase(SynchronousTestCase):
    """Runs command lines with commands that only record their arguments."""

    def setUp(self) -> None:
        self.ran: list[tuple[object, ...]] = []
        self.logging: list[str] = []
        self.code = 0
        self.failure: BaseException | None = None
        # The real one would take over the log of the test runner.
        self.patch(cli, "start_logging", lambda settings, is_daemon: self.logging.append("on"))

    def run_command(self, *arguments: str, **environ: str) -> tuple[int, str, str]:
        """Return exit code, standard output and standard error."""

        def note(name: str) -> mock.Mock:
            return mock.Mock(side_effect=lambda *given: self.note(name, *given))

        commands = cli.Commands(
            serve=note("serve"),
            serve_with_workers=note("serve with workers"),
            migrate_up=note("migrate up"),
            migrate_status=note("migrate status"),
            rebuild=note("rebuild"),
            keys=note("keys"),
        )
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.run(arguments, commands=commands, surroundings=surroundings(environ))
        return code, out.getvalue(), err.getvalue()

    def note(self, name: str, settings: Settings, *rest: object) -> int:
        self.ran.append((name, settings.cache.hostname, *rest))
        if self.failure is not None:
            raise self.failure
        return self.code


class DispatchTests(CommandCase):
    def test_each_command_gets_the_settings(self) -> None:
        """Every command runs with the settings and returns its exit code."""
        for arguments, expected in (
            (["serve"], ("serve", "box")),
            (["s"], ("serve", "box")),
            (["serve", "--workers=2"], ("serve with workers", "box")),
            (["migrate", "up"], ("migrate up", "box", False)),
            (["migrate", "up", "--dry-run"], ("migrate up", "box", True)),
            (["migrate", "status"], ("migrate status", "box")),
            (["rebuild"], ("rebuild", "box")),
        ):
            self.ran.clear()
            self.code = 7
            self.assertEqual(self.run_command(*arguments), (7, "", ""), arguments)
            self.assertEqual(self.ran, [expected])

    def test_settings_stand_before_and_after_the_command(self) -> None:
        """Flags work before and after the command, with = or without."""
        for arguments in (
            ["--cache-hostname=a", "serve"],
            ["--cache-hostname", "a", "serve"],
            ["serve", "--cache-hostname", "a"],
            ["--cache-hostname=b", "serve", "--cache-hostname=a"],
            ["--prometheus-enabled", "serve", "--cache-hostname=a", "--prometheus-enabled"],
            ["migrate", "--cache-hostname=a", "up"],
            ["serve", "--prometheus-enabled=false", "--cache-hostname=a"],
        ):
            self.ran.clear()
            self.assertEqual(self.run_command(*arguments)[0], 0, arguments)
            self.assertEqual(self.ran[0][1], "a")

    def test_a_command_that_fails_says_why(self) -> None:
        """A failure is one line on standard error, without a traceback."""
        self.failure = Unavailable("no room")
        self.assertEqual(self.run_command("serve"), (1, "", "ncps: error: no room\n"))
        self.failure = KeyboardInterrupt()
        self.assertEqual(self.run_command("serve")[0], 130)

    def test_the_real_commands_exist(self) -> None:
        """The names that are imported later are those of functions."""
        with mock.patch("ncps.commands.migrate_status", return_value=5):
            self.assertEqual(cli.COMMANDS.migrate_status(mock.Mock()), 5)
        with mock.patch("ncps.assembly.service.serve", return_value=6):
            self.assertEqual(cli.COMMANDS.serve(mock.Mock()), 6)
        with mock.patch("ncps.process.crew.serve", return_value=8):
            self.assertEqual(cli.COMMANDS.serve_with_workers(mock.Mock()), 8)
        for name in ("migrate_up", "rebuild"):
            with mock.patch(f"ncps.commands.{name}", return_value=7):
                self.assertEqual(getattr(cli.COMMANDS, name)(mock.Mock()), 7)

    def test_main_takes_the_arguments_of_the_process(self) -> None:
        """`ncps --version` works after an installation."""
        self.patch(__import__("sys"), "argv", ["ncps", "--version"])
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            self.assertEqual(main(), 0)
        self.assertEqual(out.getvalue(), f"ncps {ncps.__version__}\n")


class NewerLibraryTests(CommandCase):
    def test_commands_are_added_as_python_3_14_does(self) -> None:
        """Python 3.14 checks the help of each command with its parser."""
        actions: Any = vars(argparse)["_SubParsersAction"]
        real = actions.add_parser

        def add_parser(action: Any, name: str, **options: Any) -> Any:
            is_shown = "help" in options
            parser = real(action, name, **options)
            if is_shown:
                parser._check_help(action._choices_actions[-1])
            return parser

        self.patch(actions, "add_parser", add_parser)
        self.assertEqual((0, "", ""), self.run_command("migrate", "up"))


class MistakeTests(CommandCase):
    def assert_refused(self, *arguments: str, saying: str) -> None:
        code, out, err = self.run_command(*arguments)
        self.assertEqual((code, out), (2, ""), arguments)
        for line in err.splitlines():
            self.assertTrue(line.startswith("ncps: error: "), line)
        self.assertIn(saying, err)
        self.assertEqual(self.ran, [])

    def test_mistakes_are_told_in_a_line(self) -> None:
        """A wrong command line gives exit code 2 and one line."""
        self.assert_refused(saying="which command?")
        self.assert_refused("serv", saying="unknown command 'serv': did you mean serve?")
        self.assert_refused("zzz", saying="unknown command 'zzz': serve, migrate, rebuild,")
        self.assert_refused("keys", "rotat3", saying="unknown step 'rotat3': did you mean rotate?")
        self.assert_refused("completion", "csh", saying="unknown shell 'csh': did you mean zsh?")
        self.assert_refused("serve", "now", saying="unexpected argument 'now'")
        self.assert_refused(
            "migrate",
            saying="which step? `ncps migrate up`: Bring the schema up to date. `ncps migrate"
            " status`: List the migrations that are applied and those that are pending.",
        )
        self.assert_refused("migrate", "down", saying="unknown step 'down': up or status?")
        self.assert_refused("serve", "--cache-hostname", saying="expected one argument")
        self.assert_refused("serve", "--dry-run", saying="unknown flag --dry-run")

    def test_no_message_repeats_what_may_be_a_secret(self) -> None:
        """A word after an unknown flag may be its value.

        A word after the value of a secret may be a part of that secret.
        """
        typo, part = "unknown flag --typo", "may be a part of the value of --cache-get-token"
        given = ("--cache-get-token", "a")
        for words, saying in (
            (("--typo", "hunter2", "serve"), typo),
            (("--log-level", "info", "--typo", "hunter2", "serve"), typo),
            (("pin", "--typo", "hunter2", "list"), typo),
            (("serve", "--typo", "hunter2"), typo),
            ((*given, "hunter2", "serve"), part),
            (("keys", *given, "hunter2"), part),
            (("serve", *given, "hunter2"), part),
            (("serve", "--cache-upstream-url", "http://u:a", "hunter2@h"), "argument '***@h'"),
            (("--cache-upstream-url", "http://u:a", "hunter2@h"), "unknown command '***@h'"),
            (("pin", "add", "ncps_hunter2hunter2hunter2hunter2"), "should be a store path"),
            (("pin", "list", "--server", "ftp://u:hunter2@h"), "should be http://HOST:PORT"),
            (("pin", "list", "--server", "http://u:hunter2@h:99999"), "should be http://HOST:PORT"),
            (("pin", "list", "--server", "http://u:hunter2@[::1"), "should be http://HOST:PORT"),
            (("pin", "list", "--server", "http://u:hunter2@.h:9"), "should be http://HOST:PORT"),
        ):
            code, _, err = self.run_command(*words)
            self.assertEqual(2, code, words)
            self.assertIn(saying, err)
            self.assertNotIn("hunter2", err)

    def test_a_token_that_is_none_is_not_shown(self) -> None:
        """It has a line too many, or characters that no header can have."""
        for token in ("hunter2\nhunter2", "hunter2\u2603"):
            file = Path(self.mktemp())
            file.write_text(token, "utf-8")
            for place, more in (("NCPS_TOKEN", ()), ("--token-file", ("--token-file", str(file)))):
                words = ("pin", "list", "--server", "http://127.0.0.1:9", *more)
                with mock.patch.dict("os.environ", NCPS_TOKEN=token):
                    code, _, err = self.run_command(*words)
                self.assertEqual(1, code, words)
                self.assertIn(place, err)
                self.assertIn("holds no token", err)
                self.assertNotIn("hunter2", err)

    def test_a_wrong_value_of_a_command_is_a_mistake_too(self) -> None:
        """The commands themselves report it, before they open a store."""
        with contextlib.redirect_stderr(io.StringIO()) as err:
            code = cli.run(["keys", "rotate", "--overlap=x"], surroundings=surroundings())
        self.assertEqual(2, code)
        self.assertIn("ncps: error: --overlap: should be a duration", err.getvalue())

    def test_unknown_flags_get_a_suggestion(self) -> None:
        """The error for a mistyped or shortened flag suggests the nearest one."""
        for word, flag in (
            ("--cache-hostnme=a", "--cache-hostname"),
            ("--cache-hostnam", "--cache-hostname"),
            ("--upstream-cach=a", "--cache-upstream-url"),
        ):
            self.assert_refused("serve", word, saying=f"did you mean {flag}?")

    def test_wrong_settings_are_all_told(self) -> None:
        """Every wrong setting has its line."""
        code, _, err = self.run_command(
            "serve", "--cache-hostname=http://a", "--log-level=x", SERVER_ADDR="nowhere"
        )
        self.assertEqual((code, len(err.splitlines())), (2, 3))

    @given(st.lists(st.text(max_size=8) | st.sampled_from(["serve", "--", "--config", "-h="])))
    def test_any_arguments_end_in_an_exit_code(self, arguments: list[str]) -> None:
        """No command line ends in a traceback."""
        self.assertIn(self.run_command(*arguments)[0], (0, 2))


class HelpTests(CommandCase):
    def test_serve_explains_every_setting(self) -> None:
        """`ncps serve --help` names each flag, its variable, key and default."""
        code, out, _ = self.run_command("serve", "--help")
        self.assertEqual(code, 0)
        flat = " ".join(out.split())
        for row in TABLE:
            self.assertIn(f"--{row.flag} ", out)
            self.assertIn(row.environment, flat)
            self.assertIn(row.key, flat)
            if row.status is Status.ACTIVE:
                self.assertIn(" ".join(row.help.split()), flat)
                self.assertIn(f"default: {row.default_text}" if row.default_text else "", flat)

    def test_every_command_has_help(self) -> None:
        """--help works for each command and runs nothing."""
        for arguments in ([], ["migrate"], ["migrate", "up"], ["rebuild"], ["settings"]):
            code, out, err = self.run_command(*arguments, "--help")
            self.assertEqual((code, err), (0, ""))
            self.assertIn("usage: ncps", out)
            self.assertIn("--log-level", out)
            self.assertNotIn("--cache-hostname", out)
        self.assertEqual(self.ran, [])

    def test_help_is_a_command(self) -> None:
        """`ncps help WORDS` prints the same as `ncps WORDS --help`."""
        for words in ([], ["serve"], ["migrate", "up"], ["nar", "recompress"]):
            self.assertEqual(self.run_command("help", *words), self.run_command(*words, "--help"))
        self.assertEqual(2, self.run_command("help", "rebild")[0])

    def test_version(self) -> None:
        """`ncps version` begins like `ncps --version`, and names Python and Twisted."""
        code, out, _ = self.run_command("version")
        self.assertEqual(0, code)
        self.assertTrue(out.startswith(self.run_command("--version")[1]))
        self.assertIn(f"Twisted {twisted.__version__}", out)

    def test_a_reader_that_goes_away(self) -> None:
        """`ncps man | true` ends without a traceback."""
        with (Path(self.mktemp())).open("w") as file:

            def gone(_text: str) -> None:
                raise BrokenPipeError

            self.patch(sys, "stdout", mock.Mock(write=gone, fileno=file.fileno))
            self.assertEqual(1, cli.run(["man"]))


class SettingsTests(CommandCase):
    def test_values_are_printed_for_programs(self) -> None:
        """`ncps settings --json` has each setting by its key, without credentials."""
        code, out, _ = self.run_command(
            "settings",
            "--json",
            "--cache-upstream-url=http://me:hunter2@a",
            "--cache-upstream-url=http://b",
            "--cluster-secret=hunter2-hunter2-hunter2-hunter2",
            LOG_LEVEL="warn",
        )
        self.assertEqual(0, code)
        found = json.loads(out)
        self.assertIsNone(found["configuration-file"])
        self.assertEqual(
            {
                "value": "warn",
                "origin": "environment LOG_LEVEL",
                "flag": "--log-level",
                "variable": "LOG_LEVEL",
            },
            found["settings"]["log.level"],
        )
        values = {key: setting["value"] for key, setting in found["settings"].items()}
        self.assertEqual(["http://a", "http://b"], values["cache.upstream.urls"])
        self.assertIs(True, values["cache.sign-narinfo"])
        self.assertIsNone(values["cache.temp-path"])
        self.assertNotIn("hunter2", out)
        active = {row.key for row in TABLE if row.status is Status.ACTIVE and row.key}
        self.assertEqual(active, set(values))

    def test_values_are_printed_with_their_origins(self) -> None:
        """`ncps settings` shows values and sources, without credentials."""
        for command in ("settings", "check-config"):
            code, out, err = self.run_command(
                command,
                "--cache-upstream-url=http://me:hunter2@a",
                "--analytics-reporting-enabled",
                LOG_LEVEL="warn",
            )
            self.assertEqual(code, 0)
            self.assertRegex(out, r"log\.level +: warn +\(environment LOG_LEVEL\)")
            self.assertRegex(
                out, r"cache\.upstream\.urls +: http://a +\(flag --cache-upstream-url\)"
            )
            self.assertNotIn("hunter2", out + err)
            self.assertIn("ncps: warning: flag --analytics-reporting-enabled has no effect", err)
        self.assertEqual(self.logging, [])


class LoggingTests(SynchronousTestCase):
    def test_results_and_log_lines_do_not_mix(self) -> None:
        """The daemon logs to standard output, one-shot commands to standard error."""
        started: list[tuple[object, ...]] = []
        self.patch(logs, "start_logging", lambda *given, **rest: started.append(given))
        commands = cli.Commands(
            serve=lambda settings: 0,
            serve_with_workers=lambda settings: 0,
            migrate_up=lambda settings, dry_run: 0,
            migrate_status=lambda settings: 0,
            rebuild=lambda settings: 0,
            keys=lambda settings, options: 0,
        )
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            for arguments in (["serve"], ["migrate", "status"]):
                cli.run(arguments, commands=commands, surroundings=surroundings())
        self.assertEqual(started, [("info", out), ("info", err)])
