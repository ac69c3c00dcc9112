"""The commands as data, from which the parser, the completions and the manual page are made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ncps.commandline.closure_words import PINS, REMOVE
from ncps.commandline.word import DRY_RUN, Command, Word

LEVELS: Final = (1, 22)
SHELLS: Final = ("bash", "zsh", "fish")


def _former(name: str, help_: str, *words: Word) -> Command:
    return Command(
        name=name,
        help=help_,
        words=words,
        run="ncps.commandline.former:say",
        is_former=True,
    )


_CONCURRENCY: Final = Word(name="--concurrency", metavar="NUMBER", help="Has no effect.")

_KEYS: Final = Command(
    name="keys",
    help="Show, make, import or replace the key that this cache signs with.",
    children=(
        Command(name="show", help="Print the keys that sign, and until when."),
        Command(
            name="generate",
            help="Make the store's key before the first start, or a key in a file.",
            words=(
                Word(
                    name="--output",
                    metavar="FILE",
                    help="Write a new secret key into this new file, and do not change the store.",
                ),
                Word(
                    name="--name",
                    metavar="NAME",
                    help="Name of the key, by which clients know it; default: cache-hostname.",
                ),
            ),
        ),
        Command(
            name="import",
            help="Put the key of a file into a store that has no key yet.",
            words=(
                Word(
                    name="file",
                    metavar="FILE",
                    help="Secret key as `nix-store --generate-binary-cache-key` writes it, or - "
                    "for standard input.",
                ),
            ),
        ),
        Command(
            name="rotate",
            help="Give the store a new key. The present key also signs for a time.",
            words=(
                Word(
                    name="--to",
                    metavar="FILE",
                    help="Secret key to use, or - for standard input; default: a new one, with "
                    "the next number in its name.",
                ),
                Word(
                    name="--overlap",
                    metavar="DURATION",
                    help="Time for which the present key also signs; 0s for a key that clients "
                    "must no longer trust.",
                    default="720h",
                ),
                Word(
                    name="--again", help="Rotate even if the last rotation was less than a day ago."
                ),
            ),
        ),
    ),
)

_NAR: Final = Command(
    name="nar",
    help="Work on files of NARs.",
    takes_settings=False,
    children=(
        Command(
            name="recompress",
            help="Write a NAR in zstd, and print the fields of its narinfo.",
            takes_settings=False,
            run="ncps.commandline.recompress:command",
            words=(
                Word(
                    name="file",
                    metavar="FILE",
                    help="A NAR, plain or in xz, bzip2, zstd, gzip, lz4 or (with the ending .br)"
                    " Brotli.",
                ),
                Word(
                    name="--output",
                    metavar="FILE",
                    help="The new file; default: the name of the file with the ending .zst.",
                ),
                Word(
                    name="--level",
                    metavar="NUMBER",
                    default=9,
                    bounds=LEVELS,
                    help="1 is the fastest, 19 makes small files; 20 to 22 take much memory.",
                ),
                Word(
                    name="--threads",
                    metavar="NUMBER",
                    default=1,
                    bounds=(0, 256),
                    help="Threads that compress; 0 for one per processor. Each takes memory.",
                ),
                Word(
                    name="--long",
                    help="Look for repetitions within 128 MiB. Readers of the file need that much "
                    "memory, too.",
                ),
                Word(name="--force", help="Replace the new file if it exists."),
            ),
        ),
    ),
)

_RUN_TOKENS: Final = "ncps.commandline.tokens:command"

_TOKENS: Final = Command(
    name="token",
    help="Make, list and revoke tokens, with which clients prove who they are.",
    children=(
        Command(
            name="create",
            help="Make a token and print it. It is printed only once: ncps keeps only its hash.",
            run=_RUN_TOKENS,
            words=(
                Word(name="--name", metavar="NAME", help="Name of the client, for the log."),
                Word(
                    name="--scope",
                    metavar="SCOPES",
                    default="read",
                    help="Scopes of the token: read, write, delete, pin, admin (everything), or "
                    "several, separated by commas.",
                ),
                Word(
                    name="--expires",
                    metavar="DURATION",
                    default="90d",
                    help="Time for which the token is valid, such as 90d or 12h; never for no end.",
                ),
                Word(
                    name="--path",
                    metavar="PATTERN",
                    help="The token is valid only for store paths whose whole base name matches "
                    "this regular expression, such as '.*-hello-.*'.",
                ),
                Word(
                    name="--netrc",
                    metavar="HOST",
                    help="Print the token as a line for a netrc file, from which Nix sends it to"
                    " this host.",
                ),
            ),
        ),
        Command(
            name="list",
            help="List tokens, with their scopes, ends and times of last use.",
            run=_RUN_TOKENS,
            words=(Word(name="--json", help="Print a JSON array."),),
        ),
        Command(
            name="revoke",
            help="End a token. Running daemons refuse it within seconds.",
            run=_RUN_TOKENS,
            words=(Word(name="name", metavar="NAME", help="Name or id of the token."),),
        ),
        Command(
            name="netrc",
            help="Print the line for a netrc file, from which Nix sends a token.",
            run=_RUN_TOKENS,
            words=(
                Word(
                    name="name",
                    metavar="NAME",
                    help="Name of the token; or -, with the token itself on standard input.",
                ),
                Word(
                    name="--host",
                    metavar="HOST",
                    help="Host name in the URL of the cache, without a port.",
                ),
            ),
        ),
    ),
)

COMMANDS: Final = (
    Command(name="serve", aliases=("s",), help="Run the cache until a signal stops it."),
    Command(
        name="migrate",
        help="Show or apply the migrations of the database.",
        children=(
            Command(name="up", help="Bring the schema up to date.", words=(DRY_RUN,)),
            Command(
                name="status",
                help="List the migrations that are applied and those that are pending.",
            ),
        ),
    ),
    Command(name="rebuild", help="Make the database again from the store."),
    Command(
        name="settings",
        aliases=("check-config",),
        help="Print the value of each setting and where it came from.",
        words=(Word(name="--json", help="Print one JSON object."),),
    ),
    _KEYS,
    PINS,
    REMOVE,
    _TOKENS,
    _NAR,
    Command(
        name="help",
        help="Explain a command.",
        takes_settings=False,
        run="ncps.cli:explain",
        words=(Word(name="words", metavar="COMMAND", many="*", help="For example: keys rotate."),),
    ),
    Command(
        name="version",
        help="Print the versions of ncps, Python and Twisted.",
        takes_settings=False,
        run="ncps.commandline.version:command",
    ),
    Command(
        name="completion",
        help="Print the completion of commands and flags for a shell.",
        takes_settings=False,
        run="ncps.commandline.completion:command",
        words=(Word(name="shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish."),),
    ),
    Command(
        name="man",
        help="Print the manual page, for `man -l -`.",
        takes_settings=False,
        run="ncps.commandline.manual:command",
    ),
    _former(
        "fsck",
        "Says that ncps checks its store while it runs.",
        *(Word(name=f"--{name}", help="Has no effect.") for name in ("repair", "verify-content")),
        DRY_RUN,
        Word(name="--verified-since", metavar="DURATION", help="Has no effect."),
    ),
    _former("migrate-narinfo", "Says what replaces it.", DRY_RUN, _CONCURRENCY),
    _former("migrate-nar-to-chunks", "Says what replaces it.", DRY_RUN, _CONCURRENCY),
    _former(
        "migrate-chunks-to-nar",
        "Says whether the store has chunks, which ncps cannot read.",
        DRY_RUN,
        _CONCURRENCY,
        Word(name="--force-reclaim", help="Has no effect."),
    ),
)


def every_command(
    commands: tuple[Command, ...] = COMMANDS, above: str = ""
) -> Iterator[tuple[str, Command]]:
    """Yield each command with its full name; a command comes before its steps."""
    for command in commands:
        name = f"{above}{command.name}"
        yield name, command
        yield from every_command(command.children, f"{name} ")
