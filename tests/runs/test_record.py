"""Reading complete, damaged and partial records of runs."""

import json
import math
import os
import socket
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime

import pytest

from readtrack.runs import store
from readtrack.runs.events import MAX_LINE, EventReader, EventWriter, encode
from readtrack.runs.evidence import expected, shown_claims
from readtrack.runs.job import Job, new_job
from readtrack.runs.processes import reconcile
from readtrack.runs.record import Progress, Record
from readtrack.runs.store import load, summaries


@pytest.fixture
def run_folder(home):
    """Creates the folder of a run with these `events`, without a worker and without torch."""

    def make(paper="sgd", events=(), hello=True, at=None, **fields):
        job = new_job(paper, **fields)
        folder = home.runs / job.run_id
        folder.mkdir(parents=True)
        job.write(folder)
        writer = EventWriter(folder)
        if hello:
            writer.emit(
                "hello",
                run_id=job.run_id,
                paper=paper,
                pid=2**22 + 1,  # above Linux's maximum
                process_start=0.0,
                at=at or datetime.now(UTC).isoformat(),
                host=socket.gethostname(),
            )
        for name, values in events:
            writer.emit(name, **values)
        writer.close()
        return folder

    return make


def age(folder, seconds):
    for path in folder.iterdir():
        os.utime(path, (time.time() - seconds, time.time() - seconds))


def claim(name, verdict, values):
    return (
        "claim",
        {"claim": {"name": name}, "verdict": verdict, "values": values, "ours": "x 1", "seed": 0},
    )


def test_fold(run_folder):
    folder = run_folder(
        events=[
            ("phase", {"name": "train"}),
            ("environment", {"device": "cpu", "torch": "2"}),
            ("progress", {"label": "training", "done": 1, "total": 4, "eta": 1.5}),
            ("metric", {"name": "loss", "value": 2, "step": 0, "arm": "paper"}),
            ("metric", {"name": "loss", "value": math.nan, "step": 1, "arm": "paper"}),
            ("metric", {"name": "accuracy", "value": 0.5, "step": None, "arm": ""}),
            ("metric", {"name": "accuracy", "value": 0.75, "step": None, "arm": ""}),
            claim("first", "reproduced", {"x": 1.0, "y": math.inf}),
            ("heartbeat", {"rss": 100, "device_memory": None}),
            ("heartbeat", {"rss": 50, "device_memory": 7}),
            ("artifact", {"name": "a", "path": "artifacts/a.png", "kind": "image", "caption": ""}),
            ("measurement", {"case": "c"}),
            ("from a newer version", {"what": "ever"}),
        ]
    )
    found = load(folder)
    assert found.state == "running"
    assert found.phase == "train"
    assert found.progress == Progress("training", 1, 4, 1.5)
    (first, second) = found.curves["loss"]["paper"]
    assert first == (0, 2.0)
    assert math.isnan(second[1])
    assert found.values == {("accuracy", ""): 0.75}
    assert found.claims[0]["values"]["x"] == 1.0
    assert math.isnan(found.claims[0]["values"]["y"])
    assert (found.memory, found.memory_peak, found.device_memory) == (50, 100, 7)
    assert found.environment["torch"] == "2"
    assert (len(found.artifacts), len(found.measurements), found.bad_events) == (1, 1, 0)


def test_rubbish_in_the_event_file_is_counted_and_skipped(run_folder):
    folder = run_folder(events=[("phase", {"name": "train"})])
    with (folder / "events.jsonl").open("ab") as file:
        file.write(b"rubbish\n\n\xff\xfe\x00\n[1, 2]\n{}\n")
        file.write(b'{"event": "metric"}\n{"event": "metric", "name": "x", "value": "much"}\n')
        file.write(b'{"event": "claim", "claim": 3, "verdict": 1, "values": []}\n{"event": ["x"], "v": 1}\n')
        file.write(b'{"event": "heartbeat", "rss": null, "v": "one"}\n' + b"[" * 100_000 + b"\n")
        file.write(b'{"event": "end", "outcome": "perfect"}\n{"v": 1, "event": "log", "te')
    found = load(folder)
    assert found.phase == "train"
    assert found.outcome is None
    assert found.bad_events >= 9
    found.summary()


def test_a_torn_last_line_is_repaired_by_the_end(run_folder):
    folder = run_folder()
    with (folder / "events.jsonl").open("ab") as file:
        file.write(b'{"v": 1, "event": "log", "te')
    done = store.write_end_event(folder, "interrupted", "the power failed")
    assert (done.outcome, done.bad_events) == ("interrupted", 1)
    assert json.loads((folder / "result.json").read_text())["outcome"] == "interrupted"


