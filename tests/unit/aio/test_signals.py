"""The meaning of signals, with an artificial reactor and table of handlers."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import provider

from ncps.aio import signals

ENDING = (signal.SIGINT, signal.SIGTERM)


class Reactor(Clock):
    """A reactor that makes calls immediately, and starts when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[Callable[[], object]] = []

    def addSystemEventTrigger(self, phase: str, event: str, call: Callable[[], object]) -> None:
        assert (phase, event) == ("after", "startup")
        self.started.append(call)

    def callFromThread(self, call: Callable[..., object], *args: object) -> None:
        call(*args)


class SignalsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Reactor()
        self.handlers: dict[int, Any] = {}
        self.said: list[str] = []
        self.left: list[int] = []
        table = SimpleNamespace(
            **{name: getattr(signal, name) for name in dir(signal) if name.startswith("SIG")},
            Signals=signal.Signals,
            getsignal=lambda number: self.handlers.get(number, signal.SIG_DFL),
            signal=self.handlers.__setitem__,
        )
        self.patch(signals, "signal", table)
        self.lines: list[str] = []

        @provider(ILogObserver)
        def observe(event: LogEvent) -> None:
            self.lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def listen(self, *, with_handlers: bool = True) -> None:
        """Install the handlers in a reactor that has started."""
        signals.handle_signals(
            self.reactor,
            lambda: self.said.append("cut"),
            lambda: self.said.append("reload"),
            leave=lambda code: self.left.append(code),
        )
        if with_handlers:
            for number in ENDING:
                self.handlers[number] = lambda number, _: self.said.append(f"stop {number}")
        for call in self.reactor.started:
            call()

    def send(self, number: int) -> None:
        self.handlers[number](number, None)

    def test_the_first_stops_and_the_second_cuts(self) -> None:
        """The first signal stops, the second cuts, in any order; a third one does nothing."""
        for first in ENDING:
            for second in ENDING:
                self.said.clear()
                self.reactor.started.clear()
                self.listen()
                self.send(first)
                self.assertEqual([f"stop {first}"], self.said)
                self.send(second)
                self.send(first)
                self.assertEqual([f"stop {first}", "cut"], self.said)

    def test_a_cut_that_does_not_end_is_left(self) -> None:
        """A process that does not end after the cut is ended by force."""
        self.listen()
        self.send(signal.SIGTERM)
        self.reactor.advance(1000)
        self.assertEqual([], self.left)
        self.send(signal.SIGTERM)
        self.reactor.advance(signals.CUT_S - 0.1)
        self.assertEqual([], self.left)
        self.reactor.pump([0.2, 0.2])
        self.assertEqual([1], self.left)

    def test_other_signals_do_not_end_the_process(self) -> None:
        """SIGHUP is a reload; SIGUSR1 and SIGUSR2 do nothing."""
        self.listen()
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            self.send(number)
        self.assertEqual(["reload"], self.said)
        self.assertEqual([], self.lines)

    def test_other_handlers_stay(self) -> None:
        """Signals with other handlers, and ignored ones, stay as they are."""
        self.handlers[signal.SIGUSR1] = turn = lambda *_: None
        self.handlers[signal.SIGHUP] = signal.SIG_IGN
        self.listen()
        self.assertIs(turn, self.handlers[signal.SIGUSR1])
        self.assertIs(signal.SIG_IGN, self.handlers[signal.SIGHUP])

    def test_a_reactor_without_handlers_is_left_alone(self) -> None:
        """If the reactor handles no signals, the default actions stay."""
        self.listen(with_handlers=False)
        self.assertNotIn(signal.SIGTERM, self.handlers)
