"""ncps: a pull-through binary cache for Nix.

Numbers such as P5 in docstrings and comments are promises (`docs/promises.md`); numbers such as D13
are decisions (`docs/decisions/README.md`).
"""

__version__ = "0.1.0"
