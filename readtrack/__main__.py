"""`readtrack` alone is the app; with arguments it is the command line."""

import sys


def main() -> None:
    if len(sys.argv) == 1 and sys.stdout.isatty():
        from readtrack.tui.app import run

        sys.exit(run())
    from readtrack.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
