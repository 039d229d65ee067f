"""The command line: one thin module for each group of commands.

Data goes to stdout and messages to stderr, and exit codes are part of the interface (see `readtrack --help`).
No module imports torch, numpy or textual at import time, and `list` and `--help` never do.
"""


def main() -> None:
    """Entry point of the `readtrack` command."""
    import gc
    import sys

    # Most commands end before garbage collection pays off. With `freeze` below, this saves a ninth of
    # `list`'s time.
    gc.set_threshold(50_000)
    try:
        if sys.argv[1:] == ["list"]:
            # There is nothing to parse, and importing typer would take more than half of the time.
            from readtrack.cli import checklist, ending

            code = ending.run(checklist.show)
        else:
            from readtrack.cli.app import run

            code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    gc.freeze()  # no collection at exit: the process ends anyway
    sys.exit(code)
