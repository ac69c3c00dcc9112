"""The time until the first answer, the time of `--help`, and the memory of an idle daemon.

Python compiles the files of the program once before the measurement, as an installation does.
Processor time varies less than wall time on a busy machine. The memory of several processes is the
sum of their proportional shares (PSS): a page that two of them share counts once.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from attrs import frozen

from benchmarks.machine import PROJECT
from benchmarks.processes import cpu_seconds, pss_bytes, rss_bytes, tree
from benchmarks.report import Figure
from benchmarks.rounds import RoundsError, Sample, alternate
from benchmarks.stand import Stand
from tests.waiting import free_port

DEADLINE_S = 120.0
IDLE_S = 2.0
"""Seconds from the first answer until memory is read."""
KEY = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="
MOST_START_MS, MOST_HELP_MS = 250.0, 200.0
MOST_ONE_MIB, MOST_TWO_MIB = 50.0, 75.0
ONE, TWO, GO = "one process", "two workers", "Go"


@frozen
class Program:
    """A program to start.

    :param command: the first words of its command line.
    :param more: further variables of its environment.
    :param prepare: the command that it needs before the first `serve`; empty for none.
    """

    command: Sequence[str]
    more: Mapping[str, str]
    prepare: Sequence[str] = ()

    def environment(self, home: Path, port: int) -> dict[str, str]:
        """Return the environment with the settings, whose variables both programs read."""
        known = {k: v for k, v in os.environ.items() if k in {"PATH", "LANG", "TMPDIR"}}
        return {
            **known,
            "HOME": str(home),
            "CACHE_HOSTNAME": "bench",
            "CACHE_STORAGE_LOCAL": str(home / "store"),
            "CACHE_DATABASE_URL": f"sqlite:{home / 'db.sqlite'}",
            "CACHE_TEMP_PATH": str(home / "tmp"),
            "CACHE_UPSTREAM_URLS": "http://127.0.0.1:9",
            "CACHE_UPSTREAM_PUBLIC_KEYS": KEY,
            "SERVER_ADDR": f"127.0.0.1:{port}",
            **self.more,
        }


def _serve(stand: Stand, program: Program, words: Sequence[str] = ()) -> Sample:
    """Start a daemon with an empty store, wait for an answer, measure it, and stop it."""
    home, port = stand.fresh("start"), free_port()
    (home / "store").mkdir(parents=True)
    (home / "tmp").mkdir()
    environment = program.environment(home, port)
    if program.prepare:
        prepared = [*program.command, *program.prepare]
        subprocess.run(prepared, env=environment, check=True, capture_output=True)
    with (home / "log").open("wb") as log:
        began = time.monotonic()
        process = subprocess.Popen(
            [*program.command, "serve", *words],
            env=environment,
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            _wait_for_answer(process, port, began + DEADLINE_S)
            wall_s, cpu_s = time.monotonic() - began, cpu_seconds(process.pid)
            time.sleep(IDLE_S)
            return {
                "wall": wall_s * 1000,
                "cpu": cpu_s * 1000,
                "rss": rss_bytes(process.pid) / 2**20,
                "pss": pss_bytes(tree(process.pid)) / 2**20,
                "errors": 0,
            }
        finally:
            process.terminate()
            process.wait()


def _wait_for_answer(process: subprocess.Popen[bytes], port: int, deadline: float) -> None:
    """Ask until it answers. Raises RoundsError if it ends or the deadline passes."""
    while process.poll() is None and time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/nix-cache-info")
            if connection.getresponse().read().startswith(b"StoreDir"):
                return
        except OSError:
            time.sleep(0.005)
        finally:
            connection.close()
    raise RoundsError("the daemon does not answer")


def _help(stand: Stand, program: Program) -> Sample:
    """Run a program with `--help`."""
    began = time.monotonic()
    process = subprocess.Popen(
        [*program.command, "--help"],
        env=program.environment(stand.directory, 0),
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.monotonic() - began
    cpu_s = used.ru_utime + used.ru_stime
    return {"wall": wall_s * 1000, "cpu": cpu_s * 1000, "errors": abs(process.returncode)}


def measure(stand: Stand) -> list[Figure]:
    """Measure; also the Go program if the stand has it."""
    compiled = {"PYTHONPYCACHEPREFIX": str(stand.fresh("compiled"))}
    ours = Program([sys.executable, "-m", "ncps"], compiled)
    contenders: dict[str, Callable[[], Sample]] = {
        ONE: partial(_serve, stand, ours),
        TWO: partial(_serve, stand, ours, ["--workers", "2"]),
        "help": partial(_help, stand, ours),
    }
    if stand.go is not None:
        theirs = Program([str(stand.go)], {}, prepare=["migrate", "up"])
        contenders[GO] = partial(_serve, stand, theirs)
        contenders["help of Go"] = partial(_help, stand, theirs)
    for contender in (contenders[TWO], contenders["help"]):
        contender()  # Python compiles all imported files
    series = alternate(contenders, rounds=stand.rounds, noise=stand.noise)

    def figure(point: str, quantity: str, what: tuple[str, str, str], most: float = 0.0) -> Figure:
        contender, anchor, name = what
        is_known = anchor in contenders
        return Figure(
            point=point,
            quantity=quantity,
            ours=series.spread(contender, name),
            anchor=series.spread(anchor, name) if is_known else None,
            ratio=series.ratio(name, contender, anchor) if is_known else None,
            most=most or None,
        )

    start, memory = "start to the first answer", "idle memory"
    return [
        figure(start, "ms", (ONE, GO, "wall"), MOST_START_MS),
        figure(start, "CPU, ms", (ONE, GO, "cpu")),
        figure(f"{start}, {TWO}", "ms", (TWO, "", "wall")),
        figure(f"{start}, {TWO}", "CPU, ms", (TWO, "", "cpu")),
        figure("--help", "ms", ("help", "help of Go", "wall"), MOST_HELP_MS),
        figure("--help", "CPU, ms", ("help", "help of Go", "cpu")),
        figure(memory, "RSS, MiB", (ONE, GO, "rss"), MOST_ONE_MIB),
        figure(memory, "PSS, MiB", (ONE, GO, "pss")),
        figure(f"{memory}, {TWO}", "PSS of all processes, MiB", (TWO, "", "pss"), MOST_TWO_MIB),
        figure(f"{memory}, {TWO}", "sum of RSS, MiB", (TWO, "", "rss")),
    ]
