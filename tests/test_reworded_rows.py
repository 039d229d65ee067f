"""A reworded row keeps its state, tags and notes if it can be identified with certainty."""

from __future__ import annotations

from pathlib import Path

import pytest

from readtrack.fulltext.index import FullText
from readtrack.fulltext.searching import Search
from readtrack.home import Home
from readtrack.library import Library
from readtrack.reading_list.catalog import Row, Section

SECTIONS = """\
title: Notes
checklist:
  - section: Attention
    rows:
      - text: Read the blog about atention
      - text: Survey
      - text: Try it
      - text: Try it
  - section: Vision
    rows:
      - text: Survey
      - text: A course on images
        rows:
          - text: Lecture one
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "papers.yaml"
    path.write_text(SECTIONS)
    return path


def texts(library: Library) -> dict[str, str]:
    """The state and note of every row, by section and text."""
    section, found = "", {}
    for _, item in library.catalog.walk():
        if isinstance(item, Section):
            section = item.title
        elif isinstance(item, Row):
            found[f"{section}: {item.text}"] = (library.state(item.subject), library.note(item.subject))
    return found


@pytest.fixture
def edited(home: Home, path: Path):
    """A library with states and notes for some rows, some of whose lines are then replaced."""

    def edit(*changes: tuple[str, str], of: str = "", state: str = "read") -> Library:
        path.write_text(SECTIONS)
        library = Library.open(home, path)
        for section, item in ((s.title, row) for s in library.catalog.sections for row in s.rows):
            if f"{section}: {item.text}" == of:
                library.mark(item.subject, state)
                library.save_note(item.subject, "a note")
        text = SECTIONS
        for old, new in changes:
            assert text.count(old) == 1
            text = text.replace(old, new)
        path.write_text(text)
        library.reload()
        return library

    return edit


@pytest.mark.parametrize(
    ("of", "changes", "now"),
    [
        (
            "Attention: Read the blog about atention",
            [("about atention", "about attention")],
            "Attention: Read the blog about attention",
        ),
        (
            "Vision: A course on images",
            [("Vision", "Sight"), ("A course on images", "A good course on images")],
            "Sight: A good course on images",
        ),
        (
            "Vision: Survey",
            [("atention\n      - text: Survey\n", "atention\n")],  # the other row is removed
            "Vision: Survey",
        ),
        (
            "Attention: Survey",
            [
                (
                    "  - section: Attention",
                    "  - section: Before\n    rows: [{text: Survey}]\n  - section: Attention",
                )
            ],
            "Attention: Survey",
        ),
        (
            "Attention: Read the blog about atention",
            [
                ("      - text: Read the blog about atention\n", ""),
                ("one\n", "one\n      - text: Read the blog about atention\n"),
            ],
            "Vision: Read the blog about atention",
        ),
    ],
)
def test_a_row_keeps_its_state_and_note(edited, of, changes, now):
    library = edited(*changes, of=of)
    marked = {row: said for row, said in texts(library).items() if said != ("todo", "")}
    assert marked == {now: ("read", "a note")}
    assert library.orphans == {}


@pytest.mark.parametrize(
    ("of", "changes"),
    [
        (
            "Attention: Survey",
            [("atention\n      - text: Survey\n", "atention\n")],
        ),  # the same row in another section is unchanged
        ("Attention: Read the blog about atention", [("Read the blog about atention", "Write the essay")]),
        ("Attention: Try it", [("      - text: Try it\n      - text: Try it\n", "      - text: Try it\n")]),
    ],
)
def test_ambiguous_rows_are_not_matched(edited, of, changes):
    library = edited(*changes, of=of)
    assert set(texts(library).values()) == {("todo", "")}
    assert [reading.state for reading in library.orphans.values()] == ["read"] * len(library.orphans)
    assert library.orphans


def test_a_reworded_row_has_one_name(edited, home):
    library = edited(("about atention", "about attention"), of="Attention: Read the blog about atention")
    subject = "row:read-the-blog-about-attention"
    library.tag(subject, "soon")
    library.rate(subject, 4)
    assert (library.tags(subject), library.rating(subject), library.state(subject)) == ({"soon"}, 4, "read")
    assert set(Search(library, FullText(library.home), "tag:soon").found) == {subject}
    assert library.undo() == f"{subject}: back to no rating."
    assert [path.name for path in home.notes.iterdir()] == ["row-read-the-blog-about-atention.md"]
    again = Library.open(home, library.list_path)
    assert (again.tags(subject), again.note(subject)) == ({"soon"}, "a note")


def test_a_new_row_never_takes_the_name_of_another(edited, home):
    library = edited(
        ("  - section: Attention", "  - section: Before\n    rows: [{text: Survey}]\n  - section: Attention"),
        of="Attention: Survey",
    )
    library.mark("row:survey", "skipped")  # the new one, now the first with this text
    library.save_note("row:survey", "another note")
    again = Library.open(home, library.list_path)
    said = texts(again)
    assert said["Before: Survey"] == ("skipped", "another note")
    assert said["Attention: Survey"] == ("read", "a note")
    assert said["Vision: Survey"] == ("todo", "")


def test_entries_of_old_journals_without_wordings_count(home, path):
    path.write_text(SECTIONS)
    home.ensure()
    stamp = '"at": "2026-11-21T08:30:00+00:00", "id": '
    home.journal.write_text(
        f'{{{stamp}"a", "paper": "row:survey", "state": "read"}}\n'
        f'{{{stamp}"b", "paper": "row:read-the-blog-about-the-atention", "state": "reading"}}\n'
    )
    said = texts(Library.open(home, path))
    assert said["Attention: Survey"] == ("read", "")
    assert said["Attention: Read the blog about atention"] == ("reading", "")
