"""`readtrack places` and `--on`: the written file, checks and messages."""

import contextlib
import errno
import json
import os
import shutil
import sys
import threading
from pathlib import Path

import pytest

from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.places import place as places
from tests.cli.conftest import TOYS, Cli


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("big: {kind: ssh, host: gpu1, pyton: x}", "unknown key 'pyton'; did you mean 'python'"),
        ("big: {kind: shs, host: gpu1}", "unknown kind 'shs'; did you mean 'ssh'"),
        ("big: {kind: ssh}", "the ssh place big has no host"),
        ("big: {host: gpu1}", "the place big has no kind"),
        ("big: {kind: ssh, host: -oProxyCommand=x}", "is not the name of a host"),
        ("big: {kind: slurm, minutes: soon}", "minutes is 'soon'; it must be a whole number"),
        ("- big", "it must consist of names of places"),
        ("-big: {kind: ssh, host: a}", "is not a valid name for a place"),
    ],
)
def test_a_mistake_is_named_with_file_and_line(home: Home, text: str, said: str) -> None:
    home.ensure()
    places.file(home).write_text(f"# mine\n{text}\n")
    with pytest.raises(ReadtrackError, match=r"places\.yaml:2: ") as caught:
        places.load(home)
    assert said in str(caught.value)


def test_a_cluster_is_read_with_its_parameters(home: Home) -> None:
    home.ensure()
    text = (
        "c:\n  kind: slurm\n  host: login\n  minutes: 30\n  parameters: {partition: gpu, gpus_per_node: 1}\n"
    )
    places.file(home).write_text(text)
    found = places.find(home, "c")
    assert (found.kind, found.host, found.minutes) == ("slurm", "login", 30)
    assert found.parameters == {"partition": "gpu", "gpus_per_node": "1"}


def test_add_list_and_existing_papers(cli: Cli, home: Home) -> None:
    cli("places", "add", "big", "--host", "gpu1", "--python", "~/env/bin/python")
    file = places.file(home)
    file.write_text("# my machines\n" + file.read_text())
    cli("places", "add", "pool", "--scheduler", "tcp://10.0.0.5:8786")
    assert file.read_text().startswith("# my machines\nbig:\n  kind: ssh\n  host: gpu1\n")
    assert [one["name"] for one in json.loads(cli("places", "list", "--json").stdout)] == ["big", "pool"]
    assert "there is a place big already" in cli("places", "add", "big", "--host", "x").stderr
    before = file.read_text()
    assert "is not the name of a host" in cli("places", "add", "bad", "--host=-x").stderr
    assert file.read_text() == before


def test_places_that_are_added_at_once_are_all_kept(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each writer holds the lock from reading to writing."""
    read, at_once = places.load, threading.Barrier(2)

    def slow(home: Home) -> dict[str, places.Place]:
        found = read(home)
        with contextlib.suppress(threading.BrokenBarrierError):
            at_once.wait(0.5)
        return found

    monkeypatch.setattr(places, "load", slow)
    fields = {"kind": "ssh", "host": "gpu1"}
    threads = [threading.Thread(target=places.add, args=(home, name, fields)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read(home)) == ["one", "two"]


def test_a_home_that_cannot_be_written_is_named(cli: Cli, home: Home) -> None:
    home.ensure(home.locks)
    (home.locks / "places.lock").mkdir()
    done = cli("places", "add", "big", "--host", "gpu1")
    assert done.returncode == 2
    assert "The place big could not be written to" in done.stderr
    assert "Set READTRACK_HOME" in done.stderr or "set READTRACK_HOME" in done.stderr


def test_a_full_home_is_named_and_loses_no_place(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    places.add(home, "one", {"kind": "ssh", "host": "gpu1"})
    before = places.file(home).read_text()

    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(places, "write_text", full)
    with pytest.raises(ReadtrackError, match=r"two could not be written .*No space left on device"):
        places.add(home, "two", {"kind": "ssh", "host": "gpu1"})
    assert places.file(home).read_text() == before


def test_an_open_scheduler_is_warned_of_once(cli: Cli) -> None:
    said = cli("places", "add", "pool", "--scheduler", "tcp://10.0.0.5:8786").stderr
    assert said.count("can run code on its workers and on this machine") == 1
    assert cli("places", "add", "safe", "--scheduler", "tls://10.0.0.5:8786").stderr == ""


def test_an_unknown_place_is_named_before_anything_is_sent(cli: Cli, home: Home, papers: Path) -> None:
    done = cli("run", "toy_ok", "--on", "nowhere")
    assert done.returncode == 2
    assert "there is no place 'nowhere'" in done.stderr
    assert not home.runs.exists() or not list(home.runs.iterdir())


@pytest.fixture
def here(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose ssh is a shell on this machine."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift 2\nexec sh -c "$*"\n'
    (folder / "ssh").write_text(script)
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("READTRACK_PLUGIN_PATH", str(TOYS))
    earlier = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(TOYS / "light"), earlier))))
    home.ensure()
    python = shutil.which(sys.executable)
    places.file(home).write_text(
        f"big: {{kind: ssh, host: far, python: '{python}', home: '{tmp_path / 'far'}'}}\n"
    )


@pytest.mark.usefixtures("here", "papers")
def test_a_run_on_another_machine_is_shown_and_recorded(cli: Cli, home: Home) -> None:
    assert cli("places", "check").stdout.startswith("✓ big: ")
    done = cli("run", "toy_ok", "--on", "big", "--only", "experiment", "--json", "--set", "steps=20")
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["event"], result["outcome"]) == ("result", "completed")
    folder = home.runs / result["run_id"]
    assert json.loads((folder / "job.json").read_text())["place"] == "big"
    assert (folder / "result.json").exists()
    assert "no run is in progress on another machine" in cli("places", "fetch").stderr


@pytest.mark.usefixtures("here", "papers")
def test_verify_elsewhere_judges_fetched_results(cli: Cli) -> None:
    done = cli("verify", "toy_ok", "--on", "big", "--jobs", "4")
    assert "falls" in done.stdout
    assert "(5/5)" in done.stderr
