"""The environment of a process that runs a plugin."""

from __future__ import annotations

import os

from readtrack.home import Home
from readtrack.plugins.find import plugin_path


def child_environment(home: Home) -> dict[str, str]:
    """The environment of a process that runs a plugin: no terminal, no colours, absolute paths only.

    Paths are absolute, because the process has another working folder.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONSTARTUP", "PYTHONINSPECT", "FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES")
    }
    environment |= {
        "READTRACK_HOME": str(home.root),
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONSAFEPATH": "1",
        "NO_COLOR": "1",
        "TERM": "dumb",
    }
    if plugin_path():
        environment["READTRACK_PLUGIN_PATH"] = os.pathsep.join(map(str, plugin_path()))
    if os.environ.get("PYTHONPATH"):
        entries = os.environ["PYTHONPATH"].split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in entries)
    return environment
