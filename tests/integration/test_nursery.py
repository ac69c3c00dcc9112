"""The nursery in real processes: the worker that it forks, and its end."""

from __future__ import annotations

import errno
import json
import signal
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.processes import finish, spawn

SUPERVISOR = """
import json, os, resource, select, signal, sys, time
from ncps.process import nursery

def told(read):
    with os.fdopen(read) as file:
        return json.load(file)

os.environ.update(NOTIFY_SOCKET="/x", LISTEN_FDS="1", KEPT="1")
keeper = nursery.begin()
if keeper is None:
    signals = {it.name: signal.getsignal(it).name for it in nursery._BLOCKED}
    facts = {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "environ": {k: v for k, v in os.environ.items() if k in INTERESTING},
        "descriptors": sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:-1],
        "read": os.read(3, 5).decode(),
        "signals": signals,
    }
    os.write(4, json.dumps(facts).encode())
    os._exit(9)
"""
INTERESTING = ["NOTIFY_SOCKET", "LISTEN_FDS", "KEPT", "NCPS_WORKER"]
FORK = """
def fork():
    null = os.open(os.devnull, os.O_RDWR)
    lifeline, give = os.pipe()
    read, reports = os.pipe()
    os.write(give, b"hello")
    pid = keeper.fork("the plan", [null, 1, 2, lifeline, reports])
    for fd in (null, lifeline, reports, give):
        os.close(fd)
    return pid, told(read)
"""


def run(script: str) -> Any:
    """Run a supervisor; return the JSON of its output."""
    text = SUPERVISOR.replace("INTERESTING", repr(INTERESTING)) + FORK + script
    return json.loads(finish(spawn(text)))


class NurseryTests(SynchronousTestCase):
    def test_a_worker_is_as_if_started(self) -> None:
        """It is a child of the supervisor, with the descriptors and variables of a worker."""
        found = run("""
pids = {}
for _ in range(2):
    pid, facts = fork()
    pids[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(json.dumps([os.getpid(), pid, list(pids.values()), facts]))
""")
        supervisor, pid, codes, facts = found
        self.assertEqual([9, 9], codes)
        self.assertEqual((pid, supervisor), (facts["pid"], facts["parent"]))
        self.assertEqual({"KEPT": "1", "NCPS_WORKER": "the plan"}, facts["environ"])
        self.assertEqual([0, 1, 2, 3, 4], facts["descriptors"])
        self.assertEqual("hello", facts["read"])
        signals = facts["signals"]
        self.assertEqual("SIG_DFL", signals.pop("SIGTERM"))
        for name, handler in signals.items():
            self.assertEqual("SIG_IGN", handler, name)

    def test_signals_to_all_do_not_end_it(self) -> None:
        """A terminal or systemd may signal all processes; the supervisor still needs it."""
        found = run("""
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    os.kill(keeper.pid, number)
pid, facts = fork()
print(json.dumps(facts["read"]))
""")
        self.assertEqual("hello", found)

    def test_a_worker_that_is_told_to_end_at_once_ends(self) -> None:
        """A signal that comes before the worker has its descriptors is not lost."""
        found = run("""
keeper.close()
os.waitpid(keeper.pid, 0)
come, told_so = os.pipe()
go, let_go = os.pipe()
real = nursery._become_worker
def slow(*arguments):
    os.write(told_so, b"1")
    os.read(go, 1)
    real(*arguments)
nursery._become_worker = slow
nursery._limit = lambda: 4  # these pipes stay open
keeper = nursery.begin()
if keeper is None:
    os._exit(0)
pid = keeper.fork("the plan", [os.open(os.devnull, os.O_RDWR), 1, 2, 2])
os.read(come, 1)
os.kill(pid, signal.SIGTERM)
os.write(let_go, b"1")
print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
""")
        self.assertEqual(-signal.SIGTERM, found)

    def test_no_worker_begins_without_all_its_descriptors(self) -> None:
        """A nursery that cannot open more files reports it, and continues."""
        found = run("""
most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, (8, most[1]))
null = os.open(os.devnull, os.O_RDWR)
try:
    keeper.fork("the plan", [null] * 12)
except OSError as error:
    found = [error.errno, keeper.is_open]
resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, most)
print(json.dumps([*found, fork()[1]["read"]]))
""")
        self.assertEqual([errno.EMFILE, True, "hello"], found)

    def test_it_ends_when_it_is_closed(self) -> None:
        """It ends with exit code 0 when the supervisor does not need it any more."""
        found = run("""
keeper.close()
status = os.waitpid(keeper.pid, 0)[1]
try:
    fork()
except nursery.NoNursery:
    print(json.dumps(status))
""")
        self.assertEqual(0, found)

    def test_one_that_was_killed_is_not_asked_again(self) -> None:
        """The supervisor notices it at the next worker, at the latest."""
        found = run("""
os.kill(keeper.pid, signal.SIGKILL)
os.waitpid(keeper.pid, 0)
try:
    fork()
except nursery.NoNursery:
    print(json.dumps(keeper.is_open))
""")
        self.assertFalse(found)

    def test_one_that_hangs_is_given_up(self) -> None:
        """A stopped nursery costs `ANSWER_S` once."""
        found = run("""
keeper._connection.settimeout(0.05)
os.kill(keeper.pid, signal.SIGSTOP)
try:
    fork()
except nursery.NoNursery:
    os.kill(keeper.pid, signal.SIGKILL)
    print(json.dumps(keeper.is_open))
""")
        self.assertFalse(found)

    def test_a_fork_that_fails_is_an_error_of_that_worker(self) -> None:
        """The nursery reports the number of the error, and continues."""
        found = run("""
keeper.close()
os.waitpid(keeper.pid, 0)
real, calls = os.fork, []
def fail():
    calls.append(0)
    if len(calls) == 2:
        raise OSError(11, "no")
    return real()
os.fork = fail
keeper = nursery.begin()
try:
    fork()
except OSError as error:
    print(json.dumps([error.errno, keeper.is_open]))
""")
        self.assertEqual([11, True], found)
