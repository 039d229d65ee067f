"""The queue of runs, a file shared by several apps."""

from __future__ import annotations

import pytest

from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.runs.job import new_job
from readtrack.runs.queue import Queue, moved, without


def test_each_job_is_taken_once_and_in_order(home: Home) -> None:
    home.ensure()
    first, second = new_job("a"), new_job("b", settings={"x": "1"}, timeout=2.0)
    Queue(home).change(lambda jobs: [*jobs, first, second])
    assert Queue(home).jobs() == [first, second]
    assert [Queue(home).take(), Queue(home).take(), Queue(home).take()] == [first, second, None]


def test_a_job_is_moved_and_removed() -> None:
    jobs = [new_job(name) for name in "abc"]
    a, b, c = jobs
    assert moved(jobs, a.run_id, 1) == [b, a, c]
    assert moved(jobs, c.run_id, -1) == [a, c, b]
    assert moved(jobs, a.run_id, -1) == jobs
    assert moved(jobs, "unknown", 1) == jobs
    assert without(jobs, b.run_id) == [a, c]


@pytest.mark.parametrize("text", ["", "[" * 9000, "5", "[5, {}]", '[{"paper": "a", "seed": "x"}]'])
def test_an_odd_queue_is_empty(home: Home, text: str) -> None:
    home.ensure()
    (home.root / "queue.json").write_text(text)
    assert Queue(home).jobs() == []
    assert Queue(home).take() is None


def test_a_queue_that_cannot_be_written_is_reported(home: Home) -> None:
    home.ensure()
    (home.root / "queue.json").mkdir()
    with pytest.raises(ReadtrackError, match="could not be written"):
        Queue(home).change(lambda jobs: [new_job("a")])
