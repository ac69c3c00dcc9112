"""The daemon's life: how it starts, where it listens, how it ends."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from ncps.database.migration import known
from tests.e2e.daemon import Daemon, free_port
from tests.system.caches import TestKey
from tests.system.faults import Fault, Request, Silence, Stall, Status
from tests.system.program import environment, run, run_ncps, settings_of
from tests.system.stage import Stage, log_lines, wait_until
from tests.system.wire import Exchange, raw_status, send_raw

SIZE = 2_000_000
MIDDLE = 1_000_000
LONG = [f"/{number:03}{'x' * 200}" for number in range(250)]
"""Paths of which the log's lines are more than a pipe holds."""
GET_INDEX = b"GET /nix-cache-info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
#: What is told of an address that is taken: one line, with what was given, and no more.
TAKEN = r"\Ancps: error: cannot listen on 127\.0\.0\.1:{port}: Address already in use\n\Z"

TWISTD = (
    *("-c", "from twisted.scripts.twistd import run; run()"),
    *("-n", "--pidfile=", "ncps"),
)

PASS_SOCKETS = """
import json, os, socket, sys
fds = json.loads(sys.argv[1])
for number, fd in enumerate(fds):
    os.dup2(fd, 3 + number)
    os.set_inheritable(3 + number, True)
os.environ["LISTEN_FDS"] = str(len(fds))
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDNAMES"] = sys.argv[2]
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""


class LifeStage(Stage):
    """Processes that the test starts in its own way."""

    def spawn(
        self,
        daemon: Daemon,
        command: Sequence[str],
        *,
        more: Mapping[str, str] | None = None,
        fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start `python COMMAND` with its output in the daemon's log."""
        with (daemon.directory / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command],
                env=environment(daemon.directory / "home", **(more or {})),
                cwd=daemon.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=fds,
            )
        self.addCleanup(process.wait, 10)
        self.addCleanup(process.kill)
        return process

    def wait_until_listening(self, daemon: Daemon) -> None:
        """Wait until the daemon's port answers."""
        wait_until(lambda: self.answers(daemon), "the daemon to answer", daemon=daemon)

    def answers(self, daemon: Daemon) -> bool:
        """Tell whether the daemon serves."""
        with contextlib.suppress(OSError):
            return self.ask(daemon, "/readyz").status == 200
        return False

    def end(self, process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
        """Ask a process to end, and see that it does so with exit code 0."""
        process.send_signal(number)
        self.assertEqual(0, process.wait(20))


class StopTests(LifeStage):
    """SIGTERM."""

    def arriving(self, drain: str) -> tuple[Daemon, Exchange, bytes, object]:
        path = self.cache.add(SIZE)
        origin = self.mounted(Stall(MIDDLE))
        options = ["--cache-upstream-idle-timeout", "60s", "--server-drain-timeout", drain]
        daemon = self.daemon(origin, options=options)
        reader = self.exchange(daemon, self.nar_target(daemon, path))
        origin.wait_for_stall(path.nar_target)
        self.release = origin.release
        return daemon, reader, path.file, origin

    def test_stopped_while_it_starts(self) -> None:
        """Whenever it is told to, it ends without a complaint."""
        seen = set()
        for wait in range(14):
            daemon = self.make_daemon(self.origin())
            with (daemon.directory / "log").open("ab") as log:
                started = subprocess.Popen(
                    daemon.command(),
                    env=environment(daemon.directory / "home"),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            last = known("sqlite")[-1].version
            wait_until(lambda: f"applied migration {last} " in daemon.log, "it to begin")  # noqa: B023
            time.sleep(wait / 1000)
            started.send_signal(signal.SIGTERM)
            # Before the reactor runs the signal itself ends it.
            self.assertIn(started.wait(30), {0, -signal.SIGTERM})
            seen.add("serves" in daemon.log)
            for line in log_lines(daemon):
                self.assertEqual("info", line["level"], line)
        self.assertIn(False, seen)

    def test_told_to_end_twice(self) -> None:
        """A second signal cuts what runs, without a traceback, however it was started."""
        path = self.cache.add(SIZE)
        for command in (["-m", "ncps", "serve"], list(TWISTD), ["-m", "twisted", "ncps"]):
            origin = self.mounted(Stall(MIDDLE))
            options = ["--cache-upstream-idle-timeout", "60s", "--server-drain-timeout", "60s"]
            daemon = self.make_daemon(origin, options=options)
            process = self.spawn(daemon, [*command, *settings_of(daemon)])
            self.wait_until_listening(daemon)
            for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
                process.send_signal(number)
            reader = self.exchange(daemon, self.nar_target(daemon, path))
            origin.wait_for_stall(path.nar_target)
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: not self.answers(daemon), "it to stop", daemon=daemon)  # noqa: B023
            self.assertIsNone(process.poll())
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            self.assertIn(process.wait(20), {0, -signal.SIGTERM})
            self.assertLess(time.monotonic() - began, 8)
            self.assertFalse(reader.finish().whole)
            self.assertIn("SIGHUP changes nothing", daemon.log)
            self.assertIn("a second signal cuts them", daemon.log)
            self.assertIn("ncps has stopped", daemon.log)
            self.assertNotIn("Traceback", daemon.log)

    def test_not_ready_comes_first(self) -> None:
        """During the delay everything is served, and `/readyz` says no; a second signal ends it."""
        daemon = self.daemon(self.origin(), options=["--server-drain-delay", "60s"])
        os.kill(daemon.pid, signal.SIGTERM)
        wait_until(lambda: self.ask(daemon, "/readyz").status == 503, "it to say no")
        self.assertEqual(200, self.ask(daemon, "/nix-cache-info").status)
        began = time.monotonic()
        daemon.stop()
        self.assertLess(time.monotonic() - began, 8)

    def test_slow_download_is_cut_at_the_deadline(self) -> None:
        """A download that is not done at the drain deadline is cut, with exit code 0."""
        daemon, reader, file, _ = self.arriving("1s")
        began = time.monotonic()
        daemon.stop()
        took = time.monotonic() - began
        self.assertGreater(took, 0.9)
        self.assertLess(took, 10)
        answer = reader.finish()
        self.assertFalse(answer.whole)
        self.assertTrue(file.startswith(answer.body))
        self.assertEqual([], list((daemon.directory / "tmp").iterdir()))
        self.assertEqual([], daemon.stored_nars())

    def test_running_download_is_let_finish(self) -> None:
        """A download that ends before the deadline reaches its client whole and is stored."""
        daemon, reader, file, _ = self.arriving("20s")
        stopped = self.in_background(daemon.stop)
        wait_until(lambda: not self.is_listening(daemon), "the port to close", daemon=daemon)
        self.release()
        answer = reader.finish()
        self.assertEqual((True, file), (answer.whole, answer.body))
        stopped.result(20)
        self.assertEqual(1, len(daemon.stored_nars()))

    def is_listening(self, daemon: Daemon) -> bool:
        """Whether the daemon takes connections."""
        try:
            socket.create_connection(("127.0.0.1", daemon.port), 5).close()
        except ConnectionRefusedError:
            return False
        return True

    def test_idle_connections_do_not_hold_it_up(self) -> None:
        """Kept-alive connections without a request are closed at once."""
        daemon = self.daemon(self.origin(), options=["--server-drain-timeout", "60s"])
        with socket.create_connection(("127.0.0.1", daemon.port), 20) as line:
            line.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual(200, raw_status(line.recv(65536)))
            began = time.monotonic()
            daemon.stop()
            self.assertLess(time.monotonic() - began, 10)
            self.assertEqual(b"", line.recv(1))
        self.wait_for_log(daemon, "ncps has stopped")

    def test_stop_while_an_upstream_is_silent(self) -> None:
        """A request that waits for a silent upstream does not outlive the drain deadline."""
        path = self.cache.add()
        origin = self.mounted()
        origin.serve(f"/{path.digest}.narinfo", b"", plan=lambda _: [Silence()])
        options = [
            *("--cache-upstream-response-header-timeout", "60s"),
            *("--server-drain-timeout", "500ms"),
        ]
        daemon = self.daemon(origin, options=options)
        asking = self.in_background(lambda: self.raw_narinfo(daemon, path.digest))
        origin.wait_for(lambda: origin.gets(f"/{path.digest}.narinfo"))
        daemon.stop()
        self.assertEqual(b"", asking.result(20))

    def raw_narinfo(self, daemon: Daemon, digest: str) -> bytes:
        """Ask for a narinfo and return all that comes."""
        data = f"GET /{digest}.narinfo HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        return send_raw(("127.0.0.1", daemon.port), data)

    def test_interrupt_is_a_stop_too(self) -> None:
        """Ctrl-C ends it in order, too."""
        daemon = self.make_daemon(self.origin())
        process = self.spawn(daemon, ["-m", "ncps", "serve", *settings_of(daemon)])
        self.wait_until_listening(daemon)
        self.end(process, signal.SIGINT)
        self.wait_for_log(daemon, "ncps has stopped")


class LogTests(LifeStage):
    """Where the log goes."""

    def test_a_pipe_that_nobody_reads(self) -> None:
        """More lines than a pipe holds hold up neither answers nor the end, and none is lost."""
        daemon = self.make_daemon(self.origin())
        read_fd, write_fd = os.pipe()
        with os.fdopen(read_fd, "rb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "ncps", "serve", *settings_of(daemon)],
                env=environment(daemon.directory / "home"),
                stdin=subprocess.DEVNULL,
                stdout=write_fd,
                stderr=subprocess.DEVNULL,
            )
            os.close(write_fd)
            self.addCleanup(process.wait, 10)
            self.addCleanup(process.kill)
            self.wait_until_listening(daemon)
            for path in LONG:
                self.assertEqual(404, self.ask(daemon, path).status)
            reading = self.in_background(log.read)
            metrics = self.ask(daemon, "/metrics").body
            self.assertIn(b"ncps_log_lines_dropped_total 0.0", metrics)
            self.end(process)
            lines = reading.result(20).splitlines()
        paths = [json.loads(line).get("path", "") for line in lines]
        self.assertEqual(LONG, [path for path in paths if path.endswith("xxx")])

    def test_the_end_waits_for_no_reader(self) -> None:
        """SIGTERM ends a daemon whose log nobody reads, with exit code 0."""
        daemon = self.make_daemon(self.origin())
        read_fd, write_fd = os.pipe()
        self.addCleanup(os.close, read_fd)
        command = ["-m", "ncps", "serve", *settings_of(daemon)]
        process = subprocess.Popen(
            [sys.executable, *command],
            env=environment(daemon.directory / "home"),
            stdin=subprocess.DEVNULL,
            stdout=write_fd,
            stderr=write_fd,
        )
        os.close(write_fd)
        self.addCleanup(process.wait, 10)
        self.addCleanup(process.kill)
        self.wait_until_listening(daemon)
        for path in LONG:
            self.ask(daemon, path)
        began = time.monotonic()
        self.end(process)
        self.assertLess(time.monotonic() - began, 10)


class ListenTests(LifeStage):
    """Where it listens."""

    def serve_on(self, *addresses: str) -> Daemon:
        """Return a daemon that also listens on these addresses."""
        options = [word for address in addresses for word in ("--server-addr", address)]
        return self.daemon(self.origin(), options=options)

    def test_unix_socket(self) -> None:
        """A `unix:` endpoint is listened on, beside others, and removed at the end."""
        path = self.directory / "ncps.sock"
        daemon = self.serve_on(f"unix:{path}:mode=660")
        self.assertEqual(0o660, path.stat().st_mode & 0o777)
        self.assertEqual(200, raw_status(send_raw(str(path), GET_INDEX)))
        self.assertEqual(200, self.ask(daemon, "/nix-cache-info").status)
        daemon.kill()
        daemon.start()
        self.assertEqual(200, raw_status(send_raw(str(path), GET_INDEX)))
        daemon.stop()
        self.assertFalse(path.exists())

    def test_a_socket_whose_file_was_removed(self) -> None:
        """It ends in order though nothing is left to be removed, its directory neither."""
        path = self.directory / "run" / "ncps.sock"
        path.parent.mkdir()
        daemon = self.serve_on(f"unix:{path}")
        shutil.rmtree(path.parent)
        daemon.stop()
        self.assertFalse(path.exists())
        self.assertIn("ncps has stopped", daemon.log)

    def test_several_addresses(self) -> None:
        """Host and port, IPv6 and endpoint strings can be mixed."""
        ports = [free_port() for _ in range(2)]
        self.serve_on(f"tcp:{ports[0]}:interface=127.0.0.1", f"localhost:{ports[1]}")
        for port in ports:
            self.assertEqual(200, raw_status(send_raw(("127.0.0.1", port), GET_INDEX)))

    def test_sockets_of_systemd(self) -> None:
        """Sockets passed by systemd are served from, by index and by name."""
        daemon = self.make_daemon(self.origin())
        path = self.directory / "passed.sock"
        with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0)) as tcp:
            unix.bind(str(path))
            unix.listen()
            flags = settings_of(daemon)
            at = flags.index("--server-addr")
            flags[at + 1] = "systemd:domain=INET:index=0"
            flags += ["--server-addr", "systemd:domain=UNIX:name=unix"]
            fds = [tcp.fileno(), unix.fileno()]
            command = ["-c", PASS_SOCKETS, json.dumps(fds), "web:unix", "-m", "ncps", "serve"]
            process = self.spawn(daemon, [*command, *flags], fds=fds)
            daemon.port = tcp.getsockname()[1]
            self.assertEqual(200, self.ask(daemon, "/nix-cache-info").status)
            self.assertEqual(200, raw_status(send_raw(str(path), GET_INDEX)))
            self.end(process)

    def test_port_in_use_is_told(self) -> None:
        """A port that is taken is one line that names it as it was given, with exit code 1."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            daemon = self.make_daemon(self.origin())
            done = run_ncps(daemon, "serve", flags=["--server-addr", f"127.0.0.1:{port}"])
        self.assertEqual(1, done.returncode, done.stdout)
        self.assertRegex(done.stderr, TAKEN.format(port=port))
        self.assertNotIn('"fatal"', done.stdout)
        self.assertNotIn("has stopped", done.stdout)

    def test_systemd_is_notified(self) -> None:
        """systemd hears when it is ready and when it is stopping."""
        path = self.directory / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.bind(str(path))
            channel.settimeout(20)
            daemon = self.make_daemon(self.origin())
            command = ["-m", "ncps", "serve", *settings_of(daemon)]
            process = self.spawn(daemon, command, more={"NOTIFY_SOCKET": str(path)})
            self.assertIn(b"READY=1", channel.recv(4096))
            self.assertEqual(200, self.ask(daemon, "/readyz").status)
            self.end(process)
            self.assertIn(b"STOPPING=1", channel.recv(4096))


class TwistdTests(LifeStage):
    """Twisted's own ways to run it."""

    def test_twistd(self) -> None:
        """`twistd -n ncps` serves and stops like `ncps serve`."""
        daemon = self.make_daemon(self.origin())
        command = [*TWISTD, *settings_of(daemon)]
        process = self.spawn(daemon, command)
        self.wait_until_listening(daemon)
        self.end_by_signal(process)
        self.wait_for_log(daemon, "ncps has stopped")

    def end_by_signal(self, process: subprocess.Popen[bytes]) -> None:
        """Ask a process of Twisted to end: by design it then dies of the signal it was sent."""
        process.send_signal(signal.SIGTERM)
        self.assertIn(process.wait(20), {0, -signal.SIGTERM})

    def test_twist(self) -> None:
        """`twist ncps` serves and stops."""
        daemon = self.make_daemon(self.origin())
        process = self.spawn(daemon, ["-m", "twisted", "ncps", *settings_of(daemon)])
        self.wait_until_listening(daemon)
        self.end_by_signal(process)
        self.wait_for_log(daemon, "ncps has stopped")

    def test_twistd_tells_what_is_wrong(self) -> None:
        """A misspelt option is told as `ncps serve` tells it."""
        home = self.directory
        done = run([*TWISTD, "--cache-hostnme=x"], home)
        self.assertNotEqual(0, done.returncode)
        self.assertIn("did you mean --cache-hostname", done.stdout + done.stderr)
        self.assertNotIn("Traceback", done.stdout + done.stderr)

    def test_twistd_refuses_a_store_in_use(self) -> None:
        """A store that another daemon holds is told under twistd, too."""
        daemon = self.daemon(self.origin())
        command = [*TWISTD, *settings_of(daemon)]
        done = run(command, daemon.directory / "home")
        self.assertEqual(1, done.returncode)
        said = done.stdout + done.stderr
        self.assertRegex(said, r"is in use by process \d+ on ")
        self.assertNotIn("Traceback", said)

    def test_twist_refuses_a_store_in_use(self) -> None:
        """A store that another daemon holds is told under twist, too."""
        daemon = self.daemon(self.origin())
        done = run(["-m", "twisted", "ncps", *settings_of(daemon)], daemon.directory / "home")
        self.assertEqual(1, done.returncode)
        self.assertRegex(done.stdout + done.stderr, r"is in use by process \d+ on ")

    def daemonized(self, daemon: Daemon, *flags: str) -> subprocess.CompletedProcess[str]:
        """Run `twistd ncps` as a user does who wants a daemon, until the command ends."""
        where = daemon.directory
        twistd = [*TWISTD[:2], f"--pidfile={where}/pid", f"--logfile={where}/log"]
        return run([*twistd, "ncps", *settings_of(daemon), *flags], where / "home")

    def test_a_daemon_that_serves_ends_the_command(self) -> None:
        """`twistd ncps` ends with 0 once the daemon serves, which then turns its log and stops."""
        daemon = self.make_daemon(self.origin())
        done = self.daemonized(daemon)
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        pid = int((daemon.directory / "pid").read_text())
        self.addCleanup(self.end_for_good, pid)
        self.assertEqual(200, self.ask(daemon, "/readyz").status)
        os.kill(pid, signal.SIGUSR1)
        wait_until(lambda: (daemon.directory / "log.1").exists(), "the log to be turned")
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not (daemon.directory / "pid").exists(), "it to end", daemon=daemon)

    def end_for_good(self, pid: int) -> None:
        """Kill a daemon that should have ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def test_a_daemon_that_cannot_start_ends_the_command(self) -> None:
        """The command ends with 1, says why in one line, and leaves no pid file."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            for flags, reason in (
                (["--cache-secret-key-path=/nonexistent"], "/nonexistent"),
                ([f"--server-addr=127.0.0.1:{taken.getsockname()[1]}"], "cannot listen on"),
            ):
                daemon = self.make_daemon(self.origin())
                done = self.daemonized(daemon, *flags)
                self.assertEqual(1, done.returncode)
                self.assertRegex(done.stderr, rf"^ncps: error: .*{reason}.*\n$")
                wait_until(lambda: not (daemon.directory / "pid").exists(), "it to end")  # noqa: B023

    def test_in_the_foreground_no_pid_file_is_left(self) -> None:
        """`twistd -n` writes one, too."""
        daemon = self.make_daemon(self.origin())
        where = daemon.directory
        command = [*TWISTD[:2], "-n", f"--pidfile={where}/pid", "ncps", *settings_of(daemon)]
        done = run([*command, "--cache-secret-key-path=/nonexistent"], where / "home")
        self.assertEqual(1, done.returncode)
        self.assertFalse((where / "pid").exists())

    def test_port_in_use_ends_twistd(self) -> None:
        """A port that is taken ends twistd instead of leaving it there without a port."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            daemon = self.make_daemon(self.origin())
            flags = [*settings_of(daemon), "--server-addr", f":{taken.getsockname()[1]}"]
            done = run([*TWISTD, *flags], daemon.directory / "home")
        self.assertIn("cannot listen on", done.stdout + done.stderr)


class KeyTests(LifeStage):
    """The signing key, and names and passwords for upstreams."""

    def test_imported_key_signs(self) -> None:
        """A key file in Nix's format becomes the signing key."""
        key = TestKey.of("imported.test-7")
        file = self.directory / "secret"
        secret = bytes(key.key) + bytes(key.key.verify_key)
        file.write_text(f"{key.name}:{base64.b64encode(secret).decode()}\n")
        path = self.cache.add()
        daemon = self.daemon(self.mounted(), options=["--cache-secret-key-path", str(file)])
        self.assertEqual(key.public, daemon.public_key())
        text = self.narinfo(daemon, path).body.decode()
        self.assertIn(f"Sig: {key.sign(path.fingerprint)}\n", text)

    def test_bad_key_file_is_told_without_its_content(self) -> None:
        """A key file that holds something else is an error at start that does not show it."""
        file = self.directory / "secret"
        file.write_text("oops:c2VjcmV0LXNlY3JldA==\n")
        daemon = self.make_daemon(self.origin())
        for name in (str(file), str(self.directory / "missing")):
            done = run_ncps(daemon, "serve", flags=["--cache-secret-key-path", name])
            self.assertIn(done.returncode, {1, 2})
            self.assertIn(name, done.stderr)
            self.assertNotIn("c2VjcmV0", done.stdout + done.stderr)
            self.assertNotIn("Traceback", done.stdout + done.stderr)

    def test_upstream_with_a_password(self) -> None:
        """Names and passwords of the netrc file reach their upstream, and no other."""
        path = self.cache.add(SIZE)

        def guard(request: Request) -> Sequence[Fault]:
            wanted = "Basic YWxpY2U6c2VzYW1l"
            return [] if request.headers.get("authorization") == wanted else [Status(401)]

        guarded, other = self.mounted(), self.origin()
        guarded.plan = guard
        netrc = self.directory / "netrc"
        netrc.write_text("machine 127.0.0.1 login alice password sesame\n")
        other_url = other.url.replace("127.0.0.1", "localhost")
        daemon = self.daemon(other_url, guarded, options=["--netrc-file", str(netrc)])
        self.assert_served(daemon, path)
        self.assertTrue(other.log)
        for visit in other.log:
            self.assertNotIn("authorization", visit.request.headers)
        self.assertNotIn("sesame", daemon.log)

    def test_wrong_password_leaves_other_upstreams_alone(self) -> None:
        """An upstream that refuses the password does not keep others from answering."""
        path = self.cache.add()
        refusing, good = self.mounted(), self.mounted()
        refusing.plan = lambda _: [Status(401)]
        daemon = self.daemon(refusing, good)
        self.assertEqual(200, self.narinfo(daemon, path).status)


