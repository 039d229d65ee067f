"""Places with a real ssh server and a real Dask scheduler, on this machine."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from readtrack.places import code, process
from readtrack.places.errors import Refused
from readtrack.places.link import connect
from readtrack.places.place import Place
from readtrack.plugins.find import find
from readtrack.runs import store
from readtrack.runs.job import new_job


def wait_for(condition, what):
    end = time.monotonic() + 60
    while not (value := condition()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)
    return value


def start(home, place, paper, **fields):
    job = new_job(paper, only="experiment", budget="smoke", **fields)
    return process.start(job, home, place, code.pack(paper, find(home), {}))


def finish(started):
    wait_for(started.poll, "the end of the run")
    return store.load(started.folder)


def reach(started, phase="train"):
    wait_for(lambda: store.load(started.folder).phase == phase, f"phase {phase} ({started.contact})")


def sequence(folder):
    return [json.loads(line)["seq"] for line in (folder / "events.jsonl").read_bytes().splitlines()]


def test_a_run_through_ssh_survives_the_loss_of_its_session(home, sshd, tmp_path):
    place = Place(name="big", kind="ssh", host=sshd, python=sys.executable, home=str(tmp_path / "far"))
    started = start(home, place, "toy_ok", settings={"steps": "3000"})
    wait_for(lambda: started.size() > 0, f"the first events ({started.contact})")
    for client in psutil.process_iter():
        if client.ppid() == os.getpid() and "readtrack.places.agent" in " ".join(client.cmdline()):
            client.kill()
    done = finish(started)
    assert done.outcome == "completed", done.detail
    assert sequence(started.folder) == list(range(done.next_seq))
    assert (started.folder / done.artifacts[0]["path"]).read_text() == "it fell"


def test_a_missing_host_and_a_missing_python(home, sshd, tmp_path):
    nowhere = Place(name="big", kind="ssh", host="nowhere.invalid", home=str(tmp_path / "far"))
    other = Place(name="big", kind="ssh", host=sshd, python="/no/python", home=str(tmp_path / "far"))
    found = [finish(start(home, place, "toy_ok")) for place in (nowhere, other)]
    assert [done.outcome for done in found] == ["failed", "failed"]
    assert "could not be reached: ssh: Could not resolve hostname nowhere.invalid" in found[0].detail
    assert "there is no such Python there" in found[1].detail


@pytest.mark.slow
def test_a_run_through_dask_and_its_cancellation(home, scheduler, tmp_path):
    place = Place(name="pool", kind="dask", scheduler=scheduler[0], home=str(tmp_path / "far"))
    done = finish(start(home, place, "toy_ok", settings={"steps": "50"}))
    assert done.outcome == "completed", done.detail
    assert len(done.curves["loss"]["paper"]) == 50
    stopped = start(home, place, "toy_hang", settings={"how": "polite"})
    reach(stopped)
    stopped.cancel()
    assert finish(stopped).outcome == "cancelled"


@pytest.mark.slow
def test_a_run_through_dask_with_certificates(home, encrypted_scheduler, tmp_path):
    """Follows the README: `places add`, `places check`, `run --on`, and the keys in the environment."""

    def readtrack(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "readtrack", *arguments], capture_output=True, text=True, check=False
        )

    added = readtrack(
        "places", "add", "pool", "--scheduler", encrypted_scheduler, "--home", str(tmp_path / "far")
    )
    assert (added.returncode, added.stderr) == (0, "")
    assert ", readtrack 0" in readtrack("places", "check", "pool").stdout
    run = ("run", "toy_ok", "--on", "pool", "--only", "experiment", "--budget", "smoke", "--json")
    result = json.loads(readtrack(*run).stdout.splitlines()[-1])
    assert result["outcome"] == "completed"
    (sent,) = home.runs.glob("*/sent.txt")
    assert sent.read_text() == "toy_ok.py\n"


def test_a_scheduler_with_certificates_requires_this_machines(home, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="needs the extra readtrack[dask]")
    import dask

    none = {f"distributed.comm.tls.{key}": None for key in ("ca-file", "client.cert", "client.key")}
    with dask.config.set(none), pytest.raises(Refused, match="CLIENT__CERT"):
        connect(Place(name="pool", kind="dask", scheduler="tls://127.0.0.1:1"))


@pytest.mark.slow
def test_a_dask_worker_that_is_killed_leaves_its_run_to_another(home, scheduler, tmp_path):
    address, workers = scheduler
    place = Place(name="pool", kind="dask", scheduler=address, home=str(tmp_path / "far"))
    started = start(home, place, "toy_hang", settings={"how": "polite"})
    reach(started)
    first = started.seen
    worker = psutil.Process(store.load(started.folder).hello["pid"])
    shepherd = next(one for one in workers if one.pid == worker.ppid())
    os.kill(shepherd.pid, signal.SIGKILL)
    wait_for(lambda: started.attempt == 2, "a second attempt")
    reach(started)
    kept = (started.folder / "attempts" / f"{first}.jsonl").read_bytes()
    assert b'"event": "hello"' in kept
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    started.cancel()
    assert finish(started).outcome == "cancelled"


def test_a_run_is_a_slurm_job(home, slurm, tmp_path):
    place = Place(name="cluster", kind="slurm", python=sys.executable, home=str(tmp_path / "far"), minutes=5)
    done = finish(start(home, place, "toy_ok", settings={"steps": "50"}))
    assert done.outcome == "completed", done.detail
    assert len(done.curves["loss"]["paper"]) == 50
    stopped = start(home, place, "toy_hang", settings={"how": "polite"})
    reach(stopped)
    stopped.cancel()
    assert finish(stopped).outcome == "cancelled"


def test_a_job_in_the_queue_is_marked_and_can_be_removed(home, slurm, tmp_path):
    subprocess.run(["scontrol", "update", "nodename=n1", "state=drain", "reason=test"], check=True)
    place = Place(name="cluster", kind="slurm", python=sys.executable, home=str(tmp_path / "far"))
    started = start(home, place, "toy_ok")
    wait_for(lambda: "pending" in started.contact, f"word of the queue ({started.contact})")
    started.cancel()
    done = finish(started)
    assert done.outcome == "cancelled"
    assert done.detail == "before it began"


def test_an_error_of_sbatch_is_shown_verbatim(home, slurm, tmp_path):
    parameters = {"partition": "nowhere"}
    place = Place(
        name="c", kind="slurm", home=str(tmp_path / "far"), python=sys.executable, parameters=parameters
    )
    done = finish(start(home, place, "toy_ok"))
    assert done.outcome == "failed"
    assert "Invalid partition" in done.detail


def test_the_place_describes_itself(sshd, tmp_path):
    link = connect(Place(name="b", kind="ssh", host=sshd, python=sys.executable, home=str(tmp_path / "far")))
    said, _ = link.call({"do": "hello"})
    link.close()
    assert said["root"] == str(tmp_path / "far" / "elsewhere")
    assert abs(said["clock"] - time.time()) < 60
