"""Killed and resumed runs have the same curves as runs that were not killed."""

import os
import random
import signal
import time

import pytest

from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.plugins import prints
from readtrack.runs import checkpoints, launcher, store
from readtrack.runs.events import EventReader, EventWriter
from readtrack.runs.resuming import resumed

PAUSE = 0.01  # seconds per step, of 260 steps
LOOPS = ("all 0.1", "all 0.3", "half 0.1", "half 0.3", "swept 0.1")


def start(runs, pause=PAUSE, **fields):
    return runs.start("toy_trains", settings={"pause": str(pause)}, checkpoint=0.1, **fields)


def resume(runs):
    process = launcher.start(resumed(runs.home, "toy_trains", {}), runs.home)
    runs.processes.append(process)
    return process


def kill(process):
    os.killpg(process._process.pid, signal.SIGKILL)


def results(record):
    """All results of a run except times."""
    pictures = sorted((a["name"], a["path"]) for a in record.artifacts)
    return record.curves, record.values, [c["values"] for c in record.claims], pictures


def kept(runs, process):
    job = process.job
    return sorted(checkpoints.folder(runs.home, job.resumes or job.run_id).glob("*.pt"))


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_like_an_undisturbed_one(runs):
    whole = runs.finish(start(runs))
    assert whole.outcome == "completed", whole.detail
    moments = random.Random(time.time_ns())
    process, spent, continued = start(runs), [], []
    for place in sorted(moments.sample(range(len(LOOPS)), 3)):
        due = set(LOOPS[place:])  # the current loop may already be done
        runs.wait_for(lambda process=process, due=due: due & labels(process).keys(), LOOPS[place])
        time.sleep(moments.uniform(0.15, 0.4))
        kill(process)
        ended = runs.finish(process)
        spent.append(ended.duration)
        assert ended.outcome == "crashed"
        assert kept(runs, process)
        process = resume(runs)
        continued.append(process)
    ended = runs.finish(process)
    assert ended.outcome == "completed", ended.detail
    assert results(ended) == results(whole)
    for picture in ended.artifacts:
        ours, theirs = (runs.home.runs / one.run_id / picture["path"] for one in (ended, whole))
        assert ours.read_bytes() == theirs.read_bytes()
    assert ended.duration > spent[-1]  # the sum over all parts
    assert not kept(runs, process)
    assert any(at > 0 for run in continued for at in labels(run).values())  # a loop was resumed in its middle


@pytest.mark.slow
def test_finished_attempts_are_not_trained_again(runs):
    process = start(runs)
    runs.wait_for(lambda: "half 0.1" in labels(process), "the third of four attempts")
    time.sleep(0.2)
    kill(process)
    runs.finish(process)
    process = resume(runs)
    assert runs.finish(process).outcome == "completed"
    again = labels(process)
    assert not {"pretraining", "all 0.1", "all 0.3"} & again.keys()
    assert again["half 0.1"] > 0  # it starts at a checkpoint


def labels(process):
    """Each loop of a run, with its first step."""
    found = {}
    for event in EventReader(process.folder).read_rest():
        if event["event"] == "progress":
            found.setdefault(event["label"], event["done"])
    return found


@pytest.mark.slow
def test_a_cancelled_run_continues_at_the_step_where_it_stopped(runs):
    process = start(runs, pause=5 * PAUSE)  # slow enough for the request to arrive in time
    runs.wait_for(lambda: "all 0.3" in labels(process), "the second attempt")
    time.sleep(0.2)
    process.cancel()
    stopped = runs.finish(process)
    assert stopped.outcome == "cancelled"
    process = resume(runs)
    assert runs.finish(process).outcome == "completed"
    last, _ = stopped.curves["training loss"]["all"][-1]
    first = labels(process)["all 0.3"]
    # A single step of 0.05 s after a checkpoint is not worth another one, and is repeated.
    assert first > 0
    assert first in (last, last + 1)


@pytest.mark.slow
def test_damaged_checkpoints_are_computed_again(runs):
    whole = runs.finish(start(runs))
    process = start(runs)
    runs.wait_for(lambda: "half 0.1" in labels(process), "the third of four attempts")
    kill(process)
    runs.finish(process)
    for path in kept(runs, process):
        path.write_bytes(path.read_bytes()[:-100])
    ended = runs.finish(resume(runs))
    assert results(ended) == results(whole)
    assert any("is damaged" in line for line in ended.logs)


def test_only_a_stopped_run_of_the_same_code_is_continued(runs):
    with pytest.raises(NotAvailableError, match="No stopped run of toy_trains has a checkpoint"):
        resumed(runs.home, "toy_trains", {})
    process = start(runs)
    runs.wait_for(lambda: kept(runs, process), "a checkpoint")
    with pytest.raises(ReadtrackError, match="has not ended"):
        resumed(runs.home, "toy_trains", {})
    kill(process)
    runs.finish(process)
    prints.save(process.folder, {"toy_trains.py": prints.of_text("one\ntwo")})
    with pytest.raises(ReadtrackError, match=r"code has changed since .*toy_trains.py, line 2"):
        resumed(runs.home, "toy_trains", {"toy_trains.py": prints.of_text("one\n2")})
    job = resumed(runs.home, "toy_trains", {"toy_trains.py": prints.of_text("one\ntwo")})
    assert (job.resumes, job.settings) == (process.run_id, process.job.settings)
    store.delete(process.folder)
    assert not kept(runs, process)


@pytest.mark.parametrize("name", ["../../elsewhere", "", "/etc", "a/b"])
def test_the_folder_of_checkpoints_lies_in_the_cache(home, name):
    with pytest.raises(ValueError, match="is not a run id"):
        checkpoints.folder(home, name)


def test_a_loop_refuses_objects_without_state(home, tmp_path):
    kept = checkpoints.Checkpoints(tmp_path / "kept", EventWriter(tmp_path), tmp_path)
    with pytest.raises(TypeError, match="float has no state"):
        kept.loop("training", [0.5])
