"""Messages to systemd or another service manager, and sockets from it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence

from tests.e2e.daemon import Daemon
from tests.system.crew import WorkersStage
from tests.system.life import GET_INDEX, PASS_SOCKETS
from tests.system.manager import Manager
from tests.system.program import settings_of
from tests.system.wire import raw_status, send_raw


class ManagerTests(WorkersStage):
    """The messages to the service manager."""

    def serve(
        self, manager: Manager, *options: str, watchdog_s: float = 0.0
    ) -> tuple[Daemon, subprocess.Popen[bytes]]:
        """Start a daemon under a manager, and wait until it is ready."""
        daemon = self.make_daemon(self.origin(), options=options)
        more: Mapping[str, str] = manager.variables(watchdog_s)
        process = self.spawn(daemon, ["-m", "ncps", "serve", *settings_of(daemon)], more=more)
        manager.wait_for("READY=1")
        return daemon, process

    def test_it_hears_of_start_and_end(self) -> None:
        """The daemon is ready when it serves; its last message has the longest time of the end."""
        with Manager(self.directory) as manager:
            daemon, process = self.serve(manager)
            self.assertIn(f"http://127.0.0.1:{daemon.port}", manager.lines("STATUS=")[0])
            self.assertEqual(200, self.ask(daemon, "/readyz").status)
            manager.wait_for("STATUS=", 2)
            self.assertIn("0 NARs, 0.0 GiB", manager.lines("STATUS=")[-1])
            self.end(process)
            self.assertEqual(["STOPPING=1", "EXTEND_TIMEOUT_USEC=25000000"], manager.look()[-1])
            self.assertEqual([], manager.lines("WATCHDOG"))

    def test_its_watchdog_gets_a_pulse_from_the_reactor(self) -> None:
        """A blocked process sends no pulse; a watchdog of one second becomes longer."""
        with Manager(self.directory) as manager:
            daemon, process = self.serve(manager, watchdog_s=1.0)
            self.assertIn("WATCHDOG_USEC=10000000", manager.wait_for("READY=1"))
            manager.wait_for("WATCHDOG=1", 3)
            self.assertIn("set WatchdogSec=30", daemon.log)
            process.send_signal(signal.SIGSTOP)
            manager.look()
            self.assertTrue(manager.is_silent(1.0))
            process.send_signal(signal.SIGCONT)
            self.end(process)

    def test_a_stalled_process_says_where_it_stands(self) -> None:
        """The watchdog sends SIGABRT, and the stack is in the log."""
        with Manager(self.directory) as manager:
            daemon, process = self.serve(manager, watchdog_s=30.0)
            manager.wait_for("WATCHDOG=1")
            process.send_signal(signal.SIGABRT)
            self.assertEqual(-signal.SIGABRT, process.wait(20))
            self.assertIn("most recent call first", daemon.log)

    def test_workers_are_silent(self) -> None:
        """Only the supervisor sends messages, once all workers serve, and pulses while they do."""
        with Manager(self.directory) as manager:
            _, process = self.serve(manager, "--workers", "2", watchdog_s=30.0)
            manager.wait_for("WATCHDOG=1")
            self.assertIn("2 of 2 workers serve", manager.lines("STATUS=")[-1])
            self.end(process)
            self.assertEqual(1, len(manager.lines("READY=1")))
            self.assertEqual(1, len(manager.lines("STOPPING=1")))


class SocketTests(WorkersStage):
    """Sockets that the manager has opened."""

    def serve_from(self, named: str, addresses: Sequence[str], *options: str) -> Daemon:
        """Start a daemon on inherited TCP and UNIX sockets; send a request to both.

        :param named: the names of the sockets.
        """
        daemon = self.make_daemon(self.origin(), options=options)
        path = self.directory / "passed.sock"
        with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0)) as tcp:
            unix.bind(str(path))
            unix.listen()
            flags = settings_of(daemon)
            at = flags.index("--server-addr")
            flags[at : at + 2] = [word for it in addresses for word in ("--server-addr", it)]
            fds = [tcp.fileno(), unix.fileno()]
            command = ["-c", PASS_SOCKETS, json.dumps(fds), named, "-m", "ncps", "serve"]
            process = self.spawn(daemon, [*command, *flags], fds=fds)
            daemon.port = tcp.getsockname()[1]
            self.assertEqual(200, self.ask(daemon, "/nix-cache-info").status)
            self.assertEqual(200, raw_status(send_raw(str(path), GET_INDEX)))
            self.end(process)
        return daemon

    def test_they_are_found_by_index_and_by_name(self) -> None:
        """systemd names each socket of a unit (sd_listen_fds_with_names(3))."""
        for names, tcp, unix in (
            ("web:unix", "index=0", "name=unix"),
            ("http:x", "name=http", "index=1"),
        ):
            addresses = [f"systemd:domain=INET:{tcp}", f"systemd:domain=UNIX:{unix}"]
            daemon = self.serve_from(names, addresses)
            path = self.directory / "passed.sock"
            self.assertIn(f"unix:{path}", daemon.log)
            self.assertTrue(path.is_socket(), "systemd listens there again")
            path.unlink()

    def test_sockets_that_were_not_passed(self) -> None:
        """One line names the sockets; also if only the domain differs."""
        run = ["-m", "ncps", "serve"]
        for address, words in (
            ("systemd:domain=INET:name=htp", "no such socket, only http; name it in"),
            ("systemd:domain=INET:index=1", "no such socket, only http; name it in"),
            ("systemd:domain=INET6:name=http", "write domain=INET\n"),
        ):
            with socket.create_server(("127.0.0.1", 0)) as tcp:
                daemon = self.make_daemon(self.origin())
                flags = settings_of(daemon)
                flags[flags.index("--server-addr") + 1] = address
                fds = [tcp.fileno()]
                command = ["-c", PASS_SOCKETS, json.dumps(fds), "http", *run, *flags]
                process = self.spawn(daemon, command, fds=fds)
                self.assertEqual(1, process.wait(30))
                self.assertIn(f"cannot listen on {address}: ", daemon.log)
                self.assertIn(words, daemon.log)

    def refused(self, named: str, sockets: Sequence[socket.socket], *options: str) -> str:
        """Start a daemon that must not start; return its log."""
        daemon = self.make_daemon(self.origin())
        flags = settings_of(daemon)
        at = flags.index("--server-addr")
        flags[at : at + 2] = options
        fds = [it.fileno() for it in sockets]
        command = ["-c", PASS_SOCKETS, json.dumps(fds), named, "-m", "ncps", "serve", *flags]
        self.assertEqual(1, self.spawn(daemon, command, fds=fds).wait(30))
        return daemon.log

    def test_a_socket_that_no_setting_names(self) -> None:
        """A socket at the address of a setting is reported in place of another program."""
        for workers in ("1", "2"):
            with socket.create_server(("127.0.0.1", 0)) as tcp:
                plain = f"127.0.0.1:{tcp.getsockname()[1]}"
                log = self.refused("http", [tcp], "--server-addr", plain, "--workers", workers)
            self.assertIn(f"cannot listen on {plain}: Address already in use by a socket", log)
            self.assertIn("systemd has passed; write systemd:domain=INET:index=0 instead", log)

    def test_one_socket_named_twice(self) -> None:
        """The message says so, and does not name a bad descriptor."""
        for workers in ("1", "2"):
            with socket.create_server(("127.0.0.1", 0)) as tcp:
                twice = ["--server-addr", "systemd:domain=INET:name=http"] * 2
                log = self.refused("http", [tcp], *twice, "--workers", workers)
            self.assertIn("another server-addr names the same socket", log)

    def test_a_socket_without_a_server(self) -> None:
        """A unit with two ListenStream= gives both the same name; the unused one is reported."""
        names, addresses = "x:x", ["systemd:domain=INET:index=0", "systemd:domain=UNIX:name=x"]
        for workers in ("1", "2"):
            daemon = self.serve_from(names, addresses, "--workers", workers)
            self.assertNotIn("nobody answers", daemon.log)
            (self.directory / "passed.sock").unlink()
        with (
            socket.create_server(("127.0.0.1", 0)) as used,
            socket.create_server(("127.0.0.1", 0)) as unused,
        ):
            address = ["--server-addr", "systemd:domain=INET:name=x"]
            daemon = self.make_daemon(self.origin())
            flags = settings_of(daemon)
            at = flags.index("--server-addr")
            flags[at : at + 2] = address
            fds = [unused.fileno(), used.fileno()]
            command = ["-c", PASS_SOCKETS, json.dumps(fds), "x:x", "-m", "ncps", "serve"]
            process = self.spawn(daemon, [*command, *flags], fds=fds)
            daemon.port = used.getsockname()[1]
            self.assertEqual(200, self.ask(daemon, "/nix-cache-info").status)
            self.assertIn(f"a socket at port {unused.getsockname()[1]} that no server", daemon.log)
            self.assertIn("add systemd:domain=INET:index=0 to server-addr", daemon.log)
            self.end(process)
