"""`python -m ncps` and the console command `ncps`."""

import sys

from ncps.cli import run


def main() -> int:
    """Run with the arguments of this process."""
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
