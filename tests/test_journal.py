"""The journal: no entry is lost, no damage is fatal, and the order of lines does not matter."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.reading_list.journal import MAX_PROBLEMS, STATES, Entry, Journal, fold, parse


@pytest.fixture
def journal(home: Home) -> Journal:
    return Journal(home.journal, lambda: home.lock("journal"))


def line(**fields: object) -> str:
    return json.dumps({"at": "2026-11-21T08:30:00+00:00", "id": "aa", "paper": "mamba", **fields}) + "\n"


# Appending


def test_the_last_word_counts_and_the_history_is_kept(journal):
    journal.append(["mamba"], state="reading")
    journal.append(["mamba", "s4"], state="read")
    journal.append(["mamba"], tag="+gpu")
    journal.append(["mamba"], tag="+to-run")
    journal.append(["mamba"], tag="-gpu")
    journal.append(["s4"], rating=4)
    journal.append(["row:hessian-matrix"], state="skipped")
    view = journal.load()
    assert view.problems == []
    mamba, s4 = view.of("mamba"), view.of("s4")
    assert [state for _, state in mamba.history] == ["reading", "read"]
    assert (mamba.state, mamba.tags, mamba.rating) == ("read", {"to-run"}, None)
    assert (s4.state, s4.tags, s4.rating) == ("read", set(), 4)
    assert view.of("row:hessian-matrix").state == "skipped"
    assert view.of("vit").state is None
    assert view.of("vit").since is None


def test_lines_are_plain_json_with_the_time_in_utc(journal):
    journal.append(["mamba"], state="reading")
    (text,) = journal.path.read_text().splitlines()
    entry = json.loads(text)
    assert set(entry) == {"at", "id", "paper", "state"}
    assert entry["at"].endswith("+00:00")
    assert abs(time.time() - datetime.fromisoformat(entry["at"]).timestamp()) < 60


@pytest.mark.parametrize(
    ("papers", "change", "said"),
    [
        (["mamba"], {"state": "finished"}, "'state' is not one of todo, reading"),
        (["mamba"], {"tag": "+two words"}, "a tag is a word"),
        (["mamba"], {"tag": "+"}, "a tag is a word"),
        (["mamba"], {"tag": "+\x1b[31m"}, "a tag is a word"),
        (["mamba"], {"rating": 6}, "a rating is a whole number from 1 to 5"),
        (["mamba"], {"rating": True}, "a rating is a whole number from 1 to 5"),
        (["mamba"], {}, "it has no state, tag, rating or undo"),
        (["s4", "../../etc/passwd"], {"state": "read"}, "no paper is named"),
    ],
)
def test_a_line_that_is_not_an_entry_is_not_written(journal, papers, change, said):
    journal.append(["mamba"], state="todo")
    before = journal.path.read_bytes()
    with pytest.raises(ReadtrackError, match=said):
        journal.append(papers, **change)
    assert journal.path.read_bytes() == before


def test_since_is_the_readers_day_from_which_the_state_holds(journal, monkeypatch):
    monkeypatch.setenv("TZ", "IST-5:30")
    time.tzset()
    try:
        journal.path.parent.mkdir()
        journal.path.write_text(
            line(at="2026-11-18T10:00:00+00:00", state="reading")
            + line(at="2026-11-19T20:00:00+00:00", state="read", id="ab")
            + line(at="2026-11-25T10:00:00+00:00", state="read", id="ac")
        )
        assert journal.load().of("mamba").since == "2026-11-20", (
            "it was past midnight there; said twice since"
        )
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_last_word_counts_even_after_a_clock_that_was_ahead(journal):
    journal.path.parent.mkdir()
    journal.path.write_text(line(at="2150-01-01T00:00:00+00:00", state="read"))
    journal.append(["mamba"], state="reading")
    assert journal.load().of("mamba").state == "reading"
    journal.undo()
    assert journal.load().of("mamba").state == "read"


# Undo and redo


def test_undo_reverts_every_kind_of_change_one_by_one(journal):
    journal.append(["mamba"], state="reading")
    journal.append(["s4"], rating=3)
    journal.append(["s4"], rating=5)
    journal.append(["mamba"], tag="+gpu")
    journal.append(["mamba", "s4"], state="read")
    assert [entry["paper"] for entry in journal.undo()] == ["mamba", "s4"], (
        "written together, undone together"
    )
    view = journal.load()
    assert (view.of("mamba").state, view.of("s4").state) == ("reading", None)
    assert [entry["tag"] for entry in journal.undo()] == ["+gpu"]
    assert journal.load().of("mamba").tags == set()
    assert [entry["rating"] for entry in journal.undo()] == [5]
    assert journal.load().of("s4").rating == 3
    journal.append(["vit"], state="todo")
    assert [entry["paper"] for entry in journal.undo()] == ["vit"], "a change after an undo is the next to go"
    assert len(journal.undo()) == len(journal.undo()) == 1
    size = journal.path.stat().st_size
    assert journal.undo() == []
    assert journal.path.stat().st_size == size
    assert journal.load().of("mamba").history == []


def test_nothing_is_ever_taken_out_of_the_file(journal):
    journal.append(["mamba"], state="reading")
    before = journal.path.read_bytes()
    journal.undo()
    assert journal.path.read_bytes().startswith(before)


def test_an_entry_written_by_hand_can_be_undone(journal):
    journal.path.parent.mkdir()
    journal.path.write_text('{"at": "2026-11-21", "paper": "mamba", "state": "read"}\n')
    assert journal.load().of("mamba").state == "read"
    assert len(journal.undo()) == 1
    assert journal.load().of("mamba").state is None


# Damaged files


def test_a_torn_last_line_is_named_and_the_next_entry_starts_afresh(journal):
    journal.append(["mamba"], state="reading")
    journal.append(["s4"], state="read")
    whole = journal.path.read_bytes()
    for cut in (1, 2, 40):
        journal.path.write_bytes(whole[:-cut])
        view = journal.load()
        assert view.of("mamba").state == "reading"
        if cut == 1:
            assert (view.problems, view.of("s4").state) == ([], "read"), "only the line's end was lost"
        else:
            assert view.problems == [
                "journal.jsonl:2: not a complete JSON line; skipped. You can delete the line"
            ]
        journal.append(["vit"], state="skipped")
        view = journal.load()
        assert view.of("vit").state == "skipped"
        assert len(view.problems) == (cut != 1)


@pytest.mark.parametrize(
    ("foreign", "said"),
    [
        (b"\0" * 4096, "not a complete JSON line"),
        (b"\xff\xfe{}", "not a complete JSON line"),
        (b"[" * 100_000, "not a complete JSON line"),
        (b"9" * 10_000, "not a complete JSON line"),
        (b"<<<<<<< HEAD", "not a complete JSON line"),
        (b"[1, 2]", "not a journal entry"),
        (line(at="yesterday", state="read").encode(), "'at' is not a time"),
        (line(at="2026-13-41T99:00:00.000000+00:00", state="read").encode(), "'at' is not a time"),
        (line(at="9999-12-31T23:59:59-14:00", state="read").encode(), "'at' is not a time"),
        (line(at=7, state="read").encode(), "'at' is not a time"),
        (line(state="pondering").encode(), "'state' is not one of"),
        (line(state=["read"]).encode(), "'state' is not one of"),
        (line(paper="\x1b]0;x\x07", state="read").encode(), "no paper is named"),
        (line(paper=None, state="read").encode(), "no paper is named"),
        (line(id={}, state="read").encode(), "'id' is not a valid id"),
        (line(undo=[]).encode(), "'undo' does not name an entry"),
        (line(mood="good").encode(), "it has no state"),
    ],
)
def test_a_line_that_is_not_an_entry_is_named_and_skipped(journal, foreign, said):
    journal.append(["mamba"], state="reading")
    with journal.path.open("ab") as file:
        file.write(foreign.rstrip(b"\n") + b"\n")
    journal.append(["s4"], state="read")
    view = journal.load()
    (problem,) = view.problems
    assert problem.startswith(f"journal.jsonl:2: {said}")
    assert problem.isprintable()
    assert (view.of("mamba").state, view.of("s4").state) == ("reading", "read")


def test_a_file_full_of_rubbish_is_reported_in_brief(journal):
    journal.path.parent.mkdir()
    journal.path.write_bytes(b"rubbish\n" * 5000 + b"\n\n")
    problems = journal.load().problems
    assert len(problems) == MAX_PROBLEMS + 1
    assert problems[-1] == f"journal.jsonl: {5000 - MAX_PROBLEMS:,} more lines skipped"


@given(st.binary(max_size=300))
def test_no_bytes_are_fatal(data):
    for piece in data.split(b"\n"):
        with contextlib.suppress(ValueError):
            fold([parse(piece)])


def test_a_failure_to_read_write_or_lock_is_one_line(home, tmp_path):
    home.ensure(home.journal)  # a folder in its place
    blocked = Journal(home.journal, contextlib.nullcontext)
    with pytest.raises(ReadtrackError, match=r"Could not read the journal .*: Is a directory\.$"):
        blocked.load()
    (tmp_path / "file").touch()
    elsewhere = Journal(tmp_path / "file" / "journal.jsonl", contextlib.nullcontext)
    with pytest.raises(ReadtrackError, match=r"Not a directory\.$"):
        elsewhere.append(["mamba"], state="read")
    with home.lock("journal"):
        held = Journal(tmp_path / "journal.jsonl", lambda: home.lock("journal", timeout=0.05))
        with pytest.raises(ReadtrackError, match="has locked the journal"):
            held.append(["mamba"], state="read")


def test_a_full_disk_is_one_line_and_costs_no_earlier_entry(journal, monkeypatch):
    journal.append(["mamba"], state="reading")
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[: len(data) // 2]))
    with pytest.raises(ReadtrackError, match=r"Could not write the journal .*: No space left"):
        journal.append(["s4"], state="read")
    monkeypatch.undo()
    journal.append(["vit"], state="read")
    view = journal.load()
    assert (view.of("mamba").state, view.of("vit").state, len(view.problems)) == ("reading", "read", 1)


# Several writers and several machines

WRITER = """
import sys
from readtrack.home import Home
from readtrack.reading_list.journal import Journal
home = Home()
journal = Journal(home.journal, lambda: home.lock("journal"))
print("ready", flush=True)
sys.stdin.readline()
for i in range(40):
    journal.append([f"paper_{sys.argv[1]}_{i}", f"other_{sys.argv[1]}_{i}"], state="read")
    if i % 4 == 3:
        journal.append(["shared"], tag="+x")
        journal.undo()
