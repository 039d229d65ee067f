"""Faults of other machines and their effects for the reader: nothing waits for ever, and no unwanted run
continues.
"""

import contextlib
import glob
import json
import os
import subprocess
import sys
import time

import psutil
import pytest

from readtrack.places import agent, code, process
from readtrack.places.place import Place
from readtrack.plugins.find import find
from readtrack.runs import store
from readtrack.runs.job import new_job

# SLURM's signal reaches the worker and its shepherd, and either may act first.
WANTED = (
    "stopped, its machine was reclaimed, in phase train",
    "ended from outside by SIGTERM in phase train",
)


def start(home, place, paper, **fields):
    job = new_job(paper, only="experiment", budget="smoke", **fields)
    return process.start(job, home, place, code.pack(paper, find(home), {}))


def events(file):
    return [json.loads(line) for line in file.read_bytes().splitlines()]


def family(run):
    """The run's worker, all its descendants, and its shepherd."""
    worker = psutil.Process(store.load(run.folder).hello["pid"])
    return [worker.parent(), worker, *worker.children(recursive=True)]


def power_off(processes):
    """End processes simultaneously, as in a power failure. If they were killed one by one, the last could
    still react to the end of the others: the sentinel would record that its starter is gone.
    """
    for one in processes:
        one.suspend()
    for one in processes:
        one.kill()


def over(processes):
    return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes)


@pytest.fixture
def cluster(home, slurm, tmp_path, wait):
    """A SLURM job: its `run`, its number, and its contact message."""
    place = Place(name="cluster", kind="slurm", python=sys.executable, home=str(tmp_path / "far"), minutes=5)
    run = start(home, place, "toy_hang", settings={"how": "polite"})

    def reach():
        wait(lambda: store.load(run.folder).phase == "train", f"phase train ({run.contact})")

    reach()
    (engine,) = (tmp_path / "far" / "elsewhere" / "runs").glob("*/engine.json")
    run.number, run.reach = json.loads(engine.read_text())["slurm"], reach
    yield run
    while run.poll() is None:
        run.cancel()
        time.sleep(0.2)


@pytest.mark.parametrize("how", ["preempted", "requeued"])
def test_a_preempted_slurm_job_starts_again(cluster, wait, how):
    first, before = cluster.seen, family(cluster)
    wait(lambda: "running on n1" in cluster.contact, f"word of the node ({cluster.contact})")
    if how == "preempted":
        command = ["sbatch", "-p", "high", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 2"]
    else:
        command = ["scontrol", "requeue", cluster.number]
    subprocess.run(command, check=True, capture_output=True)
    wait(lambda: "pending" in cluster.contact, f"word of the queue ({cluster.contact})")
    wait(lambda: cluster.attempt == 2, f"a second attempt ({cluster.contact})")
    cluster.reach()
    assert over(before)
    kept = events(cluster.folder / "attempts" / f"{first}.jsonl")
    assert [event["seq"] for event in kept] == list(range(len(kept)))
    assert kept[-1]["outcome"] == "interrupted"
    assert kept[-1]["detail"] in WANTED
    cluster.cancel()
    wait(cluster.poll, "the end")
    assert cluster.poll() == "cancelled"
    assert sum(event["event"] == "hello" for event in events(cluster.folder / "events.jsonl")) == 1


def test_a_slurm_job_that_somebody_else_cancels_was_interrupted(cluster, wait):
    before = family(cluster)
    subprocess.run(["scancel", cluster.number], check=True)
    wait(cluster.poll, f"the end ({cluster.contact})")
    done = store.load(cluster.folder)
    assert (done.outcome, done.detail in WANTED) == ("interrupted", True)
    assert over(before)


def test_a_slurm_node_that_dies_and_comes_back_runs_the_job_again(cluster, slurm, wait):
    wait(lambda: "running on n1" in cluster.contact, f"word of the node ({cluster.contact})")
    node = psutil.Process(slurm.daemon.pid)
    steps = [one for one in psutil.process_iter() if one.name().startswith("slurmstepd")]
    power_off([node, *steps, *family(cluster)])
    slurm.node()
    # SLURM's controller needs up to a minute to notice that its node has forgotten the job.
    wait(lambda: cluster.attempt == 2, f"a second attempt ({cluster.contact})", 180)
    cluster.reach()


def test_a_host_that_restarts_interrupted_its_run(elsewhere, wait):
    started = elsewhere.start("toy_hang", settings={"how": "polite"})
    elsewhere.reach(started)
    elsewhere.reached = False
    before = family(started)
    elsewhere.cut()
    power_off(before)
    wait(lambda: "the cable is out" in started.contact, "words about the cable")
    elsewhere.reached = True
    done = elsewhere.finish(started)
    assert (done.outcome, done.detail) == ("interrupted", "it did not finish on far")
    wait(lambda: not elsewhere.runs(), "the other side to be tidied up")


@pytest.fixture
def small_disk(elsewhere):
    """The folder for runs is on a disk of one megabyte."""
    elsewhere.far.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "readtrack-test", str(elsewhere.far)]
    if os.getuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    yield elsewhere
    elsewhere.leave()
    subprocess.run(["umount", "--lazy", elsewhere.far], check=True)


