"""Where lines are inserted in papers.yaml, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.library import Library
from readtrack.reading_list import load
from readtrack.reading_list.catalog import Row
from readtrack.reading_list.insert import CannotInsertError, insert, quote
from readtrack.sync.add import add
from tests.sync.test_add import ENTRY, LIST, added_lines


@pytest.fixture
def mine(home: Home) -> Path:
    home.ensure()
    home.papers_yaml.write_text(LIST, encoding="utf-8")
    return home.papers_yaml


def test_inserted_lines_follow_the_files_own_form() -> None:
    row = """\

    - section: "Added"
      rows:
        - text: "A \\"new\\": one # really (2021)"
          papers: [new_one]
"""
    block = """\

    new_one:
      title: "A \\"new\\": one # really"
      authors: ["Ada Example", "Ré Muster"]
      year: 2021
      sources:
        - arxiv: "2101.00001"
"""
    expected = LIST.replace("        lines\n", "        lines\n" + row).replace(
        "folded.\n", "folded.\n" + block
    )
    assert insert(LIST, ENTRY) == expected
    named = insert(LIST, ENTRY, "Optimisers")
    assert '            papers: [adam]\n          - text: "A' in named
    bare = insert(LIST, ENTRY, "vision")
    assert '        lines\n      rows:\n        - text: "A' in bare


PAPERS_FIRST = """\
papers:
  a:
    title: t
    authors: [x]
    year: 2000
    sources: [{arxiv: '2001.00001'}]
title: x
checklist:
- section: A
  rows:
"""
WITHIN = """\
title: x
checklist:
  - section: A
    rows:
      - text: one
        rows:
          - text: two
            # a word
          - note: |
              three


  - section: B
"""
VARIANTS = {
    "as it is": LIST,
    "line ends of another system": LIST.replace("\n", "\r\n"),
    "no line end at the end": LIST.rstrip("\n"),
    "a mark in front": "\ufeff" + LIST,
    "no papers": "title: x\nchecklist:\n- section: A\n  rows:\n  - text: one",
    "papers first": PAPERS_FIRST,
    "rows within rows": WITHIN,
    "an end mark": "---\ntitle: x\nchecklist:\n- section: A\n...\n",
    "letters beyond": LIST.replace("Ada", "Адa 🚀 注意"),
    "the section is there": LIST.replace("Vision", "added"),
    "paragraphs kept": LIST.replace("idea: >-", "idea: |+"),
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("section", [None, 0, -1])
def test_insertion_changes_no_other_row(name: str, section: int | None, tmp_path: Path) -> None:
    before = VARIANTS[name]
    path = tmp_path / "papers.yaml"
    path.write_bytes(before.encode())
    old = load.load(path)
    title = None if section is None else old.sections[section].title
    after = insert(before, ENTRY, title)
    path.write_bytes(after.encode())
    new = load.load(path)
    assert new.papers["new_one"].title == ENTRY.title
    (row,) = new.rows_of("new_one")
    where = [part.title for part in new.sections if row in part.rows]
    assert where == [title or ("added" if "added" in name or "is there" in name else "Added")]
    texts = [(depth, getattr(item, "text", None)) for depth, item in new.walk()]
    texts.remove((1, row.text))
    if title is None and "is there" not in name:
        texts.pop()
    assert texts == [(depth, getattr(item, "text", None)) for depth, item in old.walk()]
    assert len(added_lines(before, after)) >= 8
    if "\r\n" in before:
        assert after.count("\r\n") == after.count("\n")


@pytest.mark.parametrize(
    "text",
    ["title: x\nchecklist: []\npapers: {}\n", "checklist: []\ntitle: x\n", "title: x\nchecklist:   [ ]"],
)
def test_an_empty_list_takes_papers(text: str, home: Home) -> None:
    home.ensure()
    home.papers_yaml.write_text(text)
    add(Library.open(home), "https://example.org/a.pdf", title="A talk")
    add(Library.open(home), "1711.05101")
    library = Library.open(home)
    assert list(library.listed) == ["talk", "adamw"]
    assert [section.title for section in library.catalog.sections] == ["Added"]


@pytest.mark.parametrize(
    "text",
    [
        '{"title": "x", "checklist": [{"section": "A"}]}',
        "title: x\nchecklist: [{section: A}]\n",
        "title: x\nchecklist:\n- section: Added\n  rows: [{text: one}]\n",
    ],
)
def test_a_form_without_lines_is_left_to_the_reader(text: str, home: Home) -> None:
    home.ensure()
    home.papers_yaml.write_text(text)
    load.load(home.papers_yaml)
    with pytest.raises(CannotInsertError, match=r"add this to its papers:\n  talk:\n    title:"):
        add(Library.open(home), "https://example.org/a.pdf", title="A talk")
    assert home.papers_yaml.read_text() == text


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1, max_size=40), st.lists(st.text(max_size=10), min_size=1, max_size=3))
def test_any_text_survives_quoting(title: str, authors: list[str]) -> None:
    import yaml

    from readtrack.text import one_line

    for text in (title, *authors):
        assert yaml.safe_load(quote(text)) == one_line(text)


def test_a_list_that_changes_during_an_edit_is_not_overwritten(
    mine: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = load.load
    calls = iter(range(10))

    def edited(path: Path) -> Any:
        if next(calls) == 1:
            mine.write_text(LIST + "# edited\n")
        return real(path)

    library = Library.open(home)
    monkeypatch.setattr(load, "load", edited)
    with pytest.raises(ReadtrackError, match="was changed by another program"):
        add(library, "https://example.org/a.pdf", title="A talk")
    assert mine.read_text() == LIST + "# edited\n"


def test_the_row_is_in_the_checklist(mine: Path, home: Home) -> None:
    added = add(Library.open(home), "https://example.org/a.pdf", title="A talk", section="Optimisers")
    rows = load.load(mine).sections[0].rows
    assert [row.papers for row in rows if isinstance(row, Row)] == [("adam",), (added.paper,)]
