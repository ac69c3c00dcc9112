"""Run the checks of the project: `python -m tests`, or some of them: `python -m tests unit lint`.

Every suite is a process of its own with a deadline, whose output is passed on. Several suites run
at the same time, because most of their tests wait for daemons, leases and deadlines. Suites that
only compute run beside them at a lower priority. The last line is `N passed, N failed`
(`, N skipped` if there were any), the sum of the reports of trial; a lint or type check counts as
one. The exit code is 1 after any failure, and if no test ran.
"""

from __future__ import annotations

import argparse
import compileall
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO

from attrs import frozen

ROOT = Path(__file__).parents[1]
WARNINGS = (
    "error",
    "ignore:Passing pyOpenSSL:DeprecationWarning",  # Twisted does, to pyOpenSSL itself
)
DEADLINE = 2400.0  # seconds for one command; the slowest takes twenty minutes on a busy machine
LAST_WORDS = 30.0  # seconds to read the rest of the output of a command that has ended
JOBS_AT_ONCE = 4 * (os.cpu_count() or 1)
"""Processes of suites whose tests wait. Each needs a quarter of a processor."""
POLITE = 5
"""Niceness of suites that only compute."""
COMPILING = {"PYTHONDONTWRITEBYTECODE": ""}
"""Hundreds of daemons start: each would compile the program anew where images forbid such files."""
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
    """Read the last line of trial; a run without one counts as a failure."""
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
    """Yield the failed tests in a report of trial, each with its error.

    A block of the report is a rule, `[FAIL]` or `[ERROR]`, a traceback or a text, and the names of
    the tests with this failure.
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


def run(
    command: Sequence[str], environment: dict[str, str] | None = None, niceness: int = 0
) -> tuple[int, list[str]]:
    """Run Python in a process group of its own; return its exit code and its output."""
    told = threading.current_thread()
    prefix = "" if told is threading.main_thread() else f"{told.name}: "
    print(f"{prefix}$ python {' '.join(command)}", flush=True)
    process = subprocess.Popen(
        [sys.executable, "-u", *command],
        cwd=ROOT,
        env={**os.environ, **COMPILING, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None
    with suppress(ProcessLookupError):  # it has ended already
        os.setpriority(os.PRIO_PROCESS, process.pid, niceness)
    _running.add(process.pid)

    lines: list[str] = []
    reader = threading.Thread(target=_pass_on, args=(process.stdout, prefix, lines), daemon=True)
    reader.start()
    try:
        code = process.wait(DEADLINE)
    except subprocess.TimeoutExpired:
        print(f"{prefix}killed: not done within {DEADLINE:.0f} s", flush=True)
        os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
    finally:
        _running.discard(process.pid)
    reader.join(LAST_WORDS)
    if reader.is_alive():
        print(f"{prefix}failed: a process that it started has not ended with it", flush=True)
        code = code or 1
    return code, list(lines)


def _pass_on(output: IO[str], prefix: str, lines: list[str]) -> None:
    """Print the output of a command, and keep it."""
    with output:
        for line in output:
            print(prefix + line, end="", flush=True)
            lines.append(line)


def check(*commands: Sequence[str]) -> Outcome:
    """Run tools whose result is only success or failure."""
    outcome = Outcome()
    for command in commands:
        code, _ = run(["-m", *command], niceness=POLITE)
        outcome += Outcome(failed=1) if code else Outcome(passed=1)
    return outcome


def trial(*packages: str, jobs: int, niceness: int = 0) -> Outcome:
    """Run test packages in `jobs` processes."""
    wanted = [option for warning in WARNINGS for option in ("-W", warning)]
    flags = ["-b", *wanted, "-m", "twisted.trial", "--force-gc", f"-j{jobs}"]
    environment = {"PYTHONWARNINGS": ",".join(WARNINGS)}  # trial's workers do not inherit -W
    code, lines = run([*flags, *packages], environment, niceness)
    return read_summary(lines, code)


@frozen
class Suite:
    """Checks that belong together.

    :param jobs: number of processes for its tests, if they mostly wait; 0 for a suite that only
        computes.
    """

    run: Callable[[], Outcome]
    jobs: int = 0

    @classmethod
    def waiting(cls, package: str, jobs: int) -> Suite:
        """Make the suite of a package whose tests mostly wait."""
        return cls(partial(trial, package, jobs=jobs), jobs)


SUITES: dict[str, Suite] = {
    "lint": Suite(
        partial(check, ["ruff", "check"], ["ruff", "format", "--check"], ["codespell_lib", "."])
    ),
    "types": Suite(partial(check, ["mypy"])),
    "unit": Suite(partial(trial, "tests.unit", "tests.structure", jobs=2, niceness=POLITE)),
    "integration": Suite.waiting("tests.integration", jobs=4),
    "e2e": Suite.waiting("tests.e2e", jobs=2),
    "system": Suite.waiting("tests.system", jobs=4),
    "cluster": Suite.waiting("tests.cluster", jobs=4),
    "chaos": Suite.waiting("tests.chaos", jobs=2),
    "long": Suite.waiting("tests.long", jobs=2),
}
BY_NAME_ALONE = {"long"}
LONGEST_FIRST = ("cluster", "integration", "system", "chaos", "e2e", "long")
"""Suites that wait, in the order in which they start."""


class Places:
    """Limits the jobs of all suites that run at the same time."""

    def __init__(self, count: int) -> None:
        self._free = self._count = count
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, jobs: int) -> Iterator[None]:
        """Wait until so few jobs run that these may start, and count them until the block ends."""
        wanted = min(jobs, self._count)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= wanted)
            self._free -= wanted
        try:
            yield
        finally:
            with self._changed:
                self._free += wanted
                self._changed.notify_all()


def run_suite(name: str, table: dict[str, str]) -> Outcome:
    """Run a suite and add its line to the table."""
    if (thread := threading.current_thread()) is not threading.main_thread():
        thread.name = name
    print(f"\n===== {name}", flush=True)
    began = time.monotonic()
    outcome = SUITES[name].run()
    table[name] = f"{name:12} {time.monotonic() - began:6.1f} s   {outcome}"
    return outcome


def run_polite(names: Sequence[str], table: dict[str, str]) -> Outcome:
    """Run suites that only compute, one after the other."""
    return sum((run_suite(name, table) for name in names), Outcome())


def run_in_turn(name: str, places: Places, table: dict[str, str]) -> Outcome:
    """Run a suite as soon as its jobs may start."""
    with places.taken(SUITES[name].jobs):
        return run_suite(name, table)


def run_all(chosen: Sequence[str]) -> Outcome:
    """Run the suites and print the table."""
    table: dict[str, str] = {}
    polite = [name for name in chosen if not SUITES[name].jobs]
    waiting = [name for name in LONGEST_FIRST if name in chosen]
    if not waiting or len(chosen) == 1:
        total = run_polite(chosen, table)
    else:
        with ThreadPoolExecutor(1 + len(waiting)) as threads:
            places = Places(JOBS_AT_ONCE)
            running = [
                threads.submit(run_polite, polite, table),
                *(threads.submit(run_in_turn, name, places, table) for name in waiting),
            ]
            total = sum((suite.result() for suite in running), Outcome())
    print("\n=====", *(table[name] for name in chosen), sep="\n")
    return total


def main() -> int:
    """Run the chosen suites, print a table and the closing line."""
    parser = argparse.ArgumentParser(prog="python -m tests", description=__doc__)
    rest = f"all but {', '.join(BY_NAME_ALONE)}, if none is named"
    parser.add_argument("suite", nargs="*", choices=[[], *SUITES], help=rest)
    chosen = parser.parse_args().suite or [name for name in SUITES if name not in BY_NAME_ALONE]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    for package in ("ncps", "tests"):  # now, or each of the processes does it
        compileall.compile_dir(ROOT / package, quiet=2)
    total = run_all(list(dict.fromkeys(chosen)))
    for complaint in total.complaints:
        print(f"failed: {complaint}")
    if total.skipped:
        print(f"NOTE: {total.skipped} tests were skipped; .ci/run installs what they need.")
    print(total, flush=True)
    return 1 if total.failed or not total.passed else 0


def interrupted(number: int, _frame: object) -> None:
    """End all suites immediately."""
    for group in list(_running):
        with suppress(ProcessLookupError):  # it has just ended
            os.killpg(group, signal.SIGKILL)
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
