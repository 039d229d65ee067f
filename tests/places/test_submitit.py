"""submitit's local executor, which works on every machine: pickles and folders are the same as with SLURM."""

import json
import os

import pytest

from readtrack.places import agent, folders
from readtrack.places.place import Place
from readtrack.runs import store

submitit = pytest.importorskip("submitit", reason="needs the extra readtrack[slurm]")


class Here:
    """A link without a connection: the agent answers in this process."""

    def __init__(self, root):
        self._root = root

    def call(self, request, payload=b""):
        said, data = agent.answer(self._root, json.loads(json.dumps(request)), payload)
        return said, data

    def close(self):
        pass


@pytest.fixture
def here(elsewhere, tmp_path, monkeypatch):
    """A SLURM place whose jobs submitit starts on this machine, without a controller."""
    automatic = submitit.AutoExecutor
    monkeypatch.setattr(
        submitit, "AutoExecutor", lambda folder, cluster, **options: automatic(folder, cluster="local")
    )
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "scontrol").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    elsewhere.place = Place(name="cluster", kind="slurm", minutes=5, parameters={"partition": "low"})
    root = folders.root(str(elsewhere.far))
    monkeypatch.setattr(elsewhere, "connect", lambda place: Here(root))
    return elsewhere


def test_a_run_through_submitit_is_a_run_like_any_other(here, wait):
    started = here.start("toy_ok", settings={"steps": "40"})
    done = here.finish(started)
    assert done.outcome == "completed", done.detail
    assert len(done.curves["loss"]["paper"]) == 40
    assert (started.folder / done.artifacts[0]["path"]).read_text() == "it fell"
    assert store.read_result(started.folder).outcome == "completed"
    wait(lambda: not here.runs(), "the other side to be tidied up")


def test_a_run_through_submitit_is_cancelled_by_its_shepherd(here):
    started = here.start("toy_hang", settings={"how": "polite"})
    here.reach(started)
    assert "the cluster does not respond" in started.contact
    started.cancel()
    assert here.finish(started).outcome == "cancelled"


def test_a_start_that_is_repeated_submits_nothing(here):
    started = here.start("toy_hang", settings={"how": "polite"})
    here.reach(started)
    job = json.loads((started.folder / "job.json").read_text())
    request = {"do": "start", "job": job, "hash": "0" * 64, "kind": "slurm"}
    assert here.connect(here.place).call({**request, "minutes": 5, "parameters": {}})[0] == {"started": False}
    assert len(list((here.runs()[0] / "submitit").glob("*_submitted.pkl"))) == 1
    started.cancel()
    assert here.finish(started).outcome == "cancelled"