class StartTests(LifeStage):
    """What stops a start."""

    def refused(self, *flags: str, code: int = 2, **variables: str) -> str:
        """Start with these flags; return what was said instead of starting."""
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        done = run(["-m", "ncps", "serve", *flags], home, variables)
        said = done.stdout + done.stderr
        self.assertEqual(code, done.returncode, said)
        self.assertNotIn("Traceback", said)
        self.assertIn("error: ", said)
        return said

    def test_wrong_flags_are_told(self) -> None:
        """Misspelt flags and wrong values are named, with what would be right."""
        for flags, words in (
            (["--cache-hostnme=x"], ["--cache-hostnme", "did you mean --cache-hostname"]),
            (["--server-drain-timeout=5"], ["server-drain-timeout"]),
            (["--server-addr=nonsense:x"], ["server-addr", "nonsense"]),
            (["--cache-upstream-url=ftp://x"], ["cache-upstream-url", "ftp"]),
            (["--cache-upstream-public-key=x"], ["cache-upstream-public-key"]),
            (["--log-level=loud"], ["log-level", "loud", "info"]),
            (["--cache-database-url=oracle://x/y"], ["cache-database-url", "postgresql:"]),
            (["--cache-lru-schedule=@daily"], ["cache-lru-schedule", "cache-max-size"]),
            (["--config=/nonexistent.yaml"], ["/nonexistent.yaml"]),
            (["nonsense"], ["nonsense"]),
        ):
            said = self.refused(*flags)
            for word in words:
                self.assertIn(word, said)

    def test_wrong_keys_of_files_are_told(self) -> None:
        """Unknown keys and wrong values of a file are named, in all three formats."""
        for name, text in (
            ("a.yaml", "cache:\n  hostnme: x\n"),
            ("a.toml", '[cache]\nhostnme = "x"\n'),
            ("a.json", '{"cache": {"hostnme": "x"}}'),
        ):
            file = self.directory / name
            file.write_text(text)
            said = self.refused(f"--config={file}")
            self.assertIn("cache.hostnme", said)
            self.assertIn("did you mean cache.hostname", said)
        broken = self.directory / "broken.yaml"
        broken.write_text("cache: [\n")
        self.assertIn("broken.yaml", self.refused(f"--config={broken}"))

    def test_wrong_variables_are_told(self) -> None:
        """Wrong values of the environment are named by their variable."""
        self.assertIn("SERVER_DRAIN_TIMEOUT", self.refused(SERVER_DRAIN_TIMEOUT="soon"))

    def test_unusable_places_are_told(self) -> None:
        """A storage path or database that cannot be is told with exit code 1."""
        file = self.directory / "file"
        file.write_text("not a database, not a directory, just some text")
        base = [f"--cache-storage-local={self.directory}/storage"]
        said = self.refused(f"--cache-storage-local={file}", code=1)
        self.assertIn(str(file), said)
        said = self.refused(*base, f"--cache-database-url=sqlite:{file}/x/db", code=1)
        self.assertIn(str(file), said)
        said = self.refused(*base, f"--cache-database-url=sqlite:{file}", code=1)
        self.assertIn("not a database", said)

    def test_settings_from_everywhere(self) -> None:
        """A file, the environment and flags each have their say, in that order."""
        file = self.directory / "ncps.yaml"
        file.write_text(
            "cache:\n  hostname: file.test\n  nix-cache-info:\n    priority: 31\n"
            "server:\n  drain-timeout: 7s\n"
        )
        daemon = self.make_daemon(self.origin())
        flags = settings_of(daemon)
        at = flags.index("--cache-hostname")
        del flags[at : at + 2]
        more = {"CACHE_HOSTNAME": "env.test", "CACHE_NIX_CACHE_INFO_PRIORITY": "32"}
        command = ["-m", "ncps", "serve", *flags, f"--config={file}"]
        process = self.spawn(daemon, [*command, "--cache-hostname", "flag.test"], more=more)
        self.wait_until_listening(daemon)
        self.assertEqual("flag.test", self.ask(daemon, "/").json["hostname"])
        self.assertIn(b"Priority: 32\n", self.ask(daemon, "/nix-cache-info").body)
        self.end(process)

    def test_help_and_version(self) -> None:
        """--help names every setting, --version the version; both leave with exit code 0."""
        done = run(["-m", "ncps", "serve", "--help"], self.directory)
        self.assertEqual(0, done.returncode)
        for flag in ("--cache-hostname", "--cache-upstream-url", "--server-drain-timeout"):
            self.assertIn(flag, done.stdout)
        done = run(["-m", "ncps", "--version"], self.directory)
        self.assertEqual(0, done.returncode)
        self.assertRegex(done.stdout, r"^ncps \d+\.\d+")


