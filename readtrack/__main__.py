"""`readtrack` alone in a terminal is the app; everything else is the command line."""

import sys


def main() -> None:
    if len(sys.argv) == 1 and sys.stdin.isatty() and sys.stdout.isatty():
        from readtrack.tui.app import run

        sys.exit(run())
    from readtrack.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
