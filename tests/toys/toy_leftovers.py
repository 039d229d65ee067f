"""Completes, but leaves processes, a thread and a file behind."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from readtrack.plugin import hookimpl


@hookimpl
def implementation():
    return dict


@hookimpl
def experiment(run):
    run.phase("train")
    sleep = "import time; time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", sleep])
    orphan = subprocess.run(
        ["sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True, check=True
    )
    run.log(f"child {child.pid}")
    run.log(f"child {int(orphan.stdout)}")
    elsewhere = subprocess.Popen([sys.executable, "-c", sleep], start_new_session=True)
    run.log(f"child {elsewhere.pid}")
    threading.Thread(target=time.sleep, args=(600,)).start()
    Path("file in the scratch folder").write_text("kept")
    run.metric("scratch", float(Path.cwd().name == "scratch"))
    run.metric("terminal", float(_has_terminal()))


def _has_terminal():
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        return False
    return True


@hookimpl
def benchmark(bench):
    return iter(())
