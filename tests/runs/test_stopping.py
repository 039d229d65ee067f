"""Stopping a run, and the behaviour if its starter or its worker is gone."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from readtrack.runs import launcher, processes, store
from readtrack.runs.events import EventWriter
from readtrack.runs.job import new_job

pytestmark = pytest.mark.usefixtures("light")


def test_cancel_ends_a_polite_run_between_two_steps(runs):
    process = runs.start("toy_hang", settings={"how": "polite"})
    runs.reach(process.folder)
    assert process.cancel() == "asked"
    done = runs.finish(process)
    assert done.outcome == "cancelled"
    assert done.detail == "stopped in phase train"
    assert process.stop_level == "asked"
    assert process.cancel() == "asked"  # it has ended, so there is no escalation


def test_only_the_worker_trims_the_log_while_it_is_alive(runs, monkeypatch):
    """If two processes trimmed the log, output between reading and cutting would be lost."""
    trimmed = []
    monkeypatch.setattr(launcher.log, "trim", lambda folder: trimmed.append(process._running()))
    process = runs.start("toy_hang", settings={"how": "brief"})
    runs.finish(process)
    assert trimmed == [False]


def test_cancel_interrupts_a_run_that_does_not_ask(runs):
    process = runs.start("toy_hang", settings={"how": "sleep"})
    runs.reach(process.folder)
    process.cancel()
    started = time.monotonic()
    done = runs.finish(process)
    assert done.outcome == "cancelled"
    assert process.stop_level == "interrupted"
    assert time.monotonic() - started > 1.5


def test_each_further_cancel_skips_a_rung(runs):
    process = runs.start("toy_hang", settings={"how": "stubborn"})
    runs.child(process.folder)
    assert [process.cancel() for _ in range(5)] == ["asked", "interrupted", "terminated", "killed", "killed"]
    done = runs.finish(process)
    assert done.outcome == "cancelled"
    assert "killed" in done.detail
    runs.no_process_left(done.run_id)


def test_terminating_reports_where_it_hung(runs):
    process = runs.start("toy_hang", settings={"how": "deaf"})
    runs.reach(process.folder)
    while "deaf" not in store.load(process.folder).logs:
        time.sleep(0.02)
    for _ in range(3):
        process.cancel()
    done = runs.finish(process)
    assert done.outcome == "cancelled"
    assert process.stop_level == "terminated"
    assert "toy_hang.py" in done.detail


def test_cancel_while_it_is_still_importing(runs):
    process = runs.start("toy_hang")
    process.cancel()
    done = runs.finish(process)
    assert done.outcome == "cancelled"
    assert done.logs == []


def test_timeout_ends_a_run_that_ignores_every_signal_it_can(runs, monkeypatch, dies):
    monkeypatch.setattr(launcher, "_PATIENCE", dict.fromkeys(launcher.STOP_LEVELS, 0.3))
    process = runs.start("toy_hang", settings={"how": "stubborn"}, timeout=1)
    child = runs.child(process.folder)
    done = runs.finish(process)
    assert done.outcome == "timed_out"
    assert "1.0 s" in done.detail
    assert process.stop_level == "killed"
    runs.no_process_left(done.run_id)
    assert dies(child)


def test_timeout_of_a_polite_run_is_not_called_cancelled(runs):
    done = runs.run("toy_hang", settings={"how": "polite"}, timeout=1)
    assert done.outcome == "timed_out"


@pytest.fixture
def parent(parent_script, home):
    parents = []

    def start(how, then, timeout=0.0):
        process = subprocess.Popen(
            [sys.executable, "-c", parent_script, how, then, str(timeout)],
            stdout=subprocess.PIPE,
            text=True,
        )
        parents.append(process)
        return process, Path(process.stdout.readline().strip())

    yield start
    for process in parents:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("how", ["sleep", "stubborn", "deaf"])
def test_kill_9_of_the_parent_ends_the_run_and_is_reported(runs, parent, how):
    process, folder = parent(how, "stay")
    runs.child(folder)
    process.send_signal(signal.SIGKILL)
    runs.no_process_left(folder.name)
    done = store.load(folder)
    assert done.outcome == "interrupted"
    assert (folder / "result.json").exists()
    assert done.bad_events == 0


def test_a_detached_run_continues_and_is_found_again(runs, parent):
    process, folder = parent("brief", "leave")
    assert process.wait(60) == 0
    runs.reach(folder)
    found = launcher.attach(folder)
    assert found is not None
    done = runs.finish(found)
    assert done.outcome == "completed"
    runs.no_process_left(done.run_id)
    assert launcher.attach(folder) is None


def test_a_detached_run_continues_although_it_holds_the_interpreter_lock(runs):
    script = (
        "import sys, time\n"
        "from readtrack.home import Home\n"
        "from readtrack.runs import launcher, processes, store\n"
        "from readtrack.runs.job import new_job\n"
        "process = launcher.start(new_job('toy_grip', only='experiment', budget='smoke'), Home())\n"
        "print(process.folder, flush=True)\n"
        "while not store.load(process.folder).logs:\n"
        "    time.sleep(0.02)\n"
        "process.detach()\n"
    )
    parent = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    folder = Path(parent.stdout.strip())
    done = runs.ended(folder)
    assert (done.outcome, done.detail) == ("completed", "")
    runs.no_process_left(done.run_id)


def test_an_attached_run_is_cancelled_by_signals(runs, parent):
    process, folder = parent("sleep", "leave")
    assert process.wait(60) == 0
    runs.child(folder)
    found = launcher.attach(folder)
    assert found.cancel() == "interrupted"
    done = runs.finish(found)
    assert done.outcome == "cancelled"
    runs.no_process_left(done.run_id)


def test_a_detached_run_keeps_its_deadline(runs, parent):
    process, folder = parent("stubborn", "leave", timeout=1.0)
    assert process.wait(60) == 0
    runs.no_process_left(folder.name)
    done = store.load(folder)
    assert done.outcome == "timed_out"
    assert "toy_hang.py" in done.detail
    assert "killed" in done.detail


def test_a_detached_run_that_is_killed_is_found_by_the_next_start(runs, parent, home, dies):
    process, folder = parent("sleep", "leave")
    assert process.wait(60) == 0
    child = runs.child(folder)
    assert processes.reconcile(home) == []
    worker = psutil.Process(store.load(folder).hello["pid"])
    worker.kill()
    worker.wait(60)
    os.utime(folder / "events.jsonl", (time.time() - 90, time.time() - 90))
    assert processes.reconcile(home) == [folder.name]
    done = store.load(folder)
    assert done.outcome == "interrupted"
    runs.no_process_left(folder.name)
    assert dies(child)
    assert processes.reconcile(home) == []


DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        with open(sys.argv[1], "w") as file:
            file.write(str(os.getpid()))
        os.execve("/bin/sleep", ["sleep", "600"], {})
    os._exit(0)
os.wait()
"""

