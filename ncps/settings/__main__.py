"""The command that prints docs/settings.md: `python -m ncps.settings > docs/settings.md`."""

import sys

from ncps.settings.report import markdown

sys.stdout.write(markdown())