def test_the_first_end_counts(run_folder):
    folder = run_folder(events=[("end", {"outcome": "completed", "detail": ""})])
    assert store.write_end_event(folder, "crashed", "too late").outcome == "completed"
    ends = [event for event in EventReader(folder).read_new() if event["event"] == "end"]
    assert len(ends) == 1


def test_a_newer_format_is_refused_with_a_message(run_folder):
    folder = run_folder()
    with (folder / "events.jsonl").open("ab") as file:
        file.write(b'{"v": 2, "seq": 9, "t": 1, "event": "phase", "name": "train"}\n')
    found = load(folder)
    assert found.phase == ""
    assert any("newer readtrack" in warning for warning in found.warnings)


def test_a_folder_without_a_job(run_folder, home):
    folder = run_folder(paper="adam", events=[("end", {"outcome": "completed", "detail": ""})])
    (folder / "job.json").write_text("{}")
    found = load(folder)
    assert (found.paper, found.job, found.outcome) == ("adam", None, "completed")
    (folder / "job.json").unlink()
    assert [summary.paper for summary in summaries(home)] == ["adam"]


def test_folders_that_are_not_runs_are_skipped(home):
    assert summaries(home) == []
    assert reconcile(home) == []
    (home.runs / "empty").mkdir(parents=True)
    (home.runs / "a file").write_text("")
    assert summaries(home) == []
    assert reconcile(home) == []


def test_a_job_of_a_newer_version_is_read(tmp_path):
    fields = asdict(new_job("sgd", seed=3))
    (tmp_path / "job.json").write_text(json.dumps({**fields, "cluster": "somewhere"}))
    assert Job.read(tmp_path) == Job(**fields)


def test_summaries_come_newest_first_from_the_result_alone(run_folder, home):
    claims = [claim("first", "weak", {"x": 1}), claim("second", "exact", {"x": 1})]
    older = run_folder(events=claims, seed=5, at="2026-01-01T00:00:00+00:00")
    store.write_end_event(older, "completed", "")
    newer = run_folder(paper="adam", at="2026-01-01T00:00:01+00:00")
    store.write_end_event(newer, "failed", "ValueError: \x1b[31mred")
    for folder in (older, newer):
        (folder / "events.jsonl").unlink()
    first, second = summaries(home)
    assert (first.paper, first.outcome, first.headline) == ("adam", "failed", "ValueError: red")
    assert second.claims == (("first", "weak", "x 1"), ("second", "exact", "x 1"))
    assert second.headline == "1 of 2 held; first: weak, x 1"
    assert (second.seed, second.budget) == (5, "quick")
    assert summaries(home, paper="sgd") == [second]


def test_a_result_without_its_conditions_is_written_again(run_folder, home):
    claims = [claim("first", "held", {"x": 1}), claim("second", "held", {"x": 1})]
    claims[0][1]["claim"]["kind"] = "identity"
    folders = [run_folder(events=claims), run_folder(paper="adam", events=claims)]
    for folder in folders:
        store.write_end_event(folder, "completed", "")
        fields = json.loads((folder / "result.json").read_text())
        assert fields.pop("unmeasured") == ["first"]
        (folder / "result.json").write_text(json.dumps(fields))
    (folders[0] / "events.jsonl").unlink()  # only the other one can be reported
    assert {run.paper: [verdict for _, verdict, _ in shown_claims(run)] for run in summaries(home)} == {
        "sgd": ["held", "held"],
        "adam": ["exact", "held"],
    }
    assert json.loads((folders[1] / "result.json").read_text())["unmeasured"] == ["first"]


def test_a_run_is_expected_to_take_as_long_as_the_latest_of_its_kind():
    def run(took, **fields):
        record = Record.from_job(new_job("sgd", **fields))
        record.outcome, record.duration = "completed", took
        return record.summary()

    job = new_job("sgd")
    assert expected(job, []) == 60
    assert expected(new_job("sgd", budget="full"), []) is None
    others = [run(1.0, budget="smoke"), run(2.0, only="benchmark"), run(3.0, null=True)]
    assert expected(job, others) == 60
    assert expected(job, [*others, run(30.0), run(10.0), run(20.0, edited="model.py +1 −1")]) == 20
    assert expected(new_job("sgd", broken="no idea"), others) == 3


def test_runs_on_other_data_are_distinguished():
    ours, theirs = (new_job("sgd", settings={"images": name}, edited="sgd.py +1 −1") for name in ("a", "b"))
    assert ours.condition == "data: a, edited: sgd.py +1 −1"
    record = Record.from_job(ours)
    record.outcome = "completed"
    summary = record.summary()
    assert (summary.data, summary.edited) == ("a", "sgd.py +1 −1")
    slow = replace(summary, duration=300.0)
    assert expected(ours, [slow]) == 300
    assert expected(theirs, [slow]) == expected(new_job("sgd"), [slow]) == 60


