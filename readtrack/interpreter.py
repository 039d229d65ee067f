"""The Python that runs papers: the one that runs readtrack, or READTRACK_PYTHON.

The list, the sync and the app do not need PyTorch. Runs need it, and may use a separate environment.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import sys
from pathlib import Path

from readtrack.errors import NotAvailableError, ReadtrackError

VARIABLE = "READTRACK_PYTHON"


def path() -> str:
    """The interpreter's path. Raises ReadtrackError if READTRACK_PYTHON is not a program."""
    chosen = os.environ.get(VARIABLE, "").strip()
    if not chosen:
        return sys.executable
    # Not resolved, because in a virtual environment the link itself identifies the environment.
    found = shutil.which(Path(chosen).expanduser())
    if found is None:
        raise ReadtrackError(
            f"{VARIABLE} is {chosen!r}, which is not a program. Set it to a Python interpreter."
        )
    return os.path.abspath(found)


def is_own() -> bool:
    """Whether papers run in the Python that runs readtrack."""
    return path() == sys.executable


def install_command(extra: str = "run", python: str = "") -> str:
    """The command that installs an extra of readtrack for the Python that runs papers, or for `python`.

    It uses the folder that readtrack came from, because on a package index the name may belong to another
    project.
    """
    python = python or path()
    pip = f"{python} -m pip install"
    if python == sys.executable and importlib.util.find_spec("pip") is None:  # as in environments made by uv
        pip = f"uv pip install --python {python}"
    checkout = Path(__file__).parents[1]
    if (checkout / "pyproject.toml").is_file():
        return f"{pip} --editable {shlex.quote(f'{checkout}[{extra}]')}"
    source = _source()
    if source is not None:
        return f"{pip} {shlex.quote(f'{source}[{extra}]')}"
    return f"(in a clone of readtrack) {pip} '.[{extra}]'"


def _source() -> Path | None:
    """The folder or wheel that readtrack was installed from, if it still exists."""
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import unquote, urlsplit

    try:
        url = urlsplit(
            json.loads(distribution("readtrack").read_text("direct_url.json") or "{}").get("url", "")
        )
    except (PackageNotFoundError, ValueError):
        return None
    found = Path(unquote(url.path))
    return found if url.scheme == "file" and found.exists() else None


def require_torch() -> None:
    """Raises NotAvailableError if runs would find no PyTorch. Does not start another Python to check."""
    if is_own() and importlib.util.find_spec("torch") is None:
        raise _no_torch()


def import_torch() -> None:
    """Import torch where papers run. Raises NotAvailableError if it is not installed."""
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise _no_torch() from None


def _no_torch() -> NotAvailableError:
    return NotAvailableError(
        f"PyTorch is not installed, and running papers needs it. To install: {install_command()} "
        f"(or set {VARIABLE} to a Python that has it)."
    )
