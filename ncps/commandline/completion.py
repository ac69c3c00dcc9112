"""The command `ncps completion SHELL`: a completion script for bash, zsh or fish.

The scripts hold all commands and flags, so that a shell completes without starting Python.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from ncps.commandline.word import Command
from ncps.commandline.words import COMMANDS, every_command
from ncps.settings.setting import Status
from ncps.settings.table import TABLE, by_flag

_PATHS: Final = frozenset({"FILE", "PATH"})


def command(options: Namespace) -> int:
    """Print the script."""
    sys.stdout.write(SCRIPTS[options.shell]())
    return 0


def _settings() -> dict[str, str]:
    """Return the flags of all settings that have an effect, each with its help."""
    found = {f"--{row.flag}": row.help for row in TABLE if row.status is Status.ACTIVE}
    secret = {flag for flag in by_flag() if flag.endswith("-file")}
    for row in TABLE:
        if row.status is Status.ACTIVE and f"{row.flag}-file" in secret:
            found.setdefault(f"--{row.flag}-file", f"File that holds the value of --{row.flag}.")
    return found


def _path_flags() -> set[str]:
    """Return the flags whose value is the name of a file."""
    found = {f"--{row.flag}" for row in TABLE if row.kind.metavar in _PATHS}
    found |= {flag for flag in _settings() if flag.endswith("-file")}
    words = [word for _, each in every_command() for word in each.words]
    return found | {word.name for word in words if word.is_flag and word.is_path}


def _value_flags() -> set[str]:
    """Return the flags whose value is not the name of a file."""
    found = {f"--{row.flag}" for row in TABLE if not row.is_flag_alone_true}
    words = [word for _, each in every_command() for word in each.words]
    found |= {word.name for word in words if word.is_flag and word.metavar}
    return (found | {flag for flag in _settings() if flag.endswith("-file")}) - _path_flags()


def _first_sentence(text: str) -> str:
    sentence = text.split(". ", maxsplit=1)[0].removesuffix(".")
    return sentence if len(sentence) <= 100 else f"{sentence[:97]}..."


def _shown(commands: Iterable[Command]) -> dict[str, str]:
    return {each.name: each.help for each in commands if not each.is_former}


def _next_words(name: str, each: Command) -> dict[str, str]:
    """Return the words, other than flags, that may follow a command."""
    if name == "help":
        return {**_shown(COMMANDS), **_shown(child for c in COMMANDS for child in c.children)}
    choices = {choice: "" for word in each.words for choice in word.choices}
    return {**_shown(each.children), **choices}


def _flags(each: Command) -> dict[str, str]:
    """Return the flags of a command, without the settings."""
    own = {word.name: word.help for word in each.words if word.is_flag}
    return {**own, "--help": "Explain this command."}


def _has_file(each: Command) -> bool:
    return any(word.is_path and not word.is_flag for word in each.words)


def _spoken() -> list[tuple[str, Command]]:
    return [(name, each) for name, each in every_command() if not each.is_former]


def _pattern(name: str, each: Command) -> str:
    """Return the full names of a command as a pattern of `case`."""
    return "|".join(f'"{spoken}"' for spoken in (name, *each.aliases))


def _known() -> str:
    return "|".join(_pattern(name, each) for name, each in _spoken())


def _filled(script: str, cases: Mapping[str, str], settings: str) -> str:
    """Fill a script with all commands and flags.

    :param cases: by pattern of commands, the shell code that sets the words to offer.
    """
    paths, values = _path_flags(), _value_flags()
    return script.format(
        valued="|".join(sorted(paths | values)),
        known=_known(),
        paths="|".join(sorted(paths)),
        values="|".join(sorted(values)),
        settings=settings,
        cases="\n".join(f"        {pattern}) {action} ;;" for pattern, action in cases.items()),
    )


_BASH: Final = """\
# Completion of ncps for bash, made by `ncps completion bash`.
_ncps() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
    local i word command= words= flags= files=
    [[ $current == = ]] && current=
    [[ $previous == = ]] && previous=${{COMP_WORDS[COMP_CWORD - 2]}}
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${{COMP_WORDS[i]}}
        case $word in
            =) ((i++)) ;;
            {valued}) [[ ${{COMP_WORDS[i + 1]}} == = ]] || ((i++)) ;;
            -*) ;;
            *)
                word="${{command:+$command }}$word"
                case $word in {known}) command=$word ;; esac
                ;;
        esac
    done
    COMPREPLY=()
    case $previous in
        {paths})
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
            return
            ;;
        {values}) return ;;
    esac
    local settings="{settings}"
    case $command in
{cases}
    esac
    if [[ $current == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$current")
    elif [[ $files ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    else
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    fi
}}
complete -F _ncps ncps
"""


def _bash() -> str:
    cases = {'""': f'words="{" ".join(_shown(COMMANDS))}" flags="--version --help $settings"'}
    for name, each in _spoken():
        settings = " $settings" if each.takes_settings else ""
        files = " files=1" if _has_file(each) else ""
        cases[_pattern(name, each)] = (
            f'words="{" ".join(_next_words(name, each))}"'
            f' flags="{" ".join(_flags(each))}{settings}"{files}'
        )
    return _filled(_BASH, cases, " ".join(_settings()))


_ZSH: Final = """\
#compdef ncps
# Completion of ncps for zsh, made by `ncps completion zsh`.
_ncps() {{
    local i word command= files=
    local -a given words_ flags settings
    given=("${{(@)words[2,CURRENT-1]}}")
    for ((i = 1; i <= $#given; i++)); do
        word=$given[i]
        case $word in
            {valued}) ((i++)) ;;
            -*) ;;
            *)
                word="${{command:+$command }}$word"
                case $word in {known}) command=$word ;; esac
                ;;
        esac
    done
    case $words[CURRENT-1] in
        {paths}) _files; return ;;
        {values}) return ;;
    esac
    settings=({settings})
    case $command in
{cases}
    esac
    if [[ $words[CURRENT] == -* ]]; then
        _describe -o flag flags
    elif [[ -n $files ]]; then
        _files
    else
        _describe command words_
    fi
}}
if [[ $funcstack[1] == _ncps ]]; then _ncps "$@"; else compdef _ncps ncps; fi
"""


def _quoted(text: str) -> str:
    """Write a text for a shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _described(words: Mapping[str, str]) -> str:
    """Write words as elements of a zsh array, each with its help after a colon."""
    return " ".join(
        _quoted(f"{word}:{_first_sentence(help_)}" if help_ else word)
        for word, help_ in words.items()
    )


