"""Rows that are added, linked and removed, and what undo and redo make of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.library import Library
from readtrack.sync.add import add
from readtrack.transfer import linking, list_history

LIST = """\
# mine
title: "My papers"

checklist:
  - section: "Now"   # soon
    rows:
      - text: "one"

      # a comment that stays
      - text: "two"
        done: true
        rows:
          - text: "inside"
          - note: "prose"
      - text: "three"
        papers: [own]
  - section: "Later"
    rows:
      - {text: "in brackets"}

papers:
  own:
    title: "A Paper of Its Own"
"""


@pytest.fixture
def library(home: Home) -> Library:
    home.ensure()
    home.papers_yaml.write_text(LIST, encoding="utf-8")
    return Library.open(home)


def remove(library: Library, row: str) -> None:
    with list_history.recorded(library, f"{row} removed"):
        linking.remove(library, linking.find_row(library, row))


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_removed_row_takes_its_own_lines_and_no_others(library: Library, ending: str) -> None:
    path = library.home.papers_yaml
    text = LIST.replace("\n", ending)
    path.write_bytes(text.encode())
    library.reload()
    remove(library, "two")
    gone = ['      - text: "two"', "        done: true", "        rows:"]
    gone += ['          - text: "inside"', '          - note: "prose"']
    left = [line for line in text.split(ending) if line not in gone]
    assert path.read_bytes().decode() == ending.join(left)
    assert list_history.undo(library) == ("Undone: two removed.", True)
    assert path.read_bytes().decode() == text


def test_the_last_row_leaves_an_empty_section_and_a_row_in_brackets_stays(library: Library) -> None:
    for row in ("one", "two", "three"):
        remove(library, row)
    assert [section.title for section in library.catalog.sections] == ["Now", "Later"]
    assert library.catalog.sections[0].rows == ()
    with pytest.raises(ReadtrackError, match="in brackets"):
        remove(library, "in brackets")


def test_a_removed_paper_keeps_its_facts_and_can_be_added_again(library: Library) -> None:
    library.mark("own", "reading")
    remove(library, "three")
    assert "own" not in library.listed
    assert library.catalog.papers["own"].title == "A Paper of Its Own"
    add(library, "own")
    library.reload()
    assert "own" in library.listed
    assert library.state("own") == "reading"


def test_undo_and_redo_go_through_list_and_journal_in_order(library: Library) -> None:
    path = library.home.papers_yaml
    library.mark("row:one", "reading")
    texts = [LIST]
    remove(library, "three")
    texts.append(path.read_text())
    with list_history.recorded(library, "one linked"):
        linking.link(library, linking.find_row(library, "one"), ("own",))
    texts.append(path.read_text())
    library.mark("own", "read")

    def step(what: str) -> tuple[str | None, str, str, str]:
        done = getattr(list_history, what)(library)
        states = library.state("own"), library.state(library.catalog.sections[0].rows[0].subject)
        return done.said.partition(": ")[0] if done else None, path.read_text(), *map(str, states)

    assert step("undo") == ("own", texts[2], "reading", "todo")
    assert step("undo") == ("Undone", texts[1], "todo", "reading")
    assert step("undo") == ("Undone", texts[0], "todo", "reading")
    assert step("undo") == ("row:one", texts[0], "todo", "todo")
    assert step("undo")[0] is None
    assert step("redo") == ("row:one", texts[0], "todo", "reading")
    assert step("redo") == ("Redone", texts[1], "todo", "reading")
    assert step("redo") == ("Redone", texts[2], "reading", "todo")
    assert step("redo") == ("own", texts[2], "read", "todo")
    assert step("redo")[0] is None


def test_a_list_that_was_edited_since_is_not_overwritten(library: Library) -> None:
    path = library.home.papers_yaml
    remove(library, "three")
    edited = path.read_text().replace('"one"', '"eins"')
    path.write_text(edited)
    library.reload()
    with pytest.raises(ReadtrackError, match="was changed since"):
        list_history.undo(library)
    assert path.read_text() == edited
    assert list_history.undo(library) is None  # and the next undo is not stopped by it


def test_undoing_the_first_addition_gives_the_shipped_list_back(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    library = Library.open(home)
    with list_history.recorded(library, "a title added"):
        add(library, "A Title of Some Words")
    library.reload()
    assert home.papers_yaml.exists()
    list_history.undo(library)
    assert not home.papers_yaml.exists()
    assert library.shows_shipped_list


def test_a_damaged_history_is_no_history(library: Library) -> None:
    remove(library, "three")
    (library.home.cache / "list-history.json").write_text('{"done": [[1]]}')
    assert list_history.undo(library) is None
