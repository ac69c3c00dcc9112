"""SIGHUP: the daemon reads its settings again, and running work continues."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.daemon import Daemon
from tests.system.caches import SyntheticCache, TestKey
from tests.system.crew import START_DEADLINE, WorkersStage, children
from tests.system.faults import Stall
from tests.system.manager import Manager
from tests.system.origin import Origin
from tests.system.stage import log_lines
from tests.waiting import wait_until

SIZE = 2_000_000


class ReloadStage(WorkersStage):
    """A daemon with a configuration file."""

    def setUp(self) -> None:
        super().setUp()
        self.file = self.directory / "config.yaml"
        self.netrc = self.directory / "netrc"
        self.netrc.touch()
        self.other = SyntheticCache(2, key=TestKey.of("other-1"))

    def write(self, origin: Origin, key: TestKey, **more: Any) -> None:
        """Write the file with one upstream; `more` are further branches."""
        cache = {"upstream": {"urls": [origin.url], "public-keys": [key.public]}}
        cache |= more.pop("cache", {})
        self.file.write_text(yaml.safe_dump({"cache": cache, **more}))

    def configured(self, manager: Manager | None = None, options: Sequence[str] = ()) -> Daemon:
        """Return a daemon that has read the file."""
        files = ["--config", str(self.file), "--netrc-file", str(self.netrc)]
        daemon = self.make_daemon(options=[*files, *options])
        daemon.environment |= dict(manager.variables()) if manager is not None else {}
        daemon.start(deadline=START_DEADLINE)
        self.wait_for_log(daemon, " serves ")  # the last line of a start may come after an answer
        return daemon

    def reload(self, daemon: Daemon, end: str = "reloaded: ") -> list[str]:
        """Send SIGHUP; return the lines about it, once one has this prefix."""
        before = len(self.messages(daemon))
        os.kill(daemon.pid, signal.SIGHUP)
        self.wait_for_log(daemon, end)
        wait_until(lambda: any(end in it for it in self.messages(daemon)[before:]), end)
        return self.messages(daemon)[before:]

    def messages(self, daemon: Daemon) -> list[str]:
        """Return the messages of the log so far, except those about requests."""
        found = [line["message"] for line in log_lines(daemon) if "duration_ms" not in line]
        return [message for message in found if message != "reading the settings again"]


class ReloadTests(ReloadStage):
    """One process."""

    def test_upstreams_and_keys(self) -> None:
        """New requests go to the new upstream; a running answer ends as it began."""
        path, unfetched = self.cache.add(SIZE), self.cache.add(1000)
        origin, elsewhere = self.mounted(Stall(SIZE // 2)), self.origin()
        self.other.mount(elsewhere)
        found = self.other.add(1000)
        self.other.mount(elsewhere)
        self.write(origin, self.cache.key)
        with Manager(self.directory) as manager:
            daemon = self.configured(manager, ["--cache-upstream-idle-timeout", "60s"])
            reader = self.exchange(daemon, self.nar_target(daemon, path))
            origin.wait_for_stall(path.nar_target)
            more: Mapping[str, Any] = {"log": {"level": "debug"}, "server": {"max-headers": 20}}
            self.write(elsewhere, self.other.key, **more)
            self.reload(daemon, "reloaded: upstream ")
            manager.wait_for("RELOADING=1")
            lines = manager.wait_for("READY=1", 2)
            self.assertTrue(any(line.startswith("STATUS=Serving ") for line in lines))
        said = "\n".join(self.messages(daemon))
        for words in (
            f"reloaded: cache.upstream.urls: {elsewhere.url} instead of {origin.url}",
            f"reloaded: cache.upstream.public-keys: {self.other.key.public} instead of",
            "reloaded: server.max-headers: 20 instead of 500",
            "reloaded: log.level: debug instead of info",
        ):
            self.assertIn(words, said)
        self.assertEqual(200, self.narinfo(daemon, found).status)
        self.assertEqual(404, self.narinfo(daemon, unfetched).status)
        self.assertEqual(404, self.narinfo(daemon, path).status, "its key is trusted no longer")
        many = {f"x_{number}": "y" for number in range(30)}
        self.assertEqual(431, self.ask(daemon, "/nix-cache-info", **many).status)
        origin.release()
        answer = reader.finish()
        self.assertEqual((True, path.file), (answer.whole, answer.body))

    def test_a_typo_changes_nothing(self) -> None:
        """The line is that of a start, and nothing changes."""
        path = self.cache.add(1000)
        origin = self.mounted()
        self.write(origin, self.cache.key)
        with Manager(self.directory) as manager:
            daemon = self.configured(manager)
            for text, words in (
                (
                    "cache:\n  hostnme: x\n",
                    "cache.hostnme: did you mean cache.hostname?",
                ),
                ("log:\n  level: loud\n", "log.level"),
                ("log: [\n", str(self.file)),
            ):
                self.file.write_text(text)
                (line,) = self.reload(daemon, "nothing is reloaded")
                self.assertIn(words, line)
            self.file.unlink()
            (line,) = self.reload(daemon, f"{self.file}")
            manager.wait_for("READY=1", 5)
            self.assertEqual(4, len(manager.lines("RELOADING=1")))
        self.assertEqual(200, self.narinfo(daemon, path).status)
        self.write(origin, self.cache.key)
        self.assertEqual(["reloaded: nothing has changed"], self.reload(daemon, "nothing has"))

    def test_some_changes_need_a_restart(self) -> None:
        """There is one line for each; all other changes are applied."""
        origin = self.mounted()
        self.write(origin, self.cache.key)
        daemon = self.configured()
        more: Mapping[str, Any] = {"server": {"max-requests": 7}, "cache": {"max-size": "10G"}}
        self.write(origin, self.cache.key, **more)
        lines = self.reload(daemon, "a restart is needed")
        self.assertIn("reloaded: server.max-requests: 7 instead of 5000", lines)
        self.assertIn("a restart is needed for cache.max-size: 10G instead of nothing", lines)
        self.assertIn(lines[-1], self.reload(daemon, "a restart is needed"), "it is said again")

    def test_credentials(self) -> None:
        """ncps reads credentials again, also those of a netrc file; no line shows them."""
        origin = self.mounted()
        self.write(origin, self.cache.key)
        self.netrc.write_text("machine 127.0.0.1 login nix password former\n")
        daemon = self.configured()
        self.netrc.write_text("machine 127.0.0.1 login nix password hidden\n")
        lines = self.reload(daemon)
        name = origin.url.removeprefix("http://")
        self.assertEqual(
            [f"reloaded: upstream {name} is asked with new settings or credentials"], lines
        )
        path = self.cache.add(1000)
        self.cache.mount(origin)
        self.assertEqual(200, self.narinfo(daemon, path).status)
        sent = origin.visits(f"/{path.digest}.narinfo")[-1].request.headers["authorization"]
        self.assertEqual(b"nix:hidden", base64.b64decode(sent.removeprefix("Basic ")))
        self.netrc.write_text("machine 127.0.0.1 login\n")
        self.assertEqual(1, len(self.reload(daemon, "the netrc file is wrong, ncps keeps")))
        path = self.cache.add(1000)
        self.cache.mount(origin)
        self.assertEqual(200, self.narinfo(daemon, path).status)
        visit = origin.visits(f"/{path.digest}.narinfo")[-1]
        self.assertEqual(sent, visit.request.headers["authorization"])
        self.assertNotIn("hidden", daemon.log)

    def test_a_file_that_hangs(self) -> None:
        """ncps keeps the former contents, applies all other changes, and reloads again later."""
        self.write(self.mounted(), self.cache.key)
        with Manager(self.directory) as manager:
            daemon = self.configured(manager)
            self.netrc.unlink()
            os.mkfifo(self.netrc)
            self.write(self.mounted(), self.cache.key, log={"level": "debug"})
            lines = self.reload(daemon, "reloaded: log.level")
            self.assertIn("cannot be read within 10 s", "\n".join(lines))
            manager.wait_for("READY=1", 2)
            # The thread that still waits for the pipe continues.
            os.close(os.open(self.netrc, os.O_WRONLY))
            self.netrc.unlink()
            self.netrc.touch()
            self.write(self.mounted(), self.cache.key)
            self.reload(daemon, "reloaded: log.level: info instead of debug")

    def test_many_signals_are_few_reloads(self) -> None:
        """Signals during a reload cause only one more reload."""
        self.write(self.mounted(), self.cache.key)
        daemon = self.configured()
        for _ in range(50):
            os.kill(daemon.pid, signal.SIGHUP)
        self.reload(daemon, "nothing has changed")
        self.assertLess(len(self.messages(daemon)), 40)
        self.assertEqual(200, self.ask(daemon, "/readyz").status)


class CrewTests(ReloadStage):
    """Several processes."""

    def test_all_workers_take_the_settings(self) -> None:
        """Each change is one line; a new worker begins with the new settings."""
        origin, elsewhere = self.mounted(), self.origin()
        paths = [self.other.add(1000) for _ in range(12)]
        self.other.mount(elsewhere)
        self.write(origin, self.cache.key)
        with Manager(self.directory) as manager:
            daemon = self.configured(manager, ["--workers", "2"])
            self.wait_until_all_serve(daemon)
            self.write(elsewhere, self.other.key)
            lines = self.reload(daemon, "reloaded: upstream ")
            self.assertEqual(1, sum("reloaded: cache.upstream.urls" in line for line in lines))
            manager.wait_for("READY=1", 2)
            self.assertIn("RELOADING=1", manager.wait_for("RELOADING=1"))
        for path in paths:
            self.assertEqual(200, self.narinfo(daemon, path).status)
        os.kill(children(daemon.pid)[0], signal.SIGKILL)
        self.wait_for_starts(daemon, 3)
        more = [self.other.add(1000) for _ in range(12)]
        self.other.mount(elsewhere)
        for path in more:
            self.assertEqual(200, self.narinfo(daemon, path).status)
        said = "\n".join(self.messages(daemon))
        self.assertEqual(1, said.count("is asked with new settings"))

    def test_a_typo_changes_nothing(self) -> None:
        """No worker gets new settings."""
        path = self.cache.add(1000)
        self.write(self.mounted(), self.cache.key)
        daemon = self.configured(options=["--workers", "2"])
        self.wait_until_all_serve(daemon)
        Path(self.file).write_text("cache: 7\n")
        lines = [it for it in self.reload(daemon, "nothing is reloaded") if "is reloaded" in it]
        self.assertEqual(1, len(lines))
        self.assertIn("cache", lines[0])
        self.assertEqual(200, self.narinfo(daemon, path).status)
