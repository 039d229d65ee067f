"""Other machines and other people's files are untrusted. These tests check what they cannot do to the
reader's machine.
"""

import io
import json
import subprocess
import sys
import tarfile
import time

import pytest

from readtrack.errors import ReadtrackError
from readtrack.places import agent, answers, code, link, process, shepherd
from readtrack.places.errors import Refused, Unreachable
from readtrack.places.noted import Noted
from readtrack.places.place import Place
from readtrack.plugins.find import PluginRef
from readtrack.runs.job import new_job

FAR = Place(name="far", kind="ssh", host="far")


@pytest.fixture
def folder(home):
    """The folder of a run that was sent to the place `far`."""
    home.ensure()
    (home.root / "places.yaml").write_text("far: {kind: ssh, host: far}\n")
    job = new_job("toy_ok", place="far")
    folder = home.ensure(home.runs / job.run_id)
    job.write(folder)
    Noted("far", FAR.machine).write(folder)
    return folder


class Remote:
    """A link whose other side answers as the test specifies. Requests are kept."""

    def __init__(self, **said):
        self.said, self.asked = said, []

    def call(self, request, payload=b""):
        self.asked.append(request)
        found = self.said.get(request["do"], {})
        said, data = found(request) if callable(found) else (found, b"")
        return answers.check(request["do"], dict(said)), data

    def close(self):
        pass


def follow(folder, remote):
    """One round of requests, without the thread."""
    run = process.FarProcess.__new__(process.FarProcess)
    follower = process._Follower(FAR, lambda place: remote)
    process._followers[repr(FAR), None] = follower
    follower.is_alive = lambda: True
    try:
        run.__init__(folder, process.Job.read(folder), FAR, Noted.read(folder), None)
    finally:
        del process._followers[repr(FAR), None]
    return run, lambda: follower._ask(remote, [run])


# place.json names a place, and cannot say how to reach it


@pytest.mark.parametrize("kind", ["slurm", "ssh"])
def test_a_run_folder_cannot_choose_a_program_to_start(folder, tmp_path, kind):
    marker = tmp_path / "marker"
    script = tmp_path / "program"
    script.write_text(f"#!/bin/sh\ntouch {marker}\n")
    script.chmod(0o755)
    place = {"name": "big", "kind": kind, "host": "", "python": str(script), "home": ""}
    (folder / "place.json").write_text(json.dumps({"place": place, "submitted": True, "code": ""}))
    done = subprocess.run(
        [sys.executable, "-m", "readtrack", "places", "fetch"], capture_output=True, text=True, check=False
    )
    time.sleep(0.5)
    assert not marker.exists()
    assert "has no place 'big'" in done.stderr


def test_a_place_that_means_another_machine_by_now_is_not_asked(folder, home):
    (home.root / "places.yaml").write_text("far: {kind: ssh, host: elsewhere}\n")
    with pytest.raises(ReadtrackError, match="it was sent to a machine other than 'far'"):
        process.attach(folder, connect=None)


@pytest.mark.parametrize("python", ["python3", "ex"])
def test_a_run_that_noted_its_whole_place_is_followed_by_its_name(folder, home, python):
    (home.root / "places.yaml").write_text("far: {kind: ssh, host: far, python: mine}\n")
    place = {"name": "far", "kind": "ssh", "host": "far", "python": python, "home": "", "scheduler": ""}
    (folder / "place.json").write_text(json.dumps({"place": place, "submitted": True, "code": "x"}))
    found = process.attach(folder, connect=lambda place: Remote())
    found.detach()
    assert found.place == Place(name="far", kind="ssh", host="far", python="mine")


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        "[" * 100_000,
        '{"place": 1}',
        '{"place": "far", "machine": 1}',
        '{"place": {"name": "far", "kind": [], "host": "far"}}',
        '{"place": "far", "attempt": "../../journal"}',
        '{"place": "far", "attempt": ["001"]}',
    ],
)
def test_a_place_json_of_wrong_types_is_left_alone(folder, text):
    (folder / "place.json").write_text(text)
    with pytest.raises(ReadtrackError, match="is ignored"):
        process.attach(folder, connect=None)


def test_a_run_folder_from_elsewhere_sends_no_code(folder):
    """Only the process that starts a run sends its code, because the folder may contain another person's
    code.
    """
    (folder / "code.tar").write_bytes(b"somebody's")
    (folder / "place.json").write_text(
        json.dumps({"place": "far", "machine": FAR.machine, "submitted": False, "code": "0" * 64})
    )
    gone = {"run": folder.name, "attempt": "", "at": 0, "n": 0, "alive": False, "why": "there is no such run"}
    remote = Remote(read={"frames": [gone]})
    run, ask = follow(folder, remote)
    ask()
    assert run.poll() == "interrupted"
    assert {"put", "start"}.isdisjoint(request["do"] for request in remote.asked)


def test_a_run_folder_with_a_link_is_left_alone(folder, tmp_path):
    (tmp_path / "profile").write_text("mine\n")
    (folder / "events.jsonl").symlink_to(tmp_path / "profile")
    with pytest.raises(ReadtrackError, match="its folder contains a symbolic link"):
        process.attach(folder, connect=None)
    assert (tmp_path / "profile").read_text() == "mine\n"