def test_a_disk_that_is_full_before_the_run(small_disk):
    with (small_disk.far / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    done = small_disk.finish(small_disk.start("toy_ok"))
    assert done.outcome == "failed"
    assert "No space left on device" in done.detail


def test_a_disk_that_fills_up_during_the_run(small_disk, wait):
    started = small_disk.start("toy_paced", settings={"steps": "20000"})
    done = small_disk.finish(started)
    assert (done.outcome, done.detail) == ("interrupted", "it did not finish on far: the disk there is full")
    assert done.next_seq > 1000
    lines = (started.folder / "events.jsonl").read_bytes().splitlines()
    assert sum(b'"event": "end"' in line for line in lines) == 1
    wait(lambda: not small_disk.runs(), "the other side to be tidied up")


def test_the_clock_of_the_other_machine_does_not_matter(elsewhere, monkeypatch, wait):
    found = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    if not found:
        pytest.skip("needs the package libfaketime")
    quiet = type(elsewhere).command.fget(elsewhere)
    for offset in ("-1h", "+1h"):
        wrong = ["env", f"LD_PRELOAD={found[0]}", f"FAKETIME={offset}"]
        monkeypatch.setattr(type(elsewhere), "command", property(lambda self, wrong=wrong: [*wrong, *quiet]))
        started = elsewhere.start("toy_hang", settings={"how": "polite"})
        elsewhere.reach(started)
        skew = elsewhere.links[-1].hello["clock"] - time.time()
        assert abs(abs(skew) - 3600) < 60
        record = store.load(started.folder)
        assert record.state == "running"
        assert record.started == record.job.created
        started.cancel()
        assert elsewhere.finish(started).outcome == "cancelled"


def test_a_lease_must_change_regardless_of_its_time(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(agent.time, "monotonic", lambda: now[0])
    lease = tmp_path / "lease"
    for there in (time.time() - 3600, time.time() + 3600):
        agent._renewed.clear()
        lease.touch()
        os.utime(lease, (there, there))
        assert not agent._leased(tmp_path)  # the lease may be old
        os.utime(lease, (there + 2, there + 2))
        assert agent._leased(tmp_path)
        now[0] += agent.LEASE + 1
        assert not agent._leased(tmp_path)


def test_two_readers_share_a_machine(elsewhere, second, wait):
    both = [place.start("toy_paced", settings={"steps": "200"}) for place in (elsewhere, second) * 3]
    hanging = second.start("toy_hang", settings={"how": "polite"})
    second.reach(hanging)
    for place, started in zip((elsewhere, second) * 3, both, strict=True):
        done = place.finish(started)
        assert done.outcome == "completed", done.detail
        assert started.folder.is_relative_to(place.home.root)
        assert [event["seq"] for event in events(started.folder / "events.jsonl")] == list(
            range(done.next_seq)
        )
    assert [folder.name for folder in elsewhere.runs()] == [hanging.run_id]
    hanging.cancel()
    assert second.finish(hanging).outcome == "cancelled"
    wait(lambda: not second.runs(), "the other side to be tidied up")
