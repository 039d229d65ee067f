"""The command line: one thin module for each group of commands.

stdout is data, stderr is narration, and exit codes are an interface (see `readtrack --help`). Nothing here
imports torch, numpy or textual at import time, and `list` and `--help` never do.
"""


def main() -> None:
    """Entry point of the `readtrack` command."""
    import gc
    import sys

    # Most commands are over before a collection could pay; with `freeze` below, a ninth of what `list` takes.
    gc.set_threshold(50_000)
    try:
        if sys.argv[1:] == ["list"]:
            # Importing typer, which has nothing to parse here, is more than half of what it would take.
            from readtrack.cli import checklist, ending

            code = ending.run(checklist.show)
        else:
            from readtrack.cli.app import run

            code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    gc.freeze()  # what is left goes with the process
    sys.exit(code)
