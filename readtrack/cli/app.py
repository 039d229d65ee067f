"""The `readtrack` command: maps commands to modules and turns exceptions into exit codes."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from readtrack import __version__
from readtrack.cli import ending, terminal
from readtrack.errors import ReadtrackError

# A module is imported when one of its commands is called. The help imports none of them.
_COMMANDS = {
    "run": ("run", "Run a paper: its experiment, claims and benchmark."),
    "list": ("listing", "Show the checklist and the state of each paper."),
    "show": ("showing", "Show a paper's details: facts, state, lineage, note and runs."),
    "mark": ("reading", "Set the reading state of one or more papers."),
    "undo": ("reading", "Undo the last change: a state, tag, rating, row or import."),
    "redo": ("reading", "Redo the last change that was undone."),
    "tag": ("reading", "Add, remove or print a paper's tags."),
    "rate": ("reading", "Rate a paper from 1 to 5."),
    "note": ("reading", "Write or print a paper's note."),
    "highlight": ("reading", "Save a quote from a paper's PDF in its note, with the page."),
    "adopt": ("reading", "Reattach state, tags and notes to a row whose wording you changed."),
    "practice": ("practice", "Write parts of a paper yourself, and compare them with its code."),
    "bets": ("bets", "Show your bets and how well they are calibrated."),
    "results": ("results", "Show past runs and their results, newest first."),
    "sync": ("sync", "Fetch missing abstracts and PDFs."),
    "add": ("sync", "Put a paper on your list."),
    "attach": ("sync", "Attach a PDF that you downloaded."),
    "open": ("sync", "Open a paper's PDF in the system's viewer."),
    "verify": ("verify", "Test the claims of papers over several seeds."),
    "compare": ("bench", "Compare two runs of a paper: claims, code and benchmark."),
    "devices": ("machine", "List the devices that a run can use."),
    "calibrate": ("machine", "Measure a device's peak compute and memory rates."),
    "places": ("places", "Manage other machines that can run papers."),
    "data": ("data", "Fetch, add and check real data sets."),
    "weights": ("data", "Fetch released weights."),
    "plugins": ("plugins", "List, check and create plugins (the code that runs papers)."),
    "search": ("search", "Search titles, authors, abstracts, notes and the text of PDFs."),
    "lineage": ("lineage", "Show a paper's prerequisites and successors as a tree."),
    "next": ("lineage", "Suggest what to read next."),
    "report": ("report", "Write your list, runs and claims as web pages."),
    "replay": ("replay", "Repeat the run of a replication card and compare its claims."),
    "stats": (
        "lineage",
        "Show reading statistics: states by section, days, streaks, pages and bets.",
    ),
    "bibtex": ("lineage", "Print a paper's BibTeX entry."),
    "import": ("transfer", "Import a list: Markdown, BibTeX, or a JSON export of readtrack."),
    "link": ("transfer", "Link a row of your list to papers."),
    "unlink": ("transfer", "Remove a row's link to its papers."),
    "remove": ("transfer", "Remove a row from your list, after confirmation."),
    "export": ("transfer", "Export your list as Markdown, BibTeX, CSV, or JSON (which holds everything)."),
    "merge": ("merging", "Merge another home into yours: journal, notes, runs and list."),
    "keys": ("keys", "Print the app's actions and keys, in the form of keys.yaml."),
    "completion": ("completion", "Print a shell completion script."),
    "doctor": ("machine", "Check the installation and your files."),
}

# \b keeps the lines of a paragraph as they are.
_EPILOG = """\b
Exit codes:
  0    done
  1    the run failed, or a check found a problem
  2    wrong usage or input
  3    nothing to do, or not available
  130  interrupted (143: terminated)

Data goes to stdout, everything else to stderr. Your data is in one folder, READTRACK_HOME;
`readtrack doctor` prints its path.
"""


class _Commands(TyperGroup):
    """Commands that are imported when they are requested."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _COMMANDS:
            return None
        if cmd_name not in self.commands:
            module = importlib.import_module(f"readtrack.cli.{_COMMANDS[cmd_name][0]}")
            group = typer.main.get_group(module.app)
            self.commands.update(group.commands if cmd_name in group.commands else {cmd_name: group})
        return self.commands[cmd_name]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in _COMMANDS:
            from difflib import get_close_matches

            near = get_close_matches(args[0], _COMMANDS, n=1)
            hint = (
                f"Did you mean `readtrack {near[0]}`?" if near else "`readtrack --help` lists the commands."
            )
            raise ReadtrackError(f"there is no command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="readtrack",
    cls=_Commands,
    epilog=_EPILOG,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Keep a list of machine-learning papers, fetch them and run them.

    Without a command, readtrack opens the app.
    """
    if version:
        terminal.print_out(f"readtrack {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        # In a terminal, `readtrack.__main__` has started the app by now.
        needs = "a terminal, and input or output is redirected"
        if sys.stdin.isatty() and sys.stdout.isatty():
            term = os.environ.get("TERM") or "not set"
            needs = f"a terminal that can move its cursor, and TERM={term} cannot"
        raise ReadtrackError(
            f"the app needs {needs}. `readtrack --help` lists the commands that work without it."
        )


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return the exit code."""
    return ending.run(lambda: _dispatch(arguments))


def _dispatch(arguments: Sequence[str]) -> int:
    command = typer.main.get_command(app)
    try:
        # typer's `main` would handle closed pipes and interrupts itself.
        with command.make_context("readtrack", list(arguments)) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        if _is_usage_error(error):
            return _usage(error)
        raise
    return 0


def _is_usage_error(error: Exception) -> bool:
    # typer carries its own copy of click and does not export this class.
    return any(kind.__name__ == "UsageError" for kind in type(error).__mro__)


def _usage(error: Any) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        terminal.print_err(error.ctx.get_help())
        return 2
    command = error.ctx.command_path if error.ctx else "readtrack"
    return ending.fail(f"{error.format_message().rstrip('.')}. See `{command} --help`.", 2)
