"""Runs many small jobs through a local Dask cluster: none is lost, none runs twice; prints the cost of each.

    python tests/places/many_jobs.py [RUNS] [SECONDS]

Not part of `make test`, because it takes minutes. Starts a scheduler and four workers on the loopback
address, sends RUNS runs (default 1,000) of a toy with a single event, eight at a time, and stops sending
after SECONDS (default 360). For comparison, a tenth of that number runs here without Dask, also eight at a
time.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from readtrack.home import Home
from readtrack.places import code, process
from readtrack.places.place import Place
from readtrack.plugins.find import find
from readtrack.runs import launcher, store
from readtrack.runs.job import new_job

TOYS = Path(__file__).parents[1] / "toys"
WORKERS, AT_A_TIME = 4, 8
TICK = 0.02  # seconds


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def drive(start, runs, at_a_time, until):
    """Keep `at_a_time` runs going. Returns the runs that ended, the seconds, and the driver's memory after
    each hundred.
    """
    began, going, ended, memory = time.monotonic(), [], [], []
    sent = 0
    while going or (sent < runs and time.monotonic() < until):
        while len(going) < at_a_time and sent < runs and time.monotonic() < until:
            going.append(start())
            sent += 1
        for one in [one for one in going if one.poll() is not None]:
            going.remove(one)
            ended.append(one)
            if len(ended) % 100 == 0:
                memory.append(psutil.Process().memory_info().rss >> 20)
                print(f"  {len(ended)} after {time.monotonic() - began:.0f} s, {memory[-1]} MiB", flush=True)
        time.sleep(TICK)
    return ended, time.monotonic() - began, memory


def check(ended):
    """Check that every run completed, began once, and ended once."""
    outcomes, hellos, ends, attempts = Counter(), Counter(), Counter(), Counter()
    for one in ended:
        said = [json.loads(line) for line in (one.folder / "events.jsonl").read_bytes().splitlines()]
        assert [event["seq"] for event in said] == list(range(len(said)))
        outcomes[store.read_result(one.folder).outcome] += 1
        hellos[sum(event["event"] == "hello" for event in said)] += 1
        ends[sum(event["event"] == "end" for event in said)] += 1
        attempts[one.attempt] += 1
    assert len({one.run_id for one in ended}) == len(ended)
    print(f"  outcomes {dict(outcomes)}, hellos {dict(hellos)}, ends {dict(ends)}, attempts {dict(attempts)}")


def main(runs, seconds):
    folder = Path(tempfile.mkdtemp(prefix="rt"))
    os.environ.update(READTRACK_PLUGIN_PATH=str(TOYS), PYTHONPATH=str(TOYS / "light"), OMP_NUM_THREADS="1")
    os.environ["READTRACK_HOME"] = str(folder / "home")
    home, port = Home(), free_port()
    home.ensure()
    address, quiet = f"tcp://127.0.0.1:{port}", {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    python, host = (sys.executable, "-m"), ("--host", "127.0.0.1", "--no-dashboard")
    daemons = [
        subprocess.Popen(
            [*python, "distributed.cli.dask_scheduler", *host, "--port", str(port), "--no-show"], **quiet
        )
    ]
    for number in range(WORKERS):
        there = ("--no-nanny", "--nthreads", "2", "--memory-limit", "0")
        at = ("--local-directory", str(folder / f"n{number}"))
        daemons.append(
            subprocess.Popen([*python, "distributed.cli.dask_worker", address, *host, *there, *at], **quiet)
        )
    time.sleep(5)
    place = Place(name="pool", kind="dask", scheduler=address, home=str(folder / "far"))
    packed = code.pack("toy_paced", find(home), {})

    def job():
        return new_job("toy_paced", only="experiment", budget="smoke", settings={"steps": "1"})

    try:
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {WORKERS} workers")
        print("through the cluster:")
        until = time.monotonic() + seconds
        ended, there, memory = drive(
            lambda: process.start(job(), home, place, packed), runs, AT_A_TIME, until
        )
        check(ended)
        left = list((folder / "far" / "elsewhere" / "runs").glob("*"))
        print(f"  {len(ended)} runs in {there:.1f} s: {len(ended) / there:.2f} a second")
        print(f"  left there: {len(left)}")
        print(f"  the driver's memory: {memory} MiB")
        few = max(8, len(ended) // 10)
        print(f"here, load {os.getloadavg()[0]:.1f}:")
        alone, here, _ = drive(
            lambda: launcher.start(job(), home), few, AT_A_TIME, time.monotonic() + seconds
        )
        check(alone)
        print(f"  {len(alone)} runs in {here:.1f} s: {len(alone) / here:.2f} a second")
        over = there / len(ended) - here / len(alone)
        print(f"the cluster adds {1000 * over:.0f} ms of the machine's time to a run")
    finally:
        for one in reversed(daemons):
            one.kill()
            one.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    main(*(numbers + [1000, 360][len(numbers) :]))
