"""The plugin of twistd: options from the table of settings, and the service made from them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn, cast

from twisted.application.service import IService
from twisted.logger import ILogObserver
from twisted.python import usage

import ncps
from ncps.aio.imports import named
from ncps.aio.signals import handle_signals
from ncps.commandline.parser import settings_help
from ncps.observe import log_queue, logs
from ncps.process.launch import Launch
from ncps.settings.hints import hint_for
from ncps.settings.load import load
from ncps.settings.problems import InvalidSettings
from ncps.settings.schema.tree import Settings
from ncps.settings.table import by_flag

_last_loaded: list[Settings] = []
_in_foreground: list[bool] = []
"""Not empty if twistd stays in the foreground; a forked daemon has no thread for the log."""


def observer() -> ILogObserver:
    """Return the log observer of the settings, for `twistd --logger=ncps.tap.observer`."""
    log = _last_loaded[-1].log
    return logs.observer(
        log.level,
        sys.stdout,
        human=log.console_writer_enabled,
        prefix=log.console_writer_prefix,
        is_queued=bool(_in_foreground),
    )


class Options(usage.Options):
    """The settings as options of twistd: `twistd ncps --cache-hostname=cache.example.org`.

    :ivar settings: None until the options are parsed.
    """

    synopsis = "[--SETTING=VALUE ...]"
    longdesc = "A pull-through binary cache for Nix. These are the settings of `ncps serve`, too."

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, list[str]] = {}
        self.settings: Settings | None = None
        self._explains = True

    def getUsage(self, width: int | None = None) -> str:
        """Explain the settings by group, as `ncps serve --help` does.

        twistd also prints the usage before an error, which users would overlook below a hundred
        flags. For an error, the usage is therefore one line.
        """
        if not self._explains:
            return "`twistd ncps --help` explains the settings."
        return f"{self.longdesc}\n\n{settings_help()}"

    def opt_version(self) -> NoReturn:
        """Show the version of ncps."""
        sys.stdout.write(f"ncps {ncps.__version__}\n")
        raise SystemExit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse the settings here: `usage.Options` knows neither lists nor `=false`."""
        try:
            super().parseOptions(self._rest(list(options or ())))
        except usage.UsageError:
            self._explains = False
            raise

    def _rest(self, words: list[str]) -> list[str]:
        """Store the settings; return the other words. Raises UsageError if an option is unknown."""
        known = by_flag()
        rest: list[str] = []
        while words:
            word = words.pop(0)
            flag, equals, text = word.removeprefix("--").partition("=")
            setting = known.get(flag) if word.startswith("--") else None
            if setting is not None:
                if not equals and setting.is_flag_alone_true:
                    text = "true"
                elif not equals and not words:
                    raise usage.UsageError(f"flag --{flag} needs a value")
                elif not equals:
                    text = words.pop(0)
                self.given.setdefault(flag, []).append(text)
            elif word in {"--help", "--version"}:
                rest.append(word)
            else:
                # getopt would accept any unambiguous prefix of a name.
                hint = hint_for(flag, known, "--")
                raise usage.UsageError(f"unknown option {word.partition('=')[0]}{hint}")
        return rest

    def postOptions(self) -> None:
        """Load the settings; here twistd prints an error without a traceback."""
        try:
            self.settings = load(self.given)
        except InvalidSettings as error:
            raise usage.UsageError(str(error)) from None
        if self.settings.server.workers > 1:
            raise usage.UsageError(
                "server-workers: twistd runs one process: use `ncps serve`, or leave it out"
            )
        _last_loaded[:] = [self.settings]
        self._choose_observer(self.parent)

    def _choose_observer(self, twistd: usage.Options | None) -> None:
        """Make the settings decide on the log, unless an option of twistd does."""
        if twistd is None or not twistd.get("nodaemon") or "logger" not in twistd:
            return  # `twist` has options of its own, and a daemon logs to twistd.log
        _in_foreground[:] = [True]
        if not any(twistd.get(option) for option in ("logger", "logfile", "syslog")):
            twistd["logger"] = "ncps.tap.observer"


def makeService(options: Options) -> IService:
    """Return the service; errors in the settings were reported before."""
    settings = options.settings
    if settings is None:
        options.postOptions()
        settings = options.settings
    assert settings is not None
    logs.log_warnings(settings.warnings)
    service = named("ncps.assembly.service:NcpsService")(settings)
    reactor = named("twisted.internet.reactor")
    handle_signals(reactor, service.ending.cut, service.reload.ask)
    # After the shutdown, twistd kills itself with the signal that ended it.
    reactor.addSystemEventTrigger("after", "shutdown", log_queue.settle)
    twistd = options.parent
    if twistd is not None and "pidfile" in twistd:  # `twist` has no such option, and does not fork
        forks = not (twistd["nodaemon"] or twistd["debug"])
        service.started = Launch(reactor, twistd["pidfile"] or "", forks=forks).ended
    return cast("IService", service)
