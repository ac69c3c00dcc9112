"""`python -m ncps` and the console command `ncps`."""

import gc
import sys


def main() -> int:
    """Run with the arguments of this process."""
    gc.disable()  # until the command is imported: collections slow imports; see `imports`
    from ncps.cli import run  # noqa: PLC0415 - after the line above

    try:
        return run(sys.argv[1:])
    finally:
        gc.freeze()
        gc.enable()


if __name__ == "__main__":
    sys.exit(main())
