"""`readtrack keys`: prints the app's keys in the form of keys.yaml."""

from __future__ import annotations

from typing import Annotated

import typer

from readtrack.cli import terminal
from readtrack.cli.terminal import print_out
from readtrack.errors import ReadtrackError
from readtrack.home import Home

app = typer.Typer(rich_markup_mode=None)


@app.command()
def keys(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Print the app's actions and keys, in the form of keys.yaml.

    To change keys, save the output as keys.yaml in READTRACK_HOME, and edit or delete lines.
    """
    from readtrack.present import actions, keymap

    path = Home().keys_yaml
    changed, problems = keymap.read(path)
    actions.remap(changed)
    if as_json:
        terminal.print_json(
            [
                {
                    "action": one.id,
                    "keys": list(one.keys),
                    "help": one.help,
                    "command": one.cli_command or None,
                }
                for one in actions.ACTIONS
            ]
        )
    else:
        print_out(f"# Keys of the app. {path} changes them.")
        for line in keymap.written():
            print_out(line)
    if problems:
        raise ReadtrackError("; ".join(problems))