def _zsh() -> str:
    general = {"--version": "Print the version.", "--help": "Explain the commands."}
    cases = {
        '""': f"words_=({_described(_shown(COMMANDS))}) flags=({_described(general)} $settings)"
    }
    for name, each in _spoken():
        settings = " $settings" if each.takes_settings else ""
        files = " files=1" if _has_file(each) else ""
        cases[_pattern(name, each)] = (
            f"words_=({_described(_next_words(name, each))})"
            f" flags=({_described(_flags(each))}{settings}){files}"
        )
    return _filled(_ZSH, cases, _described(_settings()))


def _fish() -> str:
    """Write a `complete` for each word and flag, on condition of the words before it."""
    lines = [
        "# Completion of ncps for fish, made by `ncps completion fish`.",
        "complete -c ncps -f",
    ]
    paths, values = _path_flags(), _value_flags()
    tops = " ".join(_shown(COMMANDS))
    none = f"not __fish_seen_subcommand_from {tops}"

    def add(condition: str, word: str, help_: str) -> None:
        kind = f"-a {word}"
        if word.startswith("--"):
            follows = " -r -F" if word in paths else " -x" if word in values else ""
            kind = f"-l {word.removeprefix('--')}{follows}"
        text = f" -d {_fish_quoted(_first_sentence(help_))}" if help_ else ""
        lines.append(f"complete -c ncps -n {_fish_quoted(condition)} {kind}{text}")

    for name, each in _spoken():
        *above, own = name.split(" ")
        seen = " ".join([own, *each.aliases])
        here = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in [*above, seen])
        if not above:
            add(none, name, each.help)
        rest = here
        if each.children:
            rest += f"; and not __fish_seen_subcommand_from {' '.join(_shown(each.children))}"
        for word, help_ in _next_words(name, each).items():
            add(rest, word, help_)
        for word, help_ in _flags(each).items():
            add(rest if each.children else here, word, help_)
        if _has_file(each):
            lines.append(f"complete -c ncps -n {_fish_quoted(here)} -F")
    without = [each.name for each in COMMANDS if not each.takes_settings]
    for flag, help_ in _settings().items():
        add(f"not __fish_seen_subcommand_from {' '.join(without)}", flag, help_)
    return "\n".join(lines) + "\n"


SCRIPTS: Final[Mapping[str, Callable[[], str]]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
