"""Runs `ncps keys` for the tests of keys."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.system.program import Done


class KeyCommands(SynchronousTestCase):
    """Runs the command; a stage defines `keys`, and looks for secrets in the output."""

    def keys(self, *words: str, flags: tuple[str, ...] = ()) -> Done:
        """Run `ncps keys WORDS`; the output must have no secret."""
        raise NotImplementedError

    def said(self, *words: str, flags: tuple[str, ...] = ()) -> str:
        """Return the output of a successful command."""
        done = self.keys(*words, flags=flags)
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        return done.stdout

    def refusal(self, *words: str, flags: tuple[str, ...] = ()) -> str:
        """Return the one line of a failed command."""
        done = self.keys(*words, flags=flags)
        self.assertEqual((1, "", 1), (done.returncode, done.stdout, done.stderr.count("\n")))
        return done.stderr