PLUGIN = f"""
import subprocess, sys, time
from pathlib import Path
from readtrack.plugin import hookimpl


@hookimpl
def implementation():
    return dict


@hookimpl
def experiment(run):
    file = Path(run.option("file", ""))
    subprocess.run([sys.executable, "-c", {DAEMON!r}, str(file)], check=True)
    while not (file.exists() and file.read_text()):
        time.sleep(0.01)
    run.phase("train")
    if run.option("how", "ends") == "stubborn":
        while True:
            try:
                time.sleep(600)
            except KeyboardInterrupt:
                continue
    if run.option("how", "ends") == "waits":
        time.sleep(600)


@hookimpl
def benchmark(bench):
    return iter(())
"""


@pytest.fixture
def daemon(runs, tmp_path, monkeypatch):
    """Starts a run whose plugin creates a daemon without an environment. Also returns the daemon's
    process.
    """
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "toy_daemon.py").write_text(PLUGIN)
    monkeypatch.setenv("READTRACK_PLUGIN_PATH", str(tmp_path / "papers"))
    found = []

    def start(how, **fields):
        file = tmp_path / "number"
        process = runs.start("toy_daemon", settings={"how": how, "file": str(file)}, **fields)
        end = time.monotonic() + 60
        while not (file.exists() and file.read_text()):
            assert time.monotonic() < end
            time.sleep(0.02)
        found.append(psutil.Process(int(file.read_text())))
        return process, found[-1]

    yield start
    for one in found:
        if one.is_running():
            one.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt orphans")
