"""Run folders of any origin: links, FIFOs and floods of events affect only their own run."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pytest

from readtrack import regular
from readtrack.bench.compare import compare
from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.runs import events, log, store
from readtrack.runs.events import EventReader, EventWriter
from readtrack.runs.job import new_job
from readtrack.runs.processes import reconcile

DEEP = b"[" * 5000 + b"]" * 5000


@pytest.fixture
def folder(home: Home) -> Path:
    """A run whose process has ended."""
    return make(home)


def make(home: Home, host: str = "") -> Path:
    job = new_job("sgd")
    folder = home.runs / job.run_id
    folder.mkdir(parents=True)
    job.write(folder)
    writer = EventWriter(folder)
    writer.emit(
        "hello",
        run_id=job.run_id,
        paper="sgd",
        pid=2**22 + 1,
        process_start=0.0,
        at=job.created,
        host=host or socket.gethostname(),
    )
    writer.close()
    age(folder)
    return folder


def age(folder: Path) -> None:
    for path in folder.iterdir():
        os.utime(path, (time.time() - 7200,) * 2, follow_symlinks=False)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A file of the reader outside the home."""
    path = tmp_path / "bashrc"
    path.write_text("alias l=ls\n")
    return path


# Links are neither written nor read through


@pytest.mark.parametrize("name", ["events.jsonl", "result.json", "log.txt", "note.md", "pinned", "detached"])
def test_a_link_in_a_runs_folder_writes_into_no_other_file(home: Home, folder: Path, own: Path, name: str):
    own.write_text("x" * 3_000_000)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(own)
    reconcile(home)
    store.write_end_event(folder, "interrupted", "its process ended")
    log.trim(folder)
    store.save_note(folder, "mine")
    if name == "pinned":
        with pytest.raises(ReadtrackError, match="Could not pin"):
            store.pin(folder, True)
    assert own.read_text() == "x" * 3_000_000
    assert store.load(folder).outcome == "interrupted"


def test_an_end_is_not_written_to_a_new_file_behind_a_link(home: Home, folder: Path, tmp_path: Path):
    (folder / "events.jsonl").unlink()
    (folder / "events.jsonl").symlink_to(tmp_path / "new")
    reconcile(home)
    assert not (tmp_path / "new").exists()
    assert [run.outcome for run in store.summaries(home)] == ["interrupted"]


def test_the_events_of_another_machine_are_left_as_they_are(home: Home):
    folder = make(home, host="another-host")
    before = (folder / "events.jsonl").read_bytes()
    assert reconcile(home) == [folder.name]
    assert (folder / "events.jsonl").read_bytes() == before
    assert store.load(folder).outcome == "interrupted"
    assert store.load(folder).detail == "its process ended before its first phase"
    assert reconcile(home) == []


def test_a_linked_folder_is_not_a_run(home: Home, folder: Path, tmp_path: Path):
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert store.run_folders(home) == []


def test_a_regular_file_is_read_up_to_its_limit(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"12345")
    assert regular.read_bytes(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="Larger than 4 bytes"):
        regular.read_bytes(tmp_path / "file", 4)
    with pytest.raises(OSError, match="Not a regular file"):
        regular.read_bytes(Path("/dev/zero"), 4)


# One malformed folder


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["job.json", "events.jsonl", "result.json"])
@pytest.mark.parametrize("what", ["fifo", "zero", "folder", "deep"])
def test_an_odd_file_is_named_and_the_other_runs_are_there(home: Home, name: str, what: str):
    fine, odd = make(home), make(home)
    (odd / name).unlink(missing_ok=True)
    if what == "fifo":
        os.mkfifo(odd / name)
    elif what == "zero":
        (odd / name).symlink_to("/dev/zero")
    elif what == "folder":
        (odd / name).mkdir()
    else:
        (odd / name).write_bytes(DEEP + b"\n")
    problems: list[str] = []
    found = {run.run_id for run in store.summaries(home, report=problems.append)}
    assert fine.name in found
    if (name, what) != ("events.jsonl", "deep"):  # one line that is not an event
        assert len(problems) == 1
        assert problems[0].startswith(f"run {odd.name}: {name} cannot be read")
    assert fine.name in reconcile(home)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("what", ["fifo", "zero"])
def test_a_log_that_is_not_a_file_is_skipped(folder: Path, what: str):
    if what == "fifo":
        os.mkfifo(folder / "log.txt")
    else:
        (folder / "log.txt").symlink_to("/dev/zero")
    log.trim(folder)
    assert log.tail(folder) == ""