def test_a_broken_result_falls_back_to_the_events(run_folder, home):
    folder = run_folder(events=[("end", {"outcome": "completed", "detail": ""})])
    for text in ("", "[]", '{"outcome": "perfect"}', '{"outcome": "completed", "claims": 3}'):
        (folder / "result.json").write_text(text)
        assert [summary.outcome for summary in summaries(home)] == ["completed"]


HOSTILE = "a\x1b]52;c;c3RvbGVu\x07b\x9b31m\u202e\x7fc"


def strings(value):
    if isinstance(value, dict):
        return [found for pair in value.items() for part in pair for found in strings(part)]
    if isinstance(value, (list, tuple)):
        return [found for part in value for found in strings(part)]
    return [value] if isinstance(value, str) else []


def test_a_result_cannot_control_the_terminal(run_folder, home):
    folder = run_folder(events=[claim("first", "weak", {"x": 1})])
    store.write_end_event(folder, "completed", "")
    fields = json.loads((folder / "result.json").read_text())
    hostile = {
        name: HOSTILE for name, value in fields.items() if isinstance(value, str) and name != "outcome"
    }
    (folder / "result.json").write_text(json.dumps({**fields, **hostile, "claims": [[HOSTILE] * 3]}))
    (found,) = summaries(home)
    assert found.headline == found.device == "ab31mc"
    assert found.claims == (("ab31mc",) * 3,)
    assert all(text.isprintable() for text in strings(asdict(found)))
    for wrong in ({"seed": "x"}, {"duration": HOSTILE}, {"duration": None}):
        (folder / "result.json").write_text(json.dumps({**fields, **wrong}))
        assert [one.device for one in summaries(home)] == [fields["device"]]  # from the events


def test_a_run_cannot_control_the_terminal(run_folder):
    said = {"claim": {"name": HOSTILE}, "verdict": HOSTILE, "values": {HOSTILE: 1}, "ours": HOSTILE}
    folder = run_folder(
        device=HOSTILE,
        settings={HOSTILE: HOSTILE},
        events=[
            ("phase", {"name": HOSTILE}),
            ("environment", {"device_name": HOSTILE, HOSTILE: [HOSTILE]}),
            ("progress", {"label": HOSTILE, "done": 1, "total": 4, "eta": 1.5}),
            ("metric", {"name": HOSTILE, "value": 2, "step": 0, "arm": HOSTILE}),
            ("claim", said),
            ("artifact", {"name": HOSTILE, "path": HOSTILE, "kind": "image", "caption": HOSTILE}),
            ("measurement", {"case": HOSTILE, "axes": {HOSTILE: HOSTILE}}),
            ("log", {"text": f"{HOSTILE}\n\tin two lines"}),
            ("warning", {"text": HOSTILE}),
            ("error", {"type": HOSTILE, "message": HOSTILE}),
            ("end", {"outcome": "failed", "detail": HOSTILE}),
        ],
    )
    found = load(folder)
    shown = [text.translate({10: None, 9: None}) for text in strings(asdict(found))]
    assert all(text.isprintable() for text in shown)
    assert found.logs == ["ab31mc\n\tin two lines"]
    assert found.bad_events == 0


@pytest.mark.timing
def test_five_hundred_runs_are_read_at_once(run_folder, home):
    whole = run_folder(events=[claim("first", "weak", {"x": 1})])
    store.write_end_event(whole, "completed", "")
    result = (whole / "result.json").read_text()
    for index in range(499):
        folder = home.runs / f"20260101-000000-sgd-{index:04d}"
        folder.mkdir()
        (folder / "result.json").write_text(result)
    start = time.perf_counter()
    assert len(summaries(home)) == 500
    assert time.perf_counter() - start < 1.0


def test_silence_is_not_responding(run_folder):
    found = load(run_folder())
    assert found.state == "running"
    found.started = "2026-01-01T00:00:00+00:00"
    assert found.state == "not responding"
    found.apply({"event": "end", "t": 1.0, "outcome": "crashed", "detail": ""})
    assert found.state == "ended"
    assert Record.from_job(new_job("sgd")).state == "starting"


def test_the_time_of_a_silent_run_advances(run_folder):
    found = load(run_folder())
    found.started = datetime.fromtimestamp(time.time() - 30, UTC).isoformat()
    assert found.elapsed == pytest.approx(30, abs=5)
    found.apply({"event": "end", "t": 3.0, "outcome": "crashed", "detail": ""})
    assert found.elapsed == 3.0