@pytest.mark.parametrize(("how", "cancels"), [("ends", 0), ("waits", 1), ("waits", 3), ("stubborn", 4)])
def test_a_daemon_without_an_environment_ends_with_its_run(runs, daemon, dies, how, cancels):
    process, left = daemon(how)
    if cancels:
        runs.reach(process.folder)
    for _ in range(cancels):
        process.cancel()
    assert runs.finish(process).outcome == ("cancelled" if cancels else "completed")
    assert dies(left.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt orphans")
def test_a_daemon_without_an_environment_ends_when_the_starter_does(runs, daemon, dies):
    process, left = daemon("waits")
    runs.reach(process.folder)
    process._child.stdin.close()
    runs.finish(process)
    assert dies(left.pid)


# A run's files cannot make readtrack signal other processes


@pytest.fixture
def signals(monkeypatch):
    sent = []
    monkeypatch.setattr(launcher.os, "killpg", lambda *given: sent.append(given))
    return sent


def forged(home, name, **hello):
    """The folder of a run that claims to be alive in this process."""
    folder = home.ensure(home.runs) / name
    folder.mkdir()
    new_job("toy_ok").write(folder)
    events = EventWriter(folder)
    fields = {"paper": "toy_ok", "python": "3", "readtrack": "0", "host": socket.gethostname(), "at": "2026"}
    events.emit("hello", **{**fields, **hello})
    events.close()
    return folder


@pytest.mark.parametrize("pid", [1, 0, -1, True, "1", 1.0, None, [1], 2**70])
def test_a_run_that_names_init_as_its_worker_sends_no_signal(home, signals, pid):
    folder = forged(home, "e", pid=pid, process_start=psutil.Process(1).create_time())
    found = launcher.attach(folder)
    if found is not None:
        found.cancel()
    assert (found, signals) == (None, [])


def test_a_process_is_signalled_only_as_the_worker_of_this_folder(home, signals, tmp_path):
    program = (
        tmp_path / "program.py"
    )  # written once, because a starting process could read a half-written file
    program.write_text("import time; print('ready', flush=True); time.sleep(600)")

    def start(*arguments, session=True):
        return psutil.Popen(
            [sys.executable, str(program), *arguments], stdout=subprocess.PIPE, start_new_session=session
        )

    folder = home.runs / "mine"
    real = ("-m", "readtrack.runs.worker", str(folder))
    started = {
        "real": start(*real),
        "name only": start("mine"),
        "other module": start("-m", "other", str(folder)),
        "other folder": start("-m", "readtrack.runs.worker", str(home.runs / "mine2")),
        "no leader": start(*real, session=False),
    }
    found = {}
    try:
        for process in started.values():
            process.stdout.readline()
        hellos = {name: (one.pid, one.create_time()) for name, one in started.items()}
        pid, began = hellos["real"]
        hellos["other time"] = (pid, began - 60)
        for name, (number, start_time) in hellos.items():
            folder = forged(home, "mine", pid=number, process_start=start_time)
            found[name] = launcher.attach(folder) is not None
            shutil.rmtree(folder)
        folder = forged(home, "mine", pid=pid, process_start=began, host="another-host")
        found["other host"] = launcher.attach(folder) is not None
    finally:
        for process in started.values():
            process.kill()
            process.wait()
            process.stdout.close()
    assert found.pop("real")
    assert not any(found.values()), found
