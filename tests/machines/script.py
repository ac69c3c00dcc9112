"""Runs Python text in a forked process: the first argument is the text."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the text as `python -c` does."""
    sys.argv[0] = "-c"
    text = sys.argv.pop(1)
    exec(compile(text, "<string>", "exec"), {"__name__": "__main__"})
    return 0