@pytest.mark.parametrize("skew", [-3600, 3600])
def test_another_machines_clock_does_not_decide_whether_a_run_is_alive(run_folder, skew):
    there = datetime.fromtimestamp(time.time() + skew, UTC).isoformat()
    folder = run_folder(place="big", at=there)
    found = load(folder)
    assert found.state == "running"
    assert found.started == found.job.created
    earlier = time.time() - 120
    os.utime(folder / "events.jsonl", (earlier, earlier))
    assert load(folder).state == "not responding"


def test_reconcile_ends_runs_without_a_process(run_folder, home):
    gone = run_folder(events=[("phase", {"name": "train"})])
    never = run_folder(hello=False)
    ended = run_folder(events=[("end", {"outcome": "completed", "detail": ""})])
    for folder in (gone, never, ended):
        age(folder, 90)
    assert sorted(reconcile(home)) == sorted(folder.name for folder in (gone, never, ended))
    assert (load(gone).outcome, load(gone).detail) == ("interrupted", "its process ended in phase train")
    assert load(never).outcome == "interrupted"
    assert load(ended).outcome == "completed"
    assert reconcile(home) == []


def test_reconcile_ignores_runs_that_may_be_alive(run_folder, home):
    run_folder(hello=False)  # just started
    run_folder()  # its process has just ended, and its starter is about to write the end
    elsewhere = run_folder()
    text = (elsewhere / "events.jsonl").read_text().replace(socket.gethostname(), "another-host")
    (elsewhere / "events.jsonl").write_text(text)
    age(elsewhere, 90)
    assert reconcile(home) == []
    age(elsewhere, 3600)
    assert reconcile(home) == [elsewhere.name]


def test_reconcile_does_not_mistake_another_process_for_the_worker(run_folder, home):
    folder = run_folder()
    text = (folder / "events.jsonl").read_text().replace(str(2**22 + 1), str(os.getpid()))
    (folder / "events.jsonl").write_text(text)
    age(folder, 90)
    assert reconcile(home) == [folder.name]


def test_reconcile_reads_why_from_the_log(run_folder, home):
    crashed = run_folder(events=[("phase", {"name": "train"})])
    place = home.plugins / "toy.py"
    home.plugins.mkdir()
    (crashed / "log.txt").write_text(
        "hello\nFatal Python error: Segmentation fault\n\n"
        'Current thread 0x00007f (most recent call first):\n  File "/usr/lib/x.py", line 2 in f\n'
        f'  File "{place}", line 12 in experiment\n'
    )
    overdue = run_folder(timeout=60.0)
    (overdue / "log.txt").write_text("Timeout (0:01:30)!\nThread 0x00007f (most recent call first):\n")
    for folder in (crashed, overdue):
        age(folder, 90)
    reconcile(home)
    assert load(crashed).outcome == "crashed"
    assert load(crashed).detail == f"Segmentation fault in phase train, at {place}:12 (experiment)"
    assert load(overdue).outcome == "timed_out"


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "é" * 400_000},
        {"rows": [{"a": "x" * 1000}] * 2000},
        {"many": {f"key {index}": "x" * 100 for index in range(20_000)}},
    ],
)
def test_no_line_is_longer_than_the_limit(fields):
    line = encode({"v": 1, "event": "log", **fields})
    assert len(line) <= MAX_LINE
    assert json.loads(line)["event"] == "log"


def judged(name, verdict, kind="measured", *, headline=False):
    claim = {"name": name, "kind": kind, "headline": headline}
    return ("claim", {"claim": claim, "verdict": verdict, "ours": "1", "values": {}})


@pytest.mark.parametrize(
    ("claims", "headline"),
    [
        ([judged("a", "held"), judged("b", "missed")], "1 of 2 held; a: held, 1"),
        ([judged("a", "not judged"), judged("b", "held")], "1 of 2 held; a: not judged, 1"),
        ([judged("a", "not judged")], "no claim judged; a: not judged, 1"),
        ([judged("x", "missed", "identity"), judged("a", "not judged")], "no claim judged; x: missed, 1"),
        ([judged("x", "missed", "identity"), judged("a", "held")], "1 of 1 held; a: held, 1"),
        ([judged("a", "held"), judged("b", "missed", headline=True)], "1 of 2 held; b: missed, 1"),
    ],
)
def test_the_headline_names_the_papers_own_claim_and_the_failed_ones(run_folder, claims, headline):
    done = ("end", {"outcome": "completed", "detail": ""})
    assert load(run_folder(events=[*claims, done])).summary().headline == headline
