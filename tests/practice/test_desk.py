"""The reader's file and diary never lose anything."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.home import Home
from readtrack.plugins.find import find
from readtrack.practice.desk import Desk
from readtrack.practice.diary import Diary
from readtrack.practice.sheet import exercises_of


@pytest.fixture
def desk(home: Home) -> Desk:
    return Desk(home, find(home)["attention"], "Attention Is All You Need")


def test_the_file_is_written_once_and_never_again(desk: Desk) -> None:
    assert desk.write()
    text = desk.file.read_text()
    assert text.startswith('"""Attention Is All You Need, written by you.')
    desk.file.write_text("mine\n")
    assert not desk.write()
    assert desk.file.read_text() == "mine\n"


def test_reset_empties_one_function_and_keeps_the_file_as_it_was(desk: Desk) -> None:
    desk.write()
    skeleton = desk.file.read_text()
    sheet = desk.sheets[1]
    written = skeleton.replace('dim"]:\n    raise NotImplementedError', 'dim"]:\n    x = 1\n    return x')
    assert written != skeleton
    desk.file.write_text(written)
    kept = desk.reset(sheet)
    assert desk.file.read_text() == skeleton
    assert kept.read_text() == written
    desk.file.write_text(skeleton.replace("def split_heads", "def other"))
    desk.reset(sheet)
    assert desk.file.read_text().count("def split_heads") == 1
    desk.file.write_text("def (\n")
    with pytest.raises(ReadtrackError, match=r"attention\.py:1"):
        desk.reset(sheet)


def test_the_next_exercise_is_remembered(desk: Desk) -> None:
    assert desk.current() == desk.sheets[0]
    desk.choose("3")
    assert desk.current() == desk.sheets[2]
    desk.diary.add("attention", desk.names[2], "tried", outcome="passed")
    assert desk.current() == desk.sheets[0]
    desk.diary.add("attention", desk.names[0], "skipped")
    assert desk.current() == desk.sheets[1]
    assert desk.choose(desk.names[0]) == desk.current()
    with pytest.raises(ReadtrackError, match="did you mean 'split heads'"):
        desk.choose("split head")
    for name in desk.names:
        desk.diary.add("attention", name, "tried", outcome="passed")
    assert desk.current() is None
    assert desk.all_done


def test_hints_open_one_after_another(desk: Desk) -> None:
    sheet = desk.sheets[0]
    said = [desk.hint(sheet) for _ in range(4)]
    assert said == [*sheet.hints, sheet.hints[-1]]
    assert desk.standings()[sheet.name].hints == len(sheet.hints)


def test_the_solution_is_a_diff_and_is_noted(desk: Desk) -> None:
    desk.write()
    lines = desk.solution(desk.sheets[2])
    assert "-    raise NotImplementedError" in lines
    assert "+    return x.transpose(-3, -2).flatten(-2)" in lines
    assert desk.standings()["merge heads"].solution


def test_an_exercise_comes_back_later_each_time(home: Home) -> None:
    diary = Diary(home)
    for _ in range(2):
        diary.add("adam", "step", "tried", outcome="wrong")
        diary.add("adam", "step", "tried", outcome="passed")
        diary.add("adam", "step", "tried", outcome="passed")
        diary.add("adam", "step", "reset")
    diary.add("adam", "step", "tried", outcome="passed")
    standing = diary.standings("adam", ["step"])["step"]
    assert standing.passes == 3
    assert standing.tries == 1
    assert standing.passed is not None
    assert standing.due == standing.passed + timedelta(days=60)


def test_the_time_belongs_to_the_exercise_whose_code_is_new(home: Home) -> None:
    diary = Diary(home)
    minutes = [  # after the entry before, exercise, did, code
        (0, "scores", "chosen", ""),
        (2, "scores", "tried", "a"),
        (3, "scores", "tried", "a"),
        (0, "heads", "tried", "b"),
        (4, "scores", "reset", ""),
        (60, "scores", "opened", ""),
        (5, "scores", "tried", "c"),
    ]
    at = datetime(2026, 1, 1, tzinfo=UTC)
    home.ensure(home.practice)
    with (home.practice / "log.jsonl").open("w") as file:
        for gap, exercise, did, code in minutes:
            at += timedelta(minutes=gap)
            line = {
                "at": at.isoformat(),
                "paper": "attention",
                "exercise": exercise,
                "did": did,
                "code": code,
            }
            file.write(json.dumps(line) + "\n")
    found = diary.standings("attention", ["scores", "heads"])
    assert {name: one.seconds / 60 for name, one in found.items()} == {"scores": 7, "heads": 3}


def test_the_diary_skips_unreadable_lines(home: Home) -> None:
    diary = Diary(home)
    diary.add("adam", "step", "opened")
    with (home.practice / "log.jsonl").open("a") as file:
        file.write(
            'no json\n{"at": 3}\n[]\n{"at": "2020-01-01", "paper": "adam", "exercise": "\\u001b[2Jstep"}\n'
        )
    found = diary.entries("adam")
    assert [one.exercise for one in found] == ["step", "step"]
    assert found[1].at == datetime(2020, 1, 1, tzinfo=UTC)


def test_a_paper_without_exercises_gives_the_reason(home: Home) -> None:
    with pytest.raises(NotAvailableError, match="its idea is in the training data"):
        exercises_of("galactica", find(home))
    with pytest.raises(NotAvailableError, match=r"nothing has no exercises\. "):
        exercises_of("nothing", find(home))