# Names in an answer


@pytest.mark.parametrize("attempt", ["../../../journal", "a/b", ".hidden", "a\n", "x" * 300, 1, None, ["a"]])
def test_an_attempt_is_not_a_path(folder, home, attempt):
    home.journal.write_text("mine\n")
    frame = {"run": folder.name, "attempt": attempt, "at": 0, "n": 2, "alive": True, "why": ""}
    run, ask = follow(folder, Remote(read=lambda request: ({"frames": [frame]}, b"{}")))
    with pytest.raises(Refused, match="invalid answer"):
        ask()
    run.let_go()
    assert home.journal.read_text() == "mine\n"
    assert not list(folder.glob("attempts/*"))


@pytest.mark.parametrize(
    "frames",
    [
        [1],
        [{}],
        {"a": 1},
        "text",
        [{"run": "other", "attempt": "", "at": 0, "n": 0, "alive": True, "why": ""}],
        [{"run": "RUN", "attempt": "1", "at": -1, "n": 0, "alive": True, "why": ""}],
        [{"run": "RUN", "attempt": "1", "at": 0, "n": 10, "alive": True, "why": ""}],
        [{"run": "RUN", "attempt": "1", "at": 0, "n": 0, "alive": "yes", "why": ""}],
        [{"run": "RUN", "attempt": "1", "at": 0, "n": 0, "alive": True, "why": {}}],
    ],
)
def test_frames_of_wrong_types_are_a_clear_error(folder, frames):
    said = json.loads(json.dumps(frames).replace("RUN", folder.name))
    run, ask = follow(folder, Remote(read={"frames": said}))
    with pytest.raises(Refused, match="invalid answer"):
        ask()
    run.let_go()


NOT_FETCHED = [
    *("place.json", "note.md", "pinned", "job.json", "result.json", "events.jsonl", "attempts/1.jsonl"),
    *("artifacts/../place.json", "artifacts/.x", "artifacts//x", "/etc/x", "artifacts", "artifacts/a\\b", ""),
]


def test_only_the_log_and_artifacts_come_home(folder):
    (folder / "note.md").write_text("mine")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    wanted = ["log.txt", "artifacts/loss.png", "artifacts/a b/ü.txt"]
    found = dict.fromkeys([*NOT_FETCHED, *wanted], 4)
    run, _ = follow(folder, remote := Remote(files={"files": found}, chunk=lambda request: ({}, b"far!!!")))
    run.seen = "001"
    assert process.fetch(remote, run) == []
    run.let_go()
    assert [request["name"] for request in remote.asked if request["do"] == "chunk"] == wanted
    assert (folder / "artifacts" / "a b" / "ü.txt").read_bytes() == b"far!"
    assert all((folder / name).read_bytes() == data for name, data in before.items())


def test_nothing_is_written_through_a_link(folder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "log.txt").write_text("mine")
    run, _ = follow(
        folder,
        remote := Remote(
            files={"files": {"artifacts/x": 4, "log.txt": 5}}, chunk=lambda request: ({}, b"far!!")
        ),
    )
    (folder / "artifacts").symlink_to(outside)
    (folder / "log.txt").symlink_to(outside / "log.txt")
    run.seen = "001"
    process.fetch(remote, run)
    run.let_go()
    assert [path.name for path in outside.iterdir()] == ["log.txt"]
    assert (outside / "log.txt").read_text() == "mine"


def test_files_past_a_runs_limit_stay_on_the_other_machine(folder, monkeypatch):
    monkeypatch.setattr(process, "_RUN_LIMIT", 10_000)
    frame = {"run": folder.name, "attempt": "001", "at": 0, "n": 0, "alive": False, "why": ""}
    found = {"artifacts/small": 4, "artifacts/large": 1 << 40}
    remote = Remote(read={"frames": [frame]}, files={"files": found}, chunk=lambda request: ({}, b"far!"))
    run, ask = follow(folder, remote)
    ask()
    assert run.poll() == "interrupted"
    assert (folder / "artifacts" / "small").exists()
    assert not (folder / "artifacts" / "large").exists()
    assert "artifacts/large" in (folder / "log.txt").read_text()
    assert "remove" not in [request["do"] for request in remote.asked]


def test_a_run_that_sends_too_many_events_is_given_up(folder, monkeypatch):
    monkeypatch.setattr(process, "_RUN_LIMIT", 1000)
    attempts = iter(range(1000))

    def read(request):
        frame = {
            "run": folder.name,
            "attempt": f"{next(attempts):03}",
            "at": 0,
            "n": 300,
            "alive": True,
            "why": "",
        }
        return {"frames": [frame]}, b"x" * 300

    run, ask = follow(folder, remote := Remote(read=read))
    for _ in range(10):
        if run.poll() is None:
            ask()
    assert run.poll() == "failed"
    assert sum(path.stat().st_size for path in folder.rglob("*.jsonl")) < 2000
    assert remote.asked[-1]["do"] == "cancel"


# Data from the pipe


def stream(program):
    return link.StreamLink([sys.executable, "-c", program])


