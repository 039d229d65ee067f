"""`readtrack completion`: completes commands, options, papers and breaks in a shell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import typer

from readtrack.cli import terminal

app = typer.Typer(rich_markup_mode=None)

_RUN_PAPERS = ("run", "verify")
_ANY_PAPERS = ("show", "mark", "tag", "rate", "note", "results", "sync", "attach", "open", "link")

_BASH = """\
_readtrack() {
  local word typed=${COMP_WORDS[COMP_CWORD]//[\\\\\\"\\']/}
  COMPREPLY=()
  while IFS= read -r word; do
    [[ $word == "$typed"* ]] && COMPREPLY+=("$(printf %q "$word")")
  done < <(readtrack completion words -- "${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null)
}
complete -o default -F _readtrack readtrack
"""
_ZSH = """\
#compdef readtrack
_readtrack() {
  local -a found
  found=(${(f)"$(readtrack completion words -- ${words[2,CURRENT-1]} 2>/dev/null)"})
  if (( ${#found} )); then compadd -- $found; else _files; fi
}
compdef _readtrack readtrack
"""
_FISH = """\
complete -c readtrack -f -a '(readtrack completion words -- (commandline -opc)[2..-1] 2>/dev/null)'
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


@app.command()
def completion(
    shell: Annotated[
        Literal["bash", "zsh", "fish", "words"],
        typer.Argument(help="The shell. `words` is used by the script itself."),
    ],
    typed: Annotated[
        list[str] | None, typer.Argument(help="The words before the cursor.", hidden=True)
    ] = None,
) -> None:
    """Print a shell completion script.

    In bash: `eval "$(readtrack completion bash)"` in ~/.bashrc; in zsh the same in ~/.zshrc; in fish
    `readtrack completion fish > ~/.config/fish/completions/readtrack.fish`.
    """
    if shell == "words":
        for word in _words(typed or []):
            terminal.print_out(word)
    else:
        terminal.print_out(_SCRIPTS[shell].rstrip("\n"))


def _words(typed: list[str]) -> Iterator[str]:
    """Completions: commands, a break after `--break`, or options and arguments of the command."""
    from readtrack.cli.app import _COMMANDS
    from readtrack.cli.app import app as commands

    if not typed or typed[0] not in _COMMANDS:
        yield from _COMMANDS
        return
    if typed[-1] == "--break":
        yield from _breaks(typed[1:-1])
        return
    command: Any = typer.main.get_command(commands)
    found = command.get_command(None, typed[0])
    yield from getattr(found, "commands", ())
    for parameter in found.params:
        yield from (option for option in parameter.opts if option.startswith("--"))
    yield from _arguments(typed[0])


def _breaks(typed: list[str]) -> Iterator[str]:
    """The breaks of the first paper in `typed`."""
    from readtrack.breaks import known
    from readtrack.library import Library

    library = Library.open()
    paper = next((word for word in typed if word in library.runnable()), None)
    yield from (one.name for one in known(library, paper)) if paper else ()


def _arguments(command: str) -> Iterator[str]:
    from readtrack.home import Home
    from readtrack.library import Library

    if command in _RUN_PAPERS:
        yield from Library.open().runnable()
    elif command in _ANY_PAPERS:
        yield from Library.open().catalog.papers
    elif command == "compare":
        yield from sorted((path.name for path in Home().runs.glob("*")), reverse=True)
    if command == "mark":
        from readtrack.reading_list.journal import STATES

        yield from STATES
