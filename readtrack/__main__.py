"""Start the app if `readtrack` is run in a terminal without arguments, otherwise the command line."""

import os
import sys


def main() -> None:
    if os.name != "posix":
        sys.exit("readtrack: runs on Linux and macOS. On Windows, use WSL.")
    from readtrack.cli import terminal

    if len(sys.argv) == 1 and sys.stdin.isatty() and terminal.on_terminal():
        import gc

        gc.disable()  # start-up creates no garbage; `ReadtrackApp._painted` enables it again
        from readtrack.tui.app import run

        sys.exit(run())
    from readtrack.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
