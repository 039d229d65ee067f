"""A run at a place: every event and file is fetched exactly once, whatever happens to the connection."""

import json
import random
import time

import psutil
import pytest

from readtrack.places import process
from readtrack.runs import store
from readtrack.runs.processes import reconcile


def wait_for(condition, what):
    end = time.monotonic() + 60
    while not (value := condition()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)
    return value


def numbers(folder):
    """`seq` of every event, and the number of ends."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_bytes().splitlines()]
    return [event["seq"] for event in events], sum(event["event"] == "end" for event in events)


def test_a_run_elsewhere_is_a_run_like_any_other(elsewhere):
    started = elsewhere.start("toy_ok", settings={"steps": "40"})
    done = elsewhere.finish(started)
    assert (done.outcome, started.outcome) == ("completed", "completed"), done.detail
    assert len(done.curves["loss"]["paper"]) == 40
    assert [claim["claim"]["name"] for claim in done.claims] == ["falls"]
    (artifact,) = done.artifacts
    assert (started.folder / artifact["path"]).read_text() == "it fell"
    assert (started.folder / "log.txt").exists()
    assert store.read_result(started.folder).outcome == "completed"
    assert numbers(started.folder) == (list(range(done.next_seq)), 1)
    wait_for(lambda: not elsewhere.runs(), "the other side to be tidied up")


def test_code_travels_once_and_with_the_readers_edits(elsewhere, tmp_path, monkeypatch):
    own = tmp_path / "mine"
    own.mkdir()
    monkeypatch.setenv("READTRACK_PLUGIN_PATH", str(own))
    plugin = (
        "from readtrack.plugin import hookimpl\n\n\n@hookimpl\ndef implementation():\n    return dict\n\n\n"
        "@hookimpl\ndef experiment(run):\n    run.metric('edition', {})\n\n\n"
        "@hookimpl\ndef benchmark(bench):\n    return iter(())\n"
    )
    for edition in (1, 1, 2):
        (own / "toy_mine.py").write_text(plugin.format(edition))
        done = elsewhere.finish(elsewhere.start("toy_mine"))
        assert done.values.get(("edition", "")) == edition, done.detail
    assert len(list((elsewhere.far / "elsewhere" / "code").iterdir())) == 2


def test_a_cancelled_run_ends_there_and_is_reported_here(elsewhere):
    started = elsewhere.start("toy_hang", settings={"how": "polite"})
    elsewhere.reach(started)
    assert started.cancel() == "asked"
    done = elsewhere.finish(started)
    assert done.outcome == "cancelled"
    wait_for(lambda: not elsewhere.runs(), "the other side to be tidied up")


def test_a_stubborn_run_is_killed_there(elsewhere):
    started = elsewhere.start("toy_hang", settings={"how": "stubborn"})
    elsewhere.reach(started)
    assert [started.cancel() for _ in range(4)] == ["asked", "interrupted", "terminated", "killed"]
    assert "killed" in elsewhere.finish(started).detail


def test_nothing_is_lost_or_doubled_when_the_connection_is(elsewhere):
    started = elsewhere.start("toy_ok", settings={"steps": "2000"})
    chance = random.Random(7)
    while started.poll() is None:
        time.sleep(chance.uniform(0.02, 0.2))
        if elsewhere.links and len(elsewhere.links) < 8:
            elsewhere.cut()
    done = store.load(started.folder)
    assert done.outcome == "completed"
    assert numbers(started.folder) == (list(range(done.next_seq)), 1)
    assert len(done.curves["loss"]["paper"]) == 2000


def test_a_place_out_of_reach_is_named_and_tried_again(elsewhere):
    started = elsewhere.start("toy_hang", settings={"how": "polite"})
    elsewhere.reach(started)
    elsewhere.reached = False
    elsewhere.cut()
    wait_for(lambda: "the cable is out" in started.contact, "words about the cable")
    assert started.poll() is None
    elsewhere.reached = True
    wait_for(lambda: not started.contact, "the connection")
    started.cancel()
    assert elsewhere.finish(started).outcome == "cancelled"


def test_a_run_that_cannot_be_sent_fails_with_the_reason(elsewhere):
    elsewhere.reached = False
    done = elsewhere.finish(elsewhere.start("toy_ok"))
    assert (done.outcome, done.detail) == ("failed", "far: could not be reached: the cable is out")


def test_a_reattached_run_continues_where_it_stopped(elsewhere, home):
    started = elsewhere.start("toy_hang", settings={"how": "polite"})
    elsewhere.reach(started)
    started.detach()
    assert reconcile(home) == []  # the other machine is responsible for it
    assert process.unfinished(home) == [started.folder]
    again = process.attach(started.folder, connect=elsewhere.connect)
    elsewhere.processes.append(again)
    again.cancel()
    done = elsewhere.finish(again)
    assert done.outcome == "cancelled"
    assert numbers(started.folder)[1] == 1
    assert process.unfinished(home) == []
    assert process.attach(started.folder, connect=elsewhere.connect) is None


def test_a_second_onlooker_sees_the_end_and_writes_nothing(elsewhere):
    started = elsewhere.start("toy_ok", settings={"steps": "500"})
    onlooker = process.attach(started.folder, connect=elsewhere.connect)
    done = elsewhere.finish(started)
    assert onlooker.poll() == done.outcome == "completed"
    assert numbers(started.folder) == (list(range(done.next_seq)), 1)


def test_a_shepherd_that_is_killed_takes_its_run_along(elsewhere):
    started = elsewhere.start("toy_hang", settings={"how": "polite"})
    elsewhere.reach(started)
    worker = psutil.Process(store.load(started.folder).hello["pid"])
    psutil.Process(worker.ppid()).kill()
    done = elsewhere.finish(started)
    assert done.outcome == "interrupted"
    wait_for(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, "the worker's end")


def test_a_terminated_shepherd_reports_that_its_machine_was_reclaimed(elsewhere):
    started = elsewhere.start("toy_hang", settings={"how": "polite"})
    elsewhere.reach(started)
    psutil.Process(psutil.Process(store.load(started.folder).hello["pid"]).ppid()).terminate()
    done = elsewhere.finish(started)
    assert done.outcome == "interrupted"
    assert done.detail == "stopped, its machine was reclaimed, in phase train"
    assert numbers(started.folder) == (list(range(done.next_seq)), 1)


def test_a_worker_that_is_killed_crashed(elsewhere):
    started = elsewhere.start("toy_hang", settings={"how": "polite"})
    elsewhere.reach(started)
    psutil.Process(store.load(started.folder).hello["pid"]).kill()
    done = elsewhere.finish(started)
    assert done.outcome in ("crashed", "out_of_memory")
    assert "SIGKILL" in done.detail


def test_a_start_that_is_repeated_starts_nothing(elsewhere):
    started = elsewhere.start("toy_hang", settings={"how": "polite"})
    elsewhere.reach(started)
    link = elsewhere.connect(elsewhere.place)
    job = json.loads((started.folder / "job.json").read_text())
    request = {"do": "start", "job": job, "hash": "0" * 64, "kind": "ssh"}
    assert link.call(request)[0] == {"started": False}
    link.close()
    started.cancel()
    elsewhere.finish(started)


def test_a_new_attempt_begins_a_new_file_and_keeps_the_old(elsewhere):
    started = elsewhere.start("toy_hang", settings={"how": "polite"})
    elsewhere.reach(started)
    first = started.seen
    before = (started.folder / "events.jsonl").read_bytes()
    started.take("999-later", 0, b"")
    assert started.attempt == 2
    assert (started.folder / "attempts" / f"{first}.jsonl").read_bytes()[: len(before)] == before
    assert not (started.folder / "events.jsonl").exists()
    started.seen = first
    started.cancel()
    elsewhere.finish(started)


@pytest.mark.parametrize("at", [0, 3, 9, 12])
def test_frames_that_repeat_or_leave_a_gap_are_not_appended(elsewhere, at):
    started = elsewhere.start("toy_ok")
    elsewhere.finish(started)
    started.seen = "001-x"
    (started.folder / "events.jsonl").write_bytes(b"123456789")
    started.take("001-x", at, b"abc")
    expected = b"123456789abc" if at == 9 else b"123456789"
    assert (started.folder / "events.jsonl").read_bytes() == expected


def test_another_readtrack_there_is_named(elsewhere, monkeypatch):
    monkeypatch.setattr("readtrack.places.answers.__version__", "99.0")
    done = elsewhere.finish(elsewhere.start("toy_ok"))
    assert done.outcome == "failed"
    assert "the other side runs readtrack 0.1.0, and this side 99.0" in done.detail


def test_a_noisy_login_shell_does_no_harm(elsewhere, monkeypatch):
    noisy = ["sh", "-c", 'printf "{\\"n\\": 5}\\nWelcome"; echo words >&2; exec "$0" "$@"']
    quiet = type(elsewhere).command.fget(elsewhere)
    monkeypatch.setattr(type(elsewhere), "command", property(lambda self: [*noisy, *quiet]))
    assert elsewhere.finish(elsewhere.start("toy_ok")).outcome == "completed"