def test_an_event_that_is_nested_too_deeply_is_skipped(folder: Path):
    with (folder / "events.jsonl").open("ab") as file:
        file.write(b'{"v": 1, "event": "log", "text": "\\u001b", "x": ' + b"[" * 950 + b"]" * 950 + b"}\n")
        file.write(b'{"v": 1, "event": "artifact", "x": ' + b'{"a":' * 40 + b"1" + b"}" * 40 + b"}\n")
        file.write(b'{"v": 1, "event": "phase", "name": "train", "t": 1}\n')
    record = store.load(folder)
    assert (record.bad_events, record.phase, record.artifacts) == (2, "train", [])


@pytest.mark.parametrize(
    "fields", [{"settings": {"a": [1]}}, {"timeout": float("nan")}, {"seed": "1"}, {"paper": []}]
)
def test_a_job_of_odd_types_is_none(home: Home, folder: Path, fields):
    text = json.loads((folder / "job.json").read_text())
    (folder / "job.json").write_text(json.dumps({**text, **fields}))
    age(folder)
    assert store.load(folder).job is None
    assert reconcile(home) == [folder.name]


def test_a_measurement_that_lacks_fields_is_not_compared(folder: Path):
    whole = {"case": "c", "axes": {"n": 1}, "variant": "v", "mode": "forward", "dtype": "float32"}
    times = {"p50": 3.0, "min": 2.0, "ci95": [2.0, 4.0], "drift": 0.01}
    writer = EventWriter(folder, first_seq=1)
    for one in (
        {**whole, "t_ns": times},
        {"case": "c"},
        {**whole, "axes": []},
        {**whole, "mode": "b", "t_ns": {**times, "p50": 0}},
        {**whole, "mode": "c", "t_ns": {**times, "ci95": [1]}},
        {**whole, "mode": "d", "t_ns": times, "flags": [{}]},
    ):
        writer.emit("measurement", **one)
    writer.close()
    record = store.load(folder)
    assert len(record.measurements) == 6
    assert [(one.mode, one.verdict) for one in compare(record, record)] == [("forward", "UNCLEAR")]


# Floods of events


def test_events_are_read_in_slices(folder: Path):
    line = json.dumps({"v": 1, "event": "log", "text": "x" * 1000}).encode() + b"\n"
    with (folder / "events.jsonl").open("ab") as file:
        file.write(line * 10_000)
    reader = EventReader(folder)
    first = reader.read_new()
    assert 3000 < len(first) * len(line) / 1000 < 4300
    assert len(first) + len(list(reader.read_rest())) == 10_001
    with (folder / "events.jsonl").open("ab") as file:
        file.write(b"x" * (9 << 20) + b"\n" + line)
    assert len(list(reader.read_rest())) == 1, "a line longer than a slice is passed over"


def test_events_stop_at_their_limit_and_the_end_is_still_written(folder: Path, monkeypatch):
    monkeypatch.setattr(events, "MAX_FILE", 50_000)
    writer = EventWriter(folder, first_seq=1)

    def flood() -> None:
        for step in range(10_000):
            writer.emit("metric", name="loss", value=1.0, step=step, arm="")

    with pytest.raises(OSError, match="the run's events have reached"):
        flood()
    assert (folder / "events.jsonl").stat().st_size <= 50_000
    writer.emit("end", outcome="failed", detail="too many")
    assert store.load(folder).outcome == "failed"


def test_a_file_beyond_the_limit_is_not_read_to_its_end(folder: Path, monkeypatch):
    monkeypatch.setattr(events, "MAX_FILE", 1000)
    monkeypatch.setattr(events, "_RESERVE", 0)
    with (folder / "events.jsonl").open("ab") as file:
        file.truncate(20 << 20)
    record = store.load(folder)
    assert record.problems == ["events.jsonl is larger than 0 MiB: the rest is left out"]


def test_a_writer_of_too_many_events_is_held_back(folder: Path, monkeypatch):
    monkeypatch.setattr(events, "_BURST", 100)
    writer = EventWriter(folder, first_seq=1)
    start = time.monotonic()
    for step in range(1100):
        writer.emit("metric", name="loss", value=1.0, step=step, arm="")
    assert time.monotonic() - start > 0.15, "a thousand more than at once, at five thousand a second"
