"""Run the checks of the project: `python -m tests`, or some of them: `python -m tests unit lint`.

Every suite is a process of its own with a deadline; what it prints is passed on. Suites that start
daemons and wait for them run beside those that keep the processors busy. The last line is
`N passed, N failed` (`, N skipped` if any were), summed over what trial reports; a lint or type
check counts as one. The exit code is 1 on any failure, and where no test ran.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).parents[1]
WARNINGS = (
    "error",
    "ignore:Passing pyOpenSSL:DeprecationWarning",  # Twisted does, to pyOpenSSL itself
)
DEADLINE = 2400.0  # seconds for one command; the slowest takes twenty minutes on a busy machine
_running: set[int] = set()  # process groups


@frozen
class Outcome:
    """The result of a suite: numbers of tests."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    complaints: tuple[str, ...] = ()
    """A line for each test that failed, with the reason."""

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            self.passed + other.passed,
            self.failed + other.failed,
            self.skipped + other.skipped,
            self.complaints + other.complaints,
        )

    def __str__(self) -> str:
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


def read_summary(lines: Sequence[str], code: int) -> Outcome:
    """Read the last line of trial; a run that ended without one counts as a failure."""
    for line in reversed(lines):
        found = re.fullmatch(r"(PASSED|FAILED)(?: \((.*)\))?", line.strip())
        if found:
            break
    else:
        return Outcome(failed=1)
    counts = {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", found[2] or "")}
    failed = sum(counts.get(name, 0) for name in ("failures", "errors", "unexpectedSuccesses"))
    passed = counts.get("successes", 0) + counts.get("expectedFailures", 0)
    return Outcome(
        passed, failed or int(code != 0), counts.get("skips", 0), tuple(read_complaints(lines))
    )


def read_complaints(lines: Sequence[str]) -> Iterator[str]:
    """Yield the tests that trial says have failed, each with the error of it.

    A block of trial's report is a rule, `[FAIL]` or `[ERROR]`, a traceback or a text, and the names
    of the tests it is about.
    """
    reason = ""
    is_report = False
    for line in map(str.rstrip, lines):
        if re.fullmatch("={70,}|-{70,}", line):
            is_report, reason = False, ""
        elif line in {"[FAIL]", "[ERROR]"}:
            is_report = True
        elif is_report and re.fullmatch(r"tests\.\S+", line):
            yield f"{line}: {reason}"
        elif is_report and not reason and re.match(r"[\w.]+(: |$)", line):
            reason = line


def run(command: Sequence[str], environment: dict[str, str] | None = None) -> tuple[int, list[str]]:
    """Run Python in a process group of its own; return its exit code and what it printed."""
    told = threading.current_thread()
    prefix = "" if told is threading.main_thread() else f"{told.name}: "
    print(f"{prefix}$ python {' '.join(command)}", flush=True)
    process = subprocess.Popen(
        [sys.executable, "-u", *command],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None
    _running.add(process.pid)

    def give_up() -> None:
        print(f"{prefix}killed: not done within {DEADLINE:.0f} s", flush=True)
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(DEADLINE, give_up)
    timer.start()
    lines = []
    try:
        with process.stdout as output:
            for line in output:
                print(prefix + line, end="", flush=True)
                lines.append(line)
        return process.wait(), lines
    finally:
        timer.cancel()
        _running.discard(process.pid)


def check(*commands: Sequence[str]) -> Outcome:
    """Run tools that only pass or fail."""
    outcome = Outcome()
    for command in commands:
        code, _ = run(["-m", *command])
        outcome += Outcome(failed=1) if code else Outcome(passed=1)
    return outcome


def trial(*packages: str, jobs: int = 1) -> Outcome:
    """Run test packages; `jobs` above 1 for tests that share nothing.

    Suites whose tests mostly wait, for leases, rounds and restarts, have more jobs than processors.
    """
    wanted = [option for warning in WARNINGS for option in ("-W", warning)]
    flags = ["-b", *wanted, "-m", "twisted.trial", "--force-gc"]
    environment = {}
    if jobs > 1:
        flags.append(f"-j{jobs}")
        environment["PYTHONWARNINGS"] = ",".join(WARNINGS)  # trial's workers do not inherit -W
    code, lines = run([*flags, *packages], environment)
    return read_summary(lines, code)


SUITES: dict[str, Callable[[], Outcome]] = {
    "lint": partial(
        check, ["ruff", "check"], ["ruff", "format", "--check"], ["codespell_lib", "."]
    ),
    "types": partial(check, ["mypy"]),
    "unit": partial(trial, "tests.unit", "tests.structure", jobs=2),
    "integration": partial(trial, "tests.integration", jobs=2),
    "e2e": partial(trial, "tests.e2e", jobs=2),
    "system": partial(trial, "tests.system", jobs=3),
    "cluster": partial(trial, "tests.cluster", jobs=4),
    "chaos": partial(trial, "tests.chaos"),
    "long": partial(trial, "tests.long", jobs=2),
}
BY_NAME_ALONE = {"long"}


WAITING = ("e2e", "system", "cluster")
"""Suites that mostly wait: for real clients, for leases, restarts and deadlines.
Under a load of 20 on two processors `cluster` passed, and took a quarter longer than alone."""
BESIDE = {"lint", "types", "unit", "integration", "chaos"}
"""Suites beside those that wait: all but the last keep the processors busy, and all of them take
about the same time as the others."""


def lanes(chosen: Sequence[str]) -> list[list[list[str]]]:
    """Divide suites into steps, one after the other, and each of these into lanes side by side."""
    waiting = [name for name in chosen if name in WAITING]
    beside = [name for name in chosen if name in BESIDE]
    if not waiting or not beside:
        return [[[name]] for name in chosen]
    rest = [name for name in chosen if name not in {*waiting, *beside}]
    return [[beside, waiting], *([[name]] for name in rest)]


def run_lane(names: Sequence[str], table: dict[str, str]) -> Outcome:
    """Run suites one after the other; note a line for each in the table."""
    total = Outcome()
    for name in names:
        if (thread := threading.current_thread()) is not threading.main_thread():
            thread.name = name
        print(f"\n===== {name}", flush=True)
        began = time.monotonic()
        outcome = SUITES[name]()
        total += outcome
        table[name] = f"{name:12} {time.monotonic() - began:6.1f} s   {outcome}"
    return total


def run_all(chosen: Sequence[str]) -> Outcome:
    """Run the suites and print the table."""
    table: dict[str, str] = {}
    total = Outcome()
    for step in lanes(chosen):
        if len(step) == 1:
            total += run_lane(step[0], table)
            continue
        with ThreadPoolExecutor(len(step)) as threads:
            for outcome in threads.map(run_lane, step, [table] * len(step)):
                total += outcome
    print("\n=====", *(table[name] for name in chosen), sep="\n")
    return total


def main() -> int:
    """Run the chosen suites, print a table and the closing line."""
    parser = argparse.ArgumentParser(prog="python -m tests", description=__doc__)
    rest = f"all but {', '.join(BY_NAME_ALONE)}, if none is named"
    parser.add_argument("suite", nargs="*", choices=[[], *SUITES], help=rest)
    chosen = parser.parse_args().suite or [name for name in SUITES if name not in BY_NAME_ALONE]
    signal.signal(signal.SIGINT, interrupted)
    total = run_all(list(dict.fromkeys(chosen)))
    for complaint in total.complaints:
        print(f"failed: {complaint}")
    if total.skipped:
        print(f"NOTE: {total.skipped} tests were skipped; .ci/run installs what they need.")
    print(total, flush=True)
    return 1 if total.failed or not total.passed else 0


def interrupted(number: int, _frame: object) -> None:
    """End all suites at once."""
    for group in list(_running):
        with suppress(ProcessLookupError):  # it has just ended
            os.killpg(group, signal.SIGKILL)
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
