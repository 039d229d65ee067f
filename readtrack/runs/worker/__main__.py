"""The child process of a run: `python -m readtrack.runs.worker <run folder>`.

Standard input is a pipe of commands, one JSON object per line: `{"cmd": "cancel", "reason": "cancelled"}`.
A closed pipe means that the process that started the run has exited. The run then ends too, unless its folder
contains a file named `detached`.

Standard output and error go to the log, so the plugin, its libraries and its children may print freely.
Events go to a separate descriptor.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import sys
from pathlib import Path
from typing import NoReturn

from readtrack.runs.worker.execute import Worker
from readtrack.runs.worker.sentinel import adopt_orphans, start_sentinel


def main(folder: Path) -> NoReturn:
    commands = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    # If the parent ignores SIGINT, as a shell's background job does, the child would ignore it too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    adopt_orphans()
    sentinel = start_sentinel(folder, commands)
    faulthandler.enable()
    # Logs where a terminated run hung.
    faulthandler.register(signal.SIGTERM, chain=True)
    Worker(folder, commands, sentinel).work()


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
