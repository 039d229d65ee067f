"""`readtrack completion`: completes commands, options, papers, rows and runs in a shell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from readtrack.cli import terminal

if TYPE_CHECKING:
    from readtrack.library import Library

app = typer.Typer(rich_markup_mode=None)

_RUN_PAPERS = ("run", "verify", "practice", "plugins check")

_BASH = """\
_readtrack() {
  local word typed=${COMP_WORDS[COMP_CWORD]//[\\\\\\"\\']/}
  COMPREPLY=()
  while IFS= read -r word; do
    [[ $word == "$typed"* && ( $typed == -* || $word != -* ) ]] && COMPREPLY+=("$(printf %q "$word")")
  done < <(readtrack completion words -- "${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null)
}
complete -o default -F _readtrack readtrack
"""
_ZSH = """\
#compdef readtrack
_readtrack() {
  local -a found
  found=(${(f)"$(readtrack completion words -- ${(Q)words[2,CURRENT-1]} 2>/dev/null)"})
  [[ $PREFIX == -* ]] || found=(${found:#-*})
  if (( ${#found} )); then compadd -- $found; else _files; fi
}
compdef _readtrack readtrack
"""
_FISH = """\
function __readtrack
  set -l typed (commandline -ct)
  set -l found (readtrack completion words -- (commandline -opc)[2..-1] 2>/dev/null)
  string match -q -- '-*' "$typed"; or set found (string match -v -- '-*' $found)
  if set -q found[1]; printf '%s\\n' $found; else; __fish_complete_path "$typed"; end
end
complete -c readtrack -f -a '(__readtrack)'
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
    """Completions: commands, the values of the option before the cursor, or arguments and options."""
    from readtrack.cli.app import app as commands

    command: Any = typer.main.get_command(commands)
    path, rest = "", list(typed)
    while hasattr(command, "list_commands"):
        inner = command.get_command(None, rest[0]) if rest else None
        if inner is None:
            yield from command.list_commands(None)
            return
        command, path, rest = inner, f"{path} {rest[0]}".lstrip(), rest[1:]
    options = {name: one for one in command.params for name in one.opts if name.startswith("-")}
    with_value = [name for name, one in options.items() if not one.is_flag]
    if rest and rest[-1] in with_value:
        yield from _values(path, options[rest[-1]], rest[:-1])
        return
    words = [
        word
        for before, word in zip(["", *rest], rest, strict=False)
        if not word.startswith("-") and before not in with_value
    ]
    for argument in _next([one for one in command.params if one not in options.values()], len(words)):
        yield from _values(path, argument, words)
    yield from (name for name in options if name.startswith("--"))


def _next(arguments: list[Any], given: int) -> Iterator[Any]:
    """The arguments that the next word may belong to, after `given` others."""
    for index, argument in enumerate(arguments):
        if argument.nargs == -1:
            yield argument
            given = 0  # this argument accepts any number of words
        elif index >= given:
            yield argument
            return


def _values(path: str, parameter: Any, typed: list[str]) -> Iterator[str]:
    """The possible values of a command's argument or option; nothing for a file or free text."""
    from readtrack.home import Home

    name = parameter.name
    if choices := getattr(parameter.type, "choices", None):
        yield from choices
    elif name == "broken":
        yield from _breaks(typed)
    elif name in ("run", "run_a", "run_b", "card"):
        yield from sorted((one.name for one in Home().runs.glob("*")), reverse=True)
    elif path in ("plugins diff", "plugins revert"):
        from readtrack.plugins.find import find

        yield from (plugin.name for plugin in find(Home()).values() if plugin.origin == "user")
    elif path in _RUN_PAPERS and name in ("paper", "papers", "names"):
        yield from _library().runnable()
    elif name in ("paper", "papers"):
        yield from _library().catalog.papers
    elif name == "row":
        from readtrack.reading_list.catalog import Row

        yield from (item.text for _, item in _library().catalog.walk() if isinstance(item, Row))
    elif name == "section":
        yield from (section.title for section in _library().catalog.sections)
    elif path in ("data get", "weights get"):
        from readtrack.datasets.catalogue import catalogue

        yield from (
            one for one, known in catalogue().items() if (known.kind == "weights") == (path[0] == "w")
        )
    elif name == "data" or path in ("data verify", "data remove"):
        from readtrack.datasets.store import DataSets

        yield from DataSets(Home()).names()
    elif name == "place" or path == "places check":
        from readtrack.places.place import load

        yield from load(Home())


def _library() -> Library:
    from readtrack.library import Library

    return Library.open()


def _breaks(typed: list[str]) -> Iterator[str]:
    """The breaks of the first paper in `typed`."""
    from readtrack.breaks import known

    library = _library()
    paper = next((word for word in typed if word in library.runnable()), None)
    yield from (one.name for one in known(library, paper)) if paper else ()
