"""Colours of the lines for people."""

from __future__ import annotations

from io import StringIO

from twisted.trial.unittest import SynchronousTestCase

from ncps.observe.log_lines import human_head, paint_for, painted, plain


class _Terminal(StringIO):
    def isatty(self) -> bool:
        return True


class ColourTests(SynchronousTestCase):
    def test_colours_on_terminals(self) -> None:
        """A terminal gets colours unless the user forbids them; the user can demand them."""
        for terminal, environ, paint in (
            (True, {}, painted),
            (True, {"TERM": "xterm"}, painted),
            (True, {"TERM": "dumb"}, plain),
            (True, {"NO_COLOR": "1"}, plain),
            (True, {"NO_COLOR": ""}, painted),
            (True, {"FORCE_COLOR": "0"}, plain),
            (True, {"FORCE_COLOR": "1", "TERM": "dumb"}, painted),
            (True, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, plain),
            (False, {}, plain),
            (False, {"TERM": "xterm"}, plain),
            (False, {"FORCE_COLOR": "1"}, painted),
        ):
            stream = _Terminal() if terminal else StringIO()
            self.assertIs(paint_for(stream, environ), paint, (terminal, environ))
        closed = StringIO()
        closed.close()
        self.assertIs(paint_for(closed, {}), plain)

    def test_levels_have_colours(self) -> None:
        """A warning has a colour; a line of level info has none."""
        self.assertTrue(human_head(0, "warn", painted).endswith(" \x1b[33mWARN \x1b[0m"))
        self.assertEqual(human_head(0, "info", painted), human_head(0, "info"))
