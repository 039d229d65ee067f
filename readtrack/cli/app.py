"""The `readtrack` command: which module has which command, and how every command ends."""

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

# A module is imported when one of its commands is called; the help needs none of them.
_COMMANDS = {
    "run": ("run", "Run a paper: its experiment, its claims, its benchmark."),
    "list": ("listing", "The checklist as its reader wrote it."),
    "show": ("showing", "Show a paper's details."),
    "mark": ("reading", "Set the state of one or more papers, with today's date."),
    "undo": ("reading", "Take back the last change of a state, tag or rating."),
    "redo": ("reading", "Do again what the last undo took back."),
    "tag": ("reading", "Add or remove a paper's tags; without tags, print them."),
    "rate": ("reading", "Rate a paper from 1 to 5."),
    "note": ("reading", "Write a paper's note, or print it."),
    "highlight": ("reading", "Keep a quote from a paper's PDF in its note, with the page."),
    "adopt": ("reading", "Give a row that you reworded what was said of it before."),
    "results": ("results", "What runs came to, the newest first."),
    "sync": ("sync", "Fetch abstracts and PDFs that are missing."),
    "add": ("sync", "Put a paper on your list."),
    "attach": ("sync", "Make a PDF that you fetched yourself the paper's own."),
    "open": ("sync", "Open a paper's PDF in the system's viewer."),
    "verify": ("verify", "Judge the claims of papers over several seeds."),
    "compare": ("bench", "Set the benchmark of one run against another's, of the same paper."),
    "devices": ("machine", "The devices that a run can use."),
    "calibrate": ("machine", "Measure the peak rates of a device."),
    "places": ("places", "Other machines that papers can run on."),
    "plugins": ("plugins", "The plugins: what makes a paper runnable."),
    "search": ("search", "Search titles, authors, abstracts, notes and the text of PDFs."),
    "lineage": ("lineage", "What a paper builds on and what builds on it, as a tree."),
    "next": ("lineage", "Propose what to read next, with the reason."),
    "stats": ("lineage", "What you have read: states by section, a year day by day, streaks, pages."),
    "bibtex": ("lineage", "A paper's BibTeX entry."),
    "import": ("transfer", "Bring a list into your own: Markdown, BibTeX, or what `readtrack export` wrote."),
    "link": ("transfer", "Tie a row of your list to the papers that it means."),
    "unlink": ("transfer", "Take the papers off a row of your list."),
    "export": ("transfer", "Write your list as Markdown, BibTeX, CSV, or JSON that holds everything."),
    "merge": ("merging", "Unite another home with yours: journal, notes, runs, list."),
    "completion": ("completion", "Print what makes a shell complete commands, options and papers."),
    "doctor": ("machine", "Look for what is wrong with the set-up."),
}

# \b keeps the lines of a paragraph as they are.
_EPILOG = """\b
Exit codes:
  0    done
  1    the run failed, or something is wrong
  2    usage or input
  3    nothing to do, or not available
  130  interrupted (143: terminated)

Data goes to stdout, everything else to stderr. All that you own lies in one folder, READTRACK_HOME;
`readtrack doctor` says where that is.
"""


class _Commands(TyperGroup):
    """Commands that are imported when they are asked for."""

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
                f"Did you mean `readtrack {near[0]}`?" if near else "`readtrack --help` lists what there is."
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
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Keep a list of machine-learning papers, fetch them, and run every one of them.

    Without a command: the app.
    """
    if version:
        terminal.print_out(f"readtrack {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        # In a terminal, `readtrack.__main__` has started the app by now.
        needs = "a terminal, and this is none"
        if sys.stdin.isatty() and sys.stdout.isatty():
            term = os.environ.get("TERM") or "not set"
            needs = f"a terminal that can move its cursor, and TERM={term} says that this one cannot"
        raise ReadtrackError(f"the app needs {needs}. `readtrack --help` lists what works here.")


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit code."""
    return ending.run(lambda: _dispatch(arguments))


def _dispatch(arguments: Sequence[str]) -> int:
    command = typer.main.get_command(app)
    try:
        # Not `main`, which would take closed pipes and interrupts into its own hands.
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
