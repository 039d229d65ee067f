"""Real runs of toy plugins, with the real launcher and a real child process."""

import time
from pathlib import Path

import psutil
import pytest

from readtrack.runs import launcher, processes, store
from readtrack.runs.job import new_job

TOYS = Path(__file__).parents[1] / "toys"
DEADLINE = 60.0


def wait_for(condition, what):
    """Poll until `condition()` is true, and return its value."""
    end = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)
    return value


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setenv("READTRACK_PLUGIN_PATH", str(TOYS))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def light(monkeypatch):
    """Make workers import the stub of torch."""
    monkeypatch.setenv("PYTHONPATH", str(TOYS / "light"))


class Runs:
    """Starts runs, and stops all of them at the end."""

    wait_for = staticmethod(wait_for)

    def __init__(self, home):
        self.home = home
        self.processes = []

    def start(self, paper, only="experiment", budget="smoke", **fields):
        job = new_job(paper, only=only, budget=budget, **fields)
        process = launcher.start(job, self.home)
        self.processes.append(process)
        return process

    def finish(self, process):
        wait_for(process.poll, "the end of the run")
        return store.load(process.folder)

    def run(self, paper, **fields):
        return self.finish(self.start(paper, **fields))

    def reach(self, folder, phase="train"):
        """Wait until the run is in this phase."""

        def there():
            loaded = store.load(folder)
            assert loaded.outcome is None, loaded.detail
            return loaded if loaded.phase == phase else None

        return wait_for(there, f"phase {phase}")

    def ended(self, folder):
        """The record of a run that another process started, once it has ended."""
        wait_for(lambda: store.load(folder).outcome, "the end of the run")
        return store.load(folder)

    def child(self, folder):
        """The process id of the child that the plugin has logged."""
        return int(wait_for(lambda: store.load(folder).logs, "the plugin's child")[0].split()[1])

    def no_process_left(self, run_id):
        def gone():
            return not [p for p in psutil.process_iter() if _belongs(p, run_id)]

        return wait_for(gone, "the end of all its processes")


def _belongs(process, run_id):
    try:
        alive = process.status() != psutil.STATUS_ZOMBIE
        return alive and process.environ().get("READTRACK_RUN") == run_id
    except (psutil.Error, OSError):
        return False


@pytest.fixture
def runs(home):
    runs = Runs(home)
    yield runs
    for process in runs.processes:
        while process.poll() is None:
            process.cancel()
            time.sleep(0.02)
        runs.no_process_left(process.run_id)
    for folder in home.runs.iterdir() if home.runs.exists() else ():
        processes.kill_leftover_processes(folder.name)  # processes left behind by a failed test


@pytest.fixture
def parent_script():
    """A program that starts a run: with `stay` it polls for ever, with `leave` it detaches and ends."""
    return (
        "import sys, time\n"
        "from readtrack.home import Home\n"
        "from readtrack.runs import launcher\n"
        "from readtrack.runs.job import new_job\n"
        "how, then, timeout = sys.argv[1:4]\n"
        "fields = {'settings': {'how': how}, 'timeout': float(timeout) or None}\n"
        "job = new_job('toy_hang', only='experiment', **fields)\n"
        "process = launcher.start(job, Home())\n"
        "print(process.folder, flush=True)\n"
        "if then == 'leave':\n"
        "    process.detach()\n"
        "else:\n"
        "    while process.poll() is None:\n"
        "        time.sleep(0.02)\n"
    )
