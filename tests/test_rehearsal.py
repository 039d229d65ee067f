"""The choice of the next exercise: due ones, begun ones, then along the lineage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice

from readtrack.home import Home
from readtrack.library import Library
from readtrack.practice.diary import Diary
from readtrack.rehearsal import suggestions


def test_a_new_reader_begins_with_a_function_without_prerequisites(home: Home) -> None:
    library = Library.open(home)
    found = list(suggestions(library))
    papers = [one.sheet.paper for one in found]
    assert len(papers) == len(set(papers))
    first = found[0]
    parents = library.catalog.papers[first.sheet.paper].builds_on
    assert not set(parents) & set(papers)
    assert first.command == f"readtrack practice {first.sheet.paper}"


def test_papers_that_build_on_an_implemented_one_come_next(home: Home) -> None:
    library = Library.open(home)
    library.mark("attention", "implemented")
    first = next(suggestions(library))
    assert "attention" in library.catalog.papers[first.sheet.paper].builds_on
    assert "you have implemented attention" in first.reason


def test_a_paper_that_was_begun_goes_before_others(home: Home) -> None:
    Diary(home).add("lstm", "steps", "tried", outcome="passed")
    first = next(suggestions(Library.open(home)))
    assert (first.sheet.paper, first.sheet.name) == ("lstm", "backward")
    assert "1 of 2 done" in first.reason


def test_functions_passed_long_ago_come_back_first(home: Home) -> None:
    diary = Diary(home)
    diary.add("adam", "step", "tried", outcome="passed")
    now = datetime.now(UTC)
    assert not any(one.again for one in islice(suggestions(Library.open(home), now), 3))
    later = next(suggestions(Library.open(home), now + timedelta(days=8)))
    assert later.again
    assert later.command == "readtrack practice adam step --reset"
