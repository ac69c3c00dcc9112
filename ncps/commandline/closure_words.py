"""The steps and flags of `ncps pin` and `ncps rm`."""

from __future__ import annotations

from typing import Final

from ncps.commandline.word import DRY_RUN, Command, Word

_CALLING: Final = (
    Word(
        name="--server",
        metavar="URL",
        help="The daemon, http://HOST:PORT; default: the daemon with these settings on this "
        "machine.",
    ),
    Word(
        name="--token-file",
        metavar="FILE",
        help="File with the token; default: the variable NCPS_TOKEN.",
    ),
)
_PATHS: Final = Word(
    name="paths",
    metavar="STORE_PATH",
    many="*",
    help="Store path, its hash part, or the URL of its narinfo.",
)

_RUN_PINS: Final = "ncps.commandline.closures:pin"

PINS: Final = Command(
    name="pin",
    help="Ask the running daemon to keep closures of store paths in the store.",
    children=(
        Command(
            name="add",
            help="Pin the closure of a path. The token needs the scope pin.",
            run=_RUN_PINS,
            words=(
                _PATHS,
                Word(name="--label", metavar="TEXT", help="The reason, for people."),
                Word(
                    name="--expires",
                    metavar="DURATION",
                    help="Time until the pin ends, such as 90d or 12h; default: it does not end.",
                ),
                Word(
                    name="--fetch", help="Fetch missing paths of the closure, also the path itself."
                ),
                *_CALLING,
            ),
        ),
        Command(
            name="rm",
            help="Remove the pin of a path.",
            run=_RUN_PINS,
            words=(_PATHS, *_CALLING),
        ),
        Command(
            name="list",
            help="List the pins, and the number of their missing paths.",
            run=_RUN_PINS,
            words=(Word(name="--json", help="Print a JSON array."), *_CALLING),
        ),
    ),
)

REMOVE: Final = Command(
    name="rm",
    help="Ask the running daemon to remove store paths with their NARs.",
    run="ncps.commandline.closures:remove",
    words=(
        _PATHS,
        Word(
            name="--closure",
            help="Also remove the paths of the closure that no other path here refers to.",
        ),
        Word(
            name="--never-again",
            help="Never fetch the path or its NAR again, and never accept it from a client.",
        ),
        DRY_RUN,
        Word(name="--force", help="Remove the path even if a pin keeps it."),
        Word(
            name="--list-blocked", help="List the paths that are never fetched or accepted again."
        ),
        Word(name="--unblock", help="Allow the paths to be fetched again."),
        *_CALLING,
    ),
)
