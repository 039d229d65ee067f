"""The command line."""


def main() -> None:
    """Entry point of the `readtrack` command."""
    from readtrack.cli.app import app

    app()
