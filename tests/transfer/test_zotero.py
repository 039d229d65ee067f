"""Import and export of a Zotero library: each entry is exported unchanged, under the paper that the reader
chose.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pytest

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
    # Three entries are one paper, each with its own key; excluded entries stay excluded.
    exported = exporting.to_bibtex(library).strip().split("\n\n")
    whole = [one for one in entries[:4] if "author" in one]
    assert [one for one in exported if one in whole] == whole
    assert sorted(one.partition(",")[0] for one in exported) == sorted(
        one.partition(",")[0] for one in entries[:4]
    )
    # A stub without authors keeps its key and gets the work's title.
    stub = next(one for one in exported if "mine" in one)
    assert stub.startswith(
        "@misc{mine, title={{Attention Is All You Need}}, year=2017,\n  author = {Ashish Vaswani and "
    )
    assert "  eprint = {1706.03762},\n" in stub

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


def test_the_readers_own_link_overrides_imported_ones(tmp_path: Path, home: Home) -> None:
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
        assert list(Search(library, FullText(home), query)) == [paper.id], query


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


def test_an_arxiv_id_in_the_journal_is_the_papers(tmp_path: Path, home: Home) -> None:
    """biblatex and Google Scholar write such entries."""
    text = "@article{l, title={LoRA}, author={Hu, Edward}, %s={arXiv preprint arXiv:2106.09685 [cs.CL]}}\n"
    for number, name in enumerate(("journaltitle", "journal")):
        one = bibtex.read(text % name).entries[0]
        assert [source.url for source in one.sources] == ["https://arxiv.org/abs/2106.09685"], number


@pytest.mark.parametrize(
    ("raw", "fields", "expected"),
    [
        ("@misc{a}", {"author": "Q"}, "@misc{a,\n  author = {Q}\n}"),
        ('@misc{a, title="A, {B}", year=2017}', {"title": "C"}, "@misc{a, title={C}, year=2017}"),
        ("@misc{a, title={A \\{ B}, year=x # y,\n}", {"year": "1"}, "@misc{a, title={A \\{ B}, year={1},\n}"),
        (
            "@misc{a, n={x, title = {y}}, title={z}}",
            {"title": "w"},
            "@misc{a, n={x, title = {y}}, title={w}}",
        ),
        ("@misc{a, readstatus={read}, year=1}", {"readstatus": ""}, "@misc{a, year=1}"),
    ],
)
def test_only_the_fields_of_an_entry_change(raw: str, fields: dict[str, str], expected: str) -> None:
    assert bibtex.with_fields(raw, fields) == expected


def test_the_state_of_an_imported_entry_is_exported(tmp_path: Path, home: Home) -> None:
    bring(zotero(tmp_path))
    library = Library.open(home)
    library.mark("transformer", "read")
    entry = exporting.entry(library, library.catalog.papers["transformer"])
    assert entry.endswith(",\n  readstatus = {read}\n}")
    assert bibtex.read(entry).entries[0].is_read
    library.mark("transformer", "todo")
    assert exporting.entry(library, library.catalog.papers["transformer"]) == ZOTERO.split("\n\n")[0]


def test_an_alias_that_names_a_field_needs_a_choice_in_both_formats(tmp_path: Path, home: Home) -> None:
    (tmp_path / "a.md").write_text("- [ ] Diffusion\n- [ ] GPT\n- [ ] GPT (2023)\n")
    entries = "@misc{a, title={Diffusion}}\n@misc{b, title={GPT}}\n@misc{c, title={GPT}, year=2023}\n"
    (tmp_path / "a.bib").write_text(entries)
    for name in ("a.md", "a.bib"):
        found = importing.plan(Library.open(home), tmp_path / name).found
        seen = [(one.status, one.papers or one.candidates) for one in found]
        assert seen == [("ambiguous", ("ddpm",)), ("matched", ("gpt",)), ("ambiguous", ("gpt",))], name


def test_rows_without_an_entry_are_named(tmp_path: Path, home: Home) -> None:
    (tmp_path / "a.md").write_text("- [ ] BERT\n- [ ] ask Ada about this\n")
    library = Library.open(home)
    importing.apply(library, importing.plan(library, tmp_path / "a.md"))
    said = "1 row has no paper and so no entry: 'ask Ada about this'. Link the rows to papers first."
    assert exporting.unsaid(library, "bibtex") == [said]
    assert exporting.unsaid(library, "csv") == []


def test_entries_stay_in_the_order_of_their_file_and_others_follow(tmp_path: Path, home: Home) -> None:
    earlier = tmp_path / "mine.md"
    earlier.write_text("- [ ] BERT\n- [ ] Mamba\n", encoding="utf-8")
    bring(earlier)
    bring(zotero(tmp_path, "\n@misc{b, title={Notes}, year={2020}}\n\n@misc{a, author={Devlin, Jacob},\n"
                           " title={BERT}, year={2018}}\n"))  # fmt: skip
    keys = [one.key for one in bibtex.read(exporting.to_bibtex(Library.open(home))).entries]
    assert keys == ["b", "a", "gu2023mamba"]
    assert exporting.to_bibtex(Library.open(home)).startswith("\n@misc{b, title={Notes}, year={2020}}\n\n")


def test_rows_of_a_second_file_without_headings_get_its_name(tmp_path: Path, home: Home) -> None:
    first, second = tmp_path / "a.md", tmp_path / "b.md"
    first.write_text("# Mine\n\n## Now\n- [ ] BERT\n", encoding="utf-8")
    second.write_text("- [ ] Mamba\n- [ ] a talk\n", encoding="utf-8")
    bring(first)
    bring(second)
    library = Library.open(home)
    assert [one.title for one in library.catalog.sections] == ["Now", "From b.md"]
    expected = first.read_text(encoding="utf-8") + "\n## From b.md\n" + second.read_text(encoding="utf-8")
    assert exporting.to_markdown(library) == expected