GREETING = (
    "import json, os, sys, time\n"
    "sys.stdout.buffer.write(f'\\n{sys.argv[1]}\\n'.encode())\n"
    "def answer(line, data=b''):\n"
    "    sys.stdin.buffer.readline()\n"
    "    sys.stdout.buffer.write(line + b'\\n' + data)\n"
    "    sys.stdout.buffer.flush()\n"
    f"hello = {{'readtrack': {answers.__version__!r}, 'python': '3', 'torch': True, 'submitit': False,\n"
    "         'host': 'x', 'clock': 1.0, 'free': 1, 'root': '/', 'n': 0}\n"
)


@pytest.mark.parametrize(
    "line",
    ["[1]", "no json", "[" * 10_000, '{"n": -1}', '{"n": true}', '{"n": "1"}', "{}", '{"n": 2097153}'],
)
def test_a_malformed_answer_is_a_clear_error(line):
    with pytest.raises(Refused, match="invalid answer"):
        stream(f"{GREETING}answer({line.encode()!r})\ntime.sleep(60)")


@pytest.mark.parametrize("field", ["python", "torch", "host", "clock", "free", "root"])
def test_a_greeting_of_wrong_types_is_a_clear_error(field):
    with pytest.raises(Refused, match=f"{field} is "):
        stream(f"{GREETING}hello[{field!r}] = [1]\nanswer(json.dumps(hello).encode())\ntime.sleep(60)")


def test_a_line_without_an_end_is_cut_off(monkeypatch):
    monkeypatch.setattr(answers, "MAX_LINE", 1 << 20)
    with pytest.raises(Refused, match="without the end of a line"):
        stream(f"{GREETING}while True: sys.stdout.buffer.write(b'x' * 65536)")


def test_bytes_that_keep_coming_do_not_move_the_deadline(monkeypatch):
    monkeypatch.setattr(link, "_ANSWER", 1.0)
    began = time.monotonic()
    with pytest.raises(Unreachable, match="no answer in time"):
        stream(f"{GREETING}while True: os.write(1, b'x')")
    assert time.monotonic() - began < 20


def test_a_request_that_nobody_reads_ends_in_time(monkeypatch):
    far = stream(f"{GREETING}answer(json.dumps(hello).encode())\ntime.sleep(60)")
    monkeypatch.setattr(link, "_ANSWER", 0.5)
    with pytest.raises(Unreachable, match="did not accept the request in time"):
        far.call({"do": "put"}, bytes(1 << 20))
    far.close()


# Python imports nothing from the folder in which it starts


def test_the_agent_ignores_modules_in_its_working_folder(tmp_path, monkeypatch):
    (tmp_path / "tarfile.py").write_text("open('marker', 'w')\nraise SystemExit\n")
    monkeypatch.chdir(tmp_path)
    place = Place(name="c", kind="slurm", python=sys.executable, home=str(tmp_path / "far"))
    link.connect(place).close()
    assert not (tmp_path / "marker").exists()


def test_the_shepherd_and_slurms_jobs_start_without_their_working_folder(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(agent.subprocess, "Popen", lambda command, **options: started.append(command))
    agent.start(tmp_path, {"job": {"run_id": "r"}, "hash": "0" * 64, "kind": "ssh"}, b"")
    assert started[0][1] == "-P"
    submitit = pytest.importorskip("submitit")
    given = {}

    class Executor:
        def __init__(self, **options):
            given.update(options)
            raise ValueError("far enough")

    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    with pytest.raises(ValueError, match="far enough"):
        agent.slurm.submit(shepherd.main, tmp_path, 1, {})
    assert given["slurm_python"].endswith(" -P")


# Sent files


def test_only_python_files_of_the_plugins_own_folder_travel(tmp_path):
    package = tmp_path / "plugins" / "mine"
    (package / "parts" / ".hidden").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    for name in (
        "__init__.py",
        "model.py",
        "parts/x.py",
        ".env",
        ".env.py",
        "data.bin",
        "parts/.hidden/y.py",
    ):
        (package / name).write_text("# nothing\n")
    (tmp_path / "secret" / "z.py").write_text("# secret\n")
    (package / "stolen.py").symlink_to(tmp_path / "secret" / "z.py")
    (package / "folder").symlink_to(tmp_path / "secret")
    _, archive = code.pack("mine", {"mine": PluginRef("mine", "home", str(package / "__init__.py"))}, {})
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert tar.getnames() == ["mine/__init__.py", "mine/model.py", "mine/parts/x.py"]


# Dask


@pytest.mark.parametrize(
    ("scheduler", "is_open"),
    [
        ("tcp://10.0.0.5:8786", True),
        ("10.0.0.5:8786", True),
        ("tcp://gpu1:8786", True),
        ("tls://10.0.0.5:8786", False),
        ("tcp://127.0.0.1:8786", False),
        ("tcp://localhost:8786", False),
        ("tcp://[::1]:8786", False),
    ],
)
def test_a_scheduler_that_trusts_all_who_reach_it_is_named(scheduler, is_open):
    assert Place(name="pool", kind="dask", scheduler=scheduler).is_open is is_open