"""


def test_processes_that_write_at_once_lose_nothing(journal):
    count = 4
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    lines = journal.path.read_bytes().splitlines()
    entries = [parse(text) for text in lines]
    assert journal.load().problems == []
    assert len(entries) == count * (40 * 2 + 10 * 2)
    assert [entry["at"] for entry in entries] == sorted(entry["at"] for entry in entries)
    marked = {entry["paper"] for entry in entries if entry.get("state") == "read"}
    assert len(marked) == count * 40 * 2
    undone = [entry["undo"] for entry in entries if "undo" in entry]
    assert len(set(undone)) == len(undone) == count * 10, "no change was undone twice"


def entries() -> st.SearchStrategy[list[Entry]]:
    papers = st.sampled_from(["mamba", "s4", "row:hessian"])
    times = st.integers(0, 5).map(lambda second: f"2026-11-21T08:30:0{second}+00:00")
    ids = st.sampled_from(["a", "b", "c", "d", "e"])
    changes = st.one_of(
        st.fixed_dictionaries({"paper": papers, "state": st.sampled_from(STATES)}),
        st.fixed_dictionaries({"paper": papers, "tag": st.sampled_from(["+gpu", "-gpu", "+run"])}),
        st.fixed_dictionaries({"paper": papers, "rating": st.sampled_from([None, 1, 5])}),
        st.fixed_dictionaries({"undo": ids}),
    )
    one = st.builds(lambda at, id_, change: {"at": at, "id": id_, **change}, times, ids, changes)
    return st.lists(one, max_size=12)


@given(st.data())
def test_lines_in_any_order_and_repeated_fold_to_the_same(data):
    said = [parse(json.dumps(entry).encode()) for entry in data.draw(entries())]
    repeats = data.draw(st.lists(st.sampled_from(said), max_size=5)) if said else []
    shuffled = data.draw(st.permutations([*said, *repeats]))
    assert fold(shuffled) == fold(said)


def test_journals_of_two_machines_merge_by_putting_their_lines_together(tmp_path):
    def machine(name: str) -> Journal:
        return Journal(tmp_path / name, contextlib.nullcontext)

    laptop, desk, merged = machine("laptop"), machine("desk"), machine("merged")
    laptop.append(["mamba"], state="reading")
    desk.path.write_bytes(laptop.path.read_bytes())
    laptop.append(["mamba"], tag="+gpu")
    desk.append(["mamba"], state="read")
    desk.undo()
    desk.append(["s4"], state="implemented")
    laptop.append(["mamba"], state="skipped")
    for first, second in ((laptop, desk), (desk, laptop)):
        merged.path.write_bytes(first.path.read_bytes() + second.path.read_bytes())
        view = merged.load()
        assert view.problems == []
        assert [state for _, state in view.of("mamba").history] == ["reading", "skipped"]
        assert (view.of("mamba").tags, view.of("s4").state) == ({"gpu"}, "implemented")


@pytest.mark.timing
def test_a_long_journal_is_read_quickly(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    path.write_text(
        "".join(line(id=f"{i:x}", paper=f"p{i % 300}", state=STATES[i % 5]) for i in range(20_000))
    )
    start = time.monotonic()
    view = Journal(path, contextlib.nullcontext).load()
    assert len(view.readings) == 300
    assert time.monotonic() - start < 5


# Wrong clocks


def test_the_latest_possible_time_blocks_no_entry(journal):
    journal.path.parent.mkdir()
    wrong = line(at="2199-12-31T23:59:59.999999", state="read")
    journal.path.write_text(wrong)
    journal.append(["mamba"], state="reading")
    journal.append(["mamba"], tag="+gpu")
    view = journal.load()
    assert (view.of("mamba").state, view.of("mamba").tags) == ("reading", {"gpu"})
    assert [entry["tag"] for entry in journal.undo()] == ["+gpu"]
    assert [entry["state"] for entry in journal.undo()] == ["reading"]
    assert journal.load().of("mamba").state == "read"
    assert journal.path.read_text().startswith(wrong), "kept as it was"


def test_one_entry_of_a_clock_far_ahead_does_not_date_those_after_it(journal):
    journal.append(["s4"], state="read")
    with journal.path.open("a") as file:
        file.write(line(at="2106-01-01T00:00:00+00:00", state="read"))
    journal.append(["vit"], state="reading")
    today = datetime.now(UTC).date().isoformat()
    last = json.loads(journal.path.read_text().splitlines()[-1])
    assert last["at"][:10] <= today
    assert last["ahead"] == ["2106-01-01T00:00:00.000000+00:00"]
    dates = [at[:10] for name in ("s4", "mamba", "vit") for at, _ in journal.load().of(name).history]
    assert max(dates) <= today, "nothing was read in the future"
    journal.append(["vit"], tag="+x")
    assert "ahead" not in json.loads(journal.path.read_text().splitlines()[-1]), "said once"


def test_a_past_wrong_time_does_not_override_later_events(journal):
    at = datetime.now(UTC) - timedelta(days=10)
    wrong = (at + timedelta(days=5)).isoformat(timespec="microseconds")
    after = line(at=at.isoformat(), id="ac", state="reading", ahead=[wrong])
    journal.path.parent.mkdir()
    journal.path.write_text(line(at=wrong, id="ab", state="read") + after)
    assert journal.load().of("mamba").state == "reading"
    hostile = line(
        at="2026-11-21T08:30:00+00:00", id="ad", paper="s4", state="read", ahead=[7, at.isoformat()]
    )
    journal.path.write_text(after + hostile)
    assert journal.load().of("mamba").state == "reading"


def test_skipped_papers_are_not_counted_as_read() -> None:
    from readtrack.reading_list.journal import finished

    assert finished({"read": 2, "implemented": 1, "skipped": 3, "todo": 1, "reading": 1}) == (3, 5)
    assert finished({"skipped": 2}) == (0, 0)
