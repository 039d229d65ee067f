"""Never ends, in the way given by `--set how=...`. Logs the process ids of its children."""

import ctypes
import signal
import subprocess
import sys
import time

from readtrack.plugin import hookimpl

STUBBORN = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""


@hookimpl
def implementation():
    return dict


@hookimpl
def experiment(run):
    how = run.option("how", "sleep")
    run.phase("train")
    if how == "stubborn":  # before the child starts, which is the signal for tests
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
    child.stdout.readline()
    run.log(f"child {child.pid}")
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    if how == "polite":
        for _ in run.steps(10**9):
            time.sleep(0.01)
    if how == "sleep":
        time.sleep(600)
    if how == "stubborn":
        while True:
            time.sleep(1)
    if how == "deaf":
        # Code that holds the interpreter lock: no other thread runs, and no signal handler is called.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        run.log("deaf")
        ctypes.PyDLL(None).sleep(600)
    if how == "brief":
        time.sleep(1.5)


@hookimpl
def benchmark(bench):
    return iter(())
