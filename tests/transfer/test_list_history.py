"""Undo and redo of added, linked and removed rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.library import Library
from readtrack.reading_list.catalog import Paper, Source
from readtrack.sync.add import add
from readtrack.transfer import exporting, linking, list_history
from readtrack.transfer.importing import Choices, apply, plan

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


def test_undo_writes_to_the_list_and_imported_files_alone(library: Library, tmp_path: Path) -> None:
    remove(library, "one")
    record = library.home.cache / "list-history.json"
    before = record.read_text(encoding="utf-8")
    elsewhere = tmp_path / "elsewhere.txt"
    elsewhere.write_text("mine", encoding="utf-8")
    link = library.home.root / "imported" / "001-a.md"
    link.parent.mkdir()
    link.symlink_to(elsewhere)
    for path in (elsewhere, link, library.home.root / "imported" / ".." / "journal.jsonl"):
        stored = json.loads(before)
        stored["done"][0][1] = {str(path): ["taken", "mine"]}
        record.write_text(json.dumps(stored), encoding="utf-8")
        with pytest.raises(ReadtrackError, match="is not your list or an imported file"):
            list_history.undo(library)
    assert elsewhere.read_text(encoding="utf-8") == "mine"
    record.write_text(before, encoding="utf-8")
    assert list_history.undo(library) is not None
    assert library.home.papers_yaml.read_text(encoding="utf-8") == LIST


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


@pytest.mark.parametrize("fresh", [False, True])
def test_undo_takes_back_an_import_as_a_whole(library: Library, tmp_path: Path, fresh: bool) -> None:
    home = library.home
    if fresh:
        home.papers_yaml.write_text('title: "My papers"\nchecklist: []\npapers: {}\n')
        library.reload()
    else:
        library.mark("row:one", "reading")  # the state moves to the linked paper
    files = {
        "a.md": "---\ntags: [x]\n---\n## Now\n- [ ] one\n- [/] GQA\n- [-] a talk\n- [x] A Paper of Its Own\n",
        "b.bib": "@misc{k, title={Layer Normalization}, keywords={norms}, abstract={Words.}, year={2016}}\n",
    }

    def seen() -> tuple[object, ...]:
        kept = sorted((home.root / "imported").glob("*"))
        texts = [path.read_bytes() for path in (home.papers_yaml, *kept)]
        subjects = [*library.catalog.papers, *library.bare_rows()]
        states = {one: (library.state(one), library.tags(one), library.rating(one)) for one in subjects}
        return texts, exporting.to_markdown(library), states

    steps = [seen()]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        choices = Choices({5: ["rope"]} if name == "a.md" else {})
        with list_history.recorded(library, f"{name} imported"):
            apply(library, plan(library, tmp_path / name, choices))
        steps.append(seen())
    assert library.state("rope") == ("todo" if fresh else "reading")
    assert library.state("gqa") == "reading"
    assert library.tags("layernorm") == {"norms"}
    for before in (steps[1], steps[0]):
        assert list_history.undo(library)
        assert seen() == before
    for after in steps[1:]:
        assert list_history.redo(library)
        assert seen() == after


def test_an_import_is_not_undone_over_a_file_that_came_again(library: Library, tmp_path: Path) -> None:
    for name, text in (("a.md", "- Adam\n"), ("b.md", "- LSTM\n")):
        (tmp_path / name).write_text(text)
        with list_history.recorded(library, f"{name} imported"):
            apply(library, plan(library, tmp_path / name))
    kept = next((library.home.root / "imported").glob("*-b.md"))
    kept.write_text("- Adam\n- more\n")
    before = library.home.papers_yaml.read_text()
    with pytest.raises(
        ReadtrackError, match=r"002-b.md has changed since then, so this stays: b.md imported"
    ):
        list_history.undo(library)
    assert library.home.papers_yaml.read_text() == before


def test_a_list_that_was_edited_since_is_not_overwritten(library: Library) -> None:
    path = library.home.papers_yaml
    remove(library, "three")
    edited = path.read_text().replace('"one"', '"eins"')
    path.write_text(edited)
    library.reload()
    with pytest.raises(ReadtrackError, match="has changed since"):
        list_history.undo(library)
    assert path.read_text() == edited
    assert list_history.undo(library) is None  # the next undo still works


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


def test_a_row_is_linked_to_a_paper_that_is_new(library: Library) -> None:
    def linked(row: str, text: str) -> Paper:
        id_ = linking.link_new(library, linking.find_row(library, row), text)
        return library.catalog.papers[id_]

    library.mark("row:one", "reading")
    paper = linked("one", "2305.14314")
    assert (paper.title, paper.year, paper.missing) == ("arXiv 2305.14314", 2023, ("title", "authors"))
    assert paper.sources == (Source("arxiv", "2305.14314"),)
    assert library.state(paper.id) == "reading"
    paper = linked("two", "A Challenge of 2012 (2015)")  # a year inside a title belongs to the title
    assert (paper.title, paper.year, paper.sources) == ("A Challenge of 2012", 2015, ())
    assert paper.missing == ("authors",)
    assert linked("inside", "https://arxiv.org/abs/1706.03762v5").id == "transformer"
    assert linked("three", "a paper of its own").id == "own"
    with pytest.raises(ReadtrackError, match="names no paper"):
        linked("one", "https://example.org/")
    assert '        rows:\n          - text: "inside"' in library.home.papers_yaml.read_text()


def test_rows_of_markdown_with_an_id_become_papers(library: Library, tmp_path: Path) -> None:
    (tmp_path / "more.md").write_text(
        "## More\n"
        "- [ ] **[QLoRA](https://arxiv.org/abs/2305.14314)** (2023)\n"
        "- [x] LoRA, again: arXiv:2305.14314\n"
        "- [ ] A study, doi:10.1000/xyz\n"
        "- [ ] A blog (https://example.org/a)\n"
    )
    made = plan(library, tmp_path / "more.md")
    assert [one.status for one in made.found] == ["new", "duplicate", "new", "unknown"]
    apply(library, made)
    papers = library.catalog.papers
    assert papers["qlora"].title == "QLoRA"
    assert papers["qlora"].missing == ("title", "authors")  # the next sync fetches the paper's own title
    assert papers["study"].sources == (Source("doi", "10.1000/xyz"),)
    again = plan(library, tmp_path / "more.md")
    assert {one.status for one in again.found} == {"listed"}
    assert not again.changes(library)
    (tmp_path / "more.bib").write_text(
        "@misc{q, title={{QLoRA: Efficient Finetuning}}, author={Dettmers, Tim}, eprint={2305.14314},"
        " archiveprefix={arXiv}, year={2023}}\n@misc{s, title={A study}, doi={10.1000/xyz}, author={B, A}}\n"
    )
    made = plan(library, tmp_path / "more.bib")  # it has the facts that the sync would fetch
    apply(library, made)
    paper = library.catalog.papers["qlora"]
    assert (paper.title, paper.authors, paper.missing) == (
        "QLoRA: Efficient Finetuning",
        ("Tim Dettmers",),
        (),
    )
    assert library.catalog.papers["study"].authors == ("A B",)
    assert not plan(library, tmp_path / "more.bib").changes(library)


def test_a_row_that_the_reader_resolved_is_kept_next_to_another_of_its_paper(
    library: Library, tmp_path: Path
) -> None:
    (tmp_path / "more.md").write_text("## Now\n- [ ] fish and GQA\n- [ ] GQA, once more\n")
    library.home.papers_yaml.write_text(LIST.replace("[own]", "[gqa]"))
    library.reload()
    made = plan(library, tmp_path / "more.md", Choices({2: ["gqa"], 3: ["gqa"]}))
    assert [one.status for one in made.found] == ["matched", "duplicate"]
    apply(library, made)
    assert {row.text for row in library.catalog.rows_of("gqa")} == {"three", "fish and GQA", "GQA, once more"}
    assert "- [ ] fish and GQA\n- [ ] GQA, once more\n" in exporting.to_markdown(library)


def test_a_link_for_a_listed_title_is_added_to_its_paper(library: Library) -> None:
    added = add(library, "A Paper of Its Own https://arxiv.org/abs/2305.14314")
    assert (added.paper, added.linked) == ("own", "2305.14314")
    library.reload()
    assert library.catalog.papers["own"].sources == (Source("arxiv", "2305.14314"),)
    assert "own" in library.home.papers_yaml.read_text().partition("papers:\n")[2]
    added = add(library, "A Paper of Its Own https://example.org/own.pdf")
    library.reload()
    assert [source.kind for source in library.catalog.papers["own"].sources] == ["arxiv", "pdf"]
    with pytest.raises(ReadtrackError, match="on the list already"):
        add(library, "A Paper of Its Own https://example.org/other.pdf")


def test_a_damaged_history_is_ignored(library: Library) -> None:
    remove(library, "three")
    (library.home.cache / "list-history.json").write_text('{"done": [[1]]}')
    assert list_history.undo(library) is None