class MigrateTests(LifeStage):
    """`ncps migrate`."""

    def test_migrations_by_hand(self) -> None:
        """`migrate up` makes the schema that `serve` makes, and `status` tells where it is."""
        daemon = self.make_daemon(self.origin())
        before = run_ncps(daemon, "migrate", "status")
        self.assertEqual(0, before.returncode, before.stderr)
        self.assertIn("pending 0001", before.stdout)
        dry = run_ncps(daemon, "migrate", "up", "--dry-run")
        self.assertIn("pending 0001", dry.stdout)
        up = run_ncps(daemon, "migrate", "up")
        self.assertEqual(0, up.returncode, up.stderr)
        self.assertIn("applied 0001", up.stdout)
        again = run_ncps(daemon, "migrate", "up")
        self.assertIn("up to date", again.stdout)
        after = run_ncps(daemon, "migrate", "status")
        self.assertNotIn("pending", after.stdout)
        daemon.start()
        self.assertNotIn("applied migration", daemon.log)

    def test_newer_schema_is_refused(self) -> None:
        """A database that a newer ncps has migrated is not touched."""
        daemon = self.daemon(self.origin())
        daemon.stop()
        with contextlib.closing(sqlite3.connect(daemon.directory / "catalog.sqlite")) as db:
            (table,) = (
                row[0]
                for row in db.execute(
                    "SELECT name FROM sqlite_master WHERE name LIKE '%migration%'"
                )
            )
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            row = dict(zip(columns, db.execute(f"SELECT * FROM {table}").fetchone(), strict=True))
            row["version"] = 9999
            marks = ", ".join("?" * len(columns))
            db.execute(f"INSERT INTO {table} VALUES ({marks})", list(row.values()))
            db.commit()
        done = run_ncps(daemon, "serve")
        self.assertEqual(1, done.returncode)
        self.assertIn("newer", done.stderr)
        self.assertNotIn("Traceback", done.stdout + done.stderr)
