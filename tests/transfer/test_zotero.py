"""A Zotero library in and out: each entry comes back as written, under the paper that the reader chose."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from readtrack.fulltext.index import FullText
from readtrack.fulltext.searching import Search
from readtrack.home import Home
from readtrack.library import Library
from readtrack.sync.add import add
from readtrack.transfer import bibtex, exporting, importing, linking

ZOTERO = """\
@article{vaswani, title={Attention Is All You Need}, year=2017, author={Vaswani, Ashish}}

@book{goodfellow, title={Deep Learning}, author={Goodfellow, Ian}, keywords={textbook},
  abstract={An introduction to nets.}}

@misc{mine, title={What I call the Transformer}, year=2017}

@misc{other, title={Attention is all you need (preprint)}, eprint={1706.03762}, year=2017}

@misc{out, title={Left out of the list}, year=2001, doi={10.1234/out}}
"""


def bring(file: Path, papers: Mapping[int, Sequence[str]] | None = None, out: Collection[int] = ()) -> None:
    library = Library.open()
    importing.apply(library, importing.plan(library, file, importing.Choices(papers or {}, out)))


def zotero(tmp_path: Path, text: str = ZOTERO) -> Path:
    file = tmp_path / "zotero.bib"
    file.write_text(text, encoding="utf-8")
    return file


def lines_of(text: str) -> dict[str, int]:
    return {one.key: one.line for one in bibtex.read(text).entries}


def test_an_entry_linked_to_a_paper_of_another_row_is_exported_as_it_was(tmp_path: Path, home: Home) -> None:
    file, lines = zotero(tmp_path), lines_of(ZOTERO)
    bring(file, {lines["vaswani"]: ["transformer"], lines["mine"]: ["transformer"]}, [lines["out"]])
    library = Library.open(home)
    entries = ZOTERO.strip().split("\n\n")
    # Three entries are one paper, each with its own key; what was left out stays so.
    assert sorted(exporting.to_bibtex(library).strip().split("\n\n")) == sorted(entries[:4])
    assert exporting.entry(library, library.catalog.papers["transformer"]) == entries[0]
    assert not importing.plan(library, file, importing.Choices(left_out=[lines["out"]])).changes(library)


def test_a_second_import_links_an_entry_to_a_paper_that_is_listed(tmp_path: Path, home: Home) -> None:
    file, lines = zotero(tmp_path), lines_of(ZOTERO)
    bring(file, {lines["vaswani"]: ["transformer"]}, [lines["mine"]])
    library = Library.open(home)
    assert "@misc{mine" not in exporting.to_bibtex(library)
    made = importing.plan(library, file, importing.Choices({lines["mine"]: ["transformer"]}))
    assert made.changes(library)
    importing.apply(library, made)
    assert "@misc{mine" in exporting.to_bibtex(Library.open(home))


def test_choosing_a_paper_of_a_row_with_several_leaves_that_row_alone(tmp_path: Path, home: Home) -> None:
    listed = tmp_path / "list.md"
    listed.write_text("- [ ] transformer and bert\n", encoding="utf-8")
    bring(listed)
    file, lines = zotero(tmp_path), lines_of(ZOTERO)
    bring(file, {lines["mine"]: ["transformer"]})
    rows = {row.text: row.papers for row in Library.open(home).catalog.rows_of("transformer")}
    assert rows["transformer and bert"] == ("transformer", "bert")


def test_the_readers_own_link_goes_before_what_was_imported(tmp_path: Path, home: Home) -> None:
    bring(zotero(tmp_path))
    library = Library.open(home)
    linking.link(library, linking.find_row(library, "Deep Learning"), ["bert"])
    assert exporting.entry(library, library.catalog.papers["bert"]).startswith("@book{goodfellow")


def test_an_entry_that_readtrack_does_not_know_keeps_its_facts(tmp_path: Path, home: Home) -> None:
    bring(zotero(tmp_path))
    library = Library.open(home)
    (row,) = [one for _, one in library.catalog.walk() if getattr(one, "text", "") == "Deep Learning"]
    paper = library.catalog.papers[row.papers[0]]
    assert (paper.authors, paper.year, paper.sources) == (("Ian Goodfellow",), 0, ())
    assert library.tags(paper.id) == {"textbook"}
    assert library.metadata(paper.id)["abstract"] == "An introduction to nets."
    for query in (
        "ian goodfellow textbook",
        "author:goodfellow introduction",
        "introduction nets",
        "tag:textbook",
        "textbook",
    ):
        assert list(Search(library, FullText(home), query).found) == [paper.id], query


def test_headings_that_the_file_does_not_have_stay_out_of_it(tmp_path: Path, home: Home) -> None:
    file = tmp_path / "notes.md"
    file.write_text("# Mine\n\n- [ ] Adam\n- [ ] Something of my own\n", encoding="utf-8")
    bring(file)
    bring(zotero(tmp_path))
    library = Library.open(home)
    add(library, "rope")
    library.reload()
    library.mark("adam", "read")
    lines = exporting.to_markdown(library).splitlines()
    assert lines[:4] == ["# Mine", "", "- [x] Adam", "- [ ] Something of my own"]
    assert not [line for line in lines if line.startswith("##")]
    assert lines[-1].startswith("- [ ] RoFormer")
