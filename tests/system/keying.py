"""`ncps keys`, as the tests of its stages run it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.system.program import Done


class KeyCommands(SynchronousTestCase):
    """Runs the command; a stage says by `keys` how, and looks for secrets in the output."""

    def keys(self, *words: str, flags: tuple[str, ...] = ()) -> Done:
        """Run `ncps keys WORDS`; no secret may be printed."""
        raise NotImplementedError

    def said(self, *words: str, flags: tuple[str, ...] = ()) -> str:
        """Return the output of a command that succeeds."""
        done = self.keys(*words, flags=flags)
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        return done.stdout

    def refusal(self, *words: str, flags: tuple[str, ...] = ()) -> str:
        """Return the one line of a command that fails."""
        done = self.keys(*words, flags=flags)
        self.assertEqual((1, "", 1), (done.returncode, done.stdout, done.stderr.count("\n")))
        return done.stderr
