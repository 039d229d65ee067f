"""The child process of a run: `python -m readtrack.runs.worker <run folder>`.

Standard input is a pipe of commands, one JSON object a line: `{"cmd": "cancel", "reason": "cancelled"}`.
When the pipe closes, the starter is gone, and the run ends, unless its folder holds `detached`.
Standard output and error are the log: the plugin, its libraries and its children may print what they like.
Events go to a descriptor of the worker's own.
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
    # A parent that ignores SIGINT (a shell's background job) would hand that down.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    adopt_orphans()
    sentinel = start_sentinel(folder, commands)
    faulthandler.enable()
    # Says in the log where a run hung that had to be terminated.
    faulthandler.register(signal.SIGTERM, chain=True)
    Worker(folder, commands, sentinel).work()


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
