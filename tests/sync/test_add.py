"""Adding papers: accepted input, fetched facts, and a list file that stays otherwise unchanged."""

from __future__ import annotations

import difflib
import json
import os
import textwrap
from pathlib import Path
from typing import Any

import pytest
from loopback import Paper, Server, page, status

from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.fulltext.index import FullText
from readtrack.fulltext.searching import Search
from readtrack.home import Home
from readtrack.library import Library
from readtrack.reading_list import load
from readtrack.reading_list.catalog import Source
from readtrack.reading_list.insert import NewPaper, without_ticks
from readtrack.reading_list.sources import make_id, parse
from readtrack.sync.add import add
from readtrack.sync.engine import Sync
from readtrack.transfer import exporting

LIST = """\
# my list
title: "Mine"   # a comment

checklist:
    - section: Optimisers
      rows:
          - text: "Adam: the paper"   # read it twice
            done: true
            papers: [adam]
          # more to come

    - section: Vision
      note: >-
        several
        lines

    # nothing here yet

# and now the papers
papers:
    adam:
        title: "Adam: A Method"
        authors: [Ada Example]
        year: 2014
        sources:
            - arxiv: "1412.6980v9"
            - doi: 10.1000/ADAM
        aliases: [adam-optimizer]
        idea: >-
            Two lines,
            folded.

    # the end
"""
ENTRY = NewPaper(
    "new_one", 'A "new": one # really', ("Ada Example", "Ré Muster"), 2021, "arxiv", "2101.00001"
)


@pytest.fixture
def mine(home: Home) -> Path:
    home.ensure()
    home.papers_yaml.write_text(LIST, encoding="utf-8")
    return home.papers_yaml


def added_lines(before: str, after: str) -> list[str]:
    """The added lines; fails if any line was removed or changed."""
    lines = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    assert not [line for line in lines if line.startswith("- ")]
    return [line[2:] for line in lines if line.startswith("+ ")]


@pytest.mark.parametrize(
    ("typed", "kind", "value"),
    [
        ("1706.03762", "arxiv", "1706.03762"),
        (" arXiv:1706.03762v5 ", "arxiv", "1706.03762v5"),
        ("https://arxiv.org/abs/1706.03762v2", "arxiv", "1706.03762v2"),
        ("http://www.arxiv.org/pdf/1706.03762.pdf", "arxiv", "1706.03762"),
        ("https://export.arxiv.org/pdf/1706.03762v1.pdf#page=2", "arxiv", "1706.03762v1"),
        ("https://arxiv.org/abs/2001.00001?context=cs", "arxiv", "2001.00001"),
        ("https://arxiv.org/html/2401.00001v1", "arxiv", "2401.00001v1"),
        ("https://arxiv.org/html/2401.00001v1/", "arxiv", "2401.00001v1"),
        ("arxiv.org/abs/2401.00001", "arxiv", "2401.00001"),
        ("cs/9901001", "arxiv", "cs/9901001"),
        ("https://arxiv.org/abs/math.gt/0309136", "arxiv", "math.GT/0309136"),
        ("10.48550/arXiv.1706.03762", "arxiv", "1706.03762"),
        ("https://doi.org/10.48550/ARXIV.1706.03762", "arxiv", "1706.03762"),
        ("10.1162/neco.1997.9.8.1735", "doi", "10.1162/neco.1997.9.8.1735"),
        ("doi:10.1000/a(b)c", "doi", "10.1000/a(b)c"),
        ("https://dx.doi.org/10.1000/a%2Fb", "doi", "10.1000/a/b"),
        ("https://example.org/a.PDF?x=1", "pdf", "https://example.org/a.PDF?x=1"),
        ("https://example.org/essay", "page", "https://example.org/essay"),
    ],
)
def test_valid_sources(typed: str, kind: str, value: str) -> None:
    assert parse(typed) == Source(kind, value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "typed", ["", "adam", "17060.3762", "1713.03762", "ftp://example.org/a.pdf", "10.x/y", "https://"]
)
def test_invalid_sources(typed: str) -> None:
    with pytest.raises(ReadtrackError, match="is not an arXiv id"):
        parse(typed)


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("FlashAttention: Fast and Memory-Efficient Exact Attention", "flashattention"),
        ("Attention Is All You Need", "attention_all_need"),
        (
            "On the Importance of Initialization and Momentum in Deep Learning",
            "importance_initialization_momentum_deep",
        ),
        ("1000 Layer Networks", "paper_1000_layer_networks"),
        ("Lambda", "paper_lambda"),
        ("Über Größe", "uber_grosse"),
        ("注意力", "paper"),
        ("Adam", "adam_2"),
    ],
)
def test_ids(title: str, expected: str) -> None:
    assert make_id(title, {"adam"}) == expected


def test_an_arxiv_paper(server: Server, mine: Path, clock: Any, home: Home) -> None:
    server.papers = {"2101.00001": Paper(title="GaLore:  a\n  title", version=3)}
    added = add(Library.open(home), "2101.00001")
    assert (added.paper, added.title, added.path, added.copied) == ("galore", "GaLore: a title", mine, False)
    paper = load.load(mine).papers["galore"]
    assert (paper.authors, paper.year, paper.arxiv_id) == (
        ("Ada Example", "Grace Example"),
        2017,
        "2101.00001",
    )
    assert paper.line == added.line
    metadata = Library.open(home).metadata("galore")
    assert metadata
    assert metadata["version"] == 3
    assert server.counts() == {"api": 1}


def test_the_next_sync_need_not_ask_again(
    server: Server, mine: Path, clock: Any, home: Home, sync: Any
) -> None:
    server.papers = {"2101.00001": Paper(title="GaLore"), "1412.6980": Paper(version=9)}
    add(Library.open(home), "2101.00001")
    sync("galore")
    assert server.counts() == {"api": 1, "pdf": 1}
    assert min(server.gaps()) > 2.999  # a single request rate for all


@pytest.mark.parametrize(
    "typed",
    ["1412.6980", "https://arxiv.org/abs/1412.6980v2", "doi:10.1000/adam", "10.48550/arXiv.1412.6980"],
)
def test_a_duplicate_is_named_before_anything_is_asked(
    server: Server, mine: Path, home: Home, typed: str
) -> None:
    with pytest.raises(
        NotAvailableError, match=r"on the list already: adam \(Adam: A Method\), papers.yaml:21"
    ):
        add(Library.open(home), typed)
    assert server.requests == []
    assert mine.read_text() == LIST


def test_a_duplicate_by_title(server: Server, mine: Path, clock: Any, home: Home) -> None:
    server.papers = {"2101.00001": Paper(title="ADAM — a méthod")}
    with pytest.raises(NotAvailableError, match="on the list already: adam"):
        add(Library.open(home), "2101.00001")
    assert mine.read_text() == LIST


def test_a_doi(server: Server, mine: Path, clock: Any, home: Home) -> None:
    document = {
        "title": "Long <i>Short-Term</i> Memory &amp; more",
        "author": [{"given": "Sepp", "family": "Example"}, {"literal": "A Group"}],
        "issued": {"date-parts": [[1997, 11]]},
        "abstract": "not ours to copy",
    }
    server.fail("/doi/10.1000/a(b)", status(200, json.dumps(document).encode()))
    added = add(Library.open(home), "10.1000/a(b)", section="vis")
    paper = load.load(mine).papers[added.paper]
    assert paper.title == "Long Short-Term Memory & more"
    assert (paper.authors, paper.year) == (("Sepp Example", "A Group"), 1997)
    assert paper.sources == (Source("doi", "10.1000/a(b)"),)
    assert server.requests[0].headers["accept"] == "application/vnd.citationstyles.csl+json"
    assert load.load(mine).sections[1].rows[0].text == "Long Short-Term Memory & more (1997)"  # type: ignore


def test_a_link_wants_a_title(server: Server, mine: Path, home: Home) -> None:
    with pytest.raises(ReadtrackError, match="does not name the paper"):
        add(Library.open(home), "https://example.org/a.pdf")
    added = add(Library.open(home), "https://example.org/a.pdf", title="A talk")
    assert added.missing == ("authors", "year")
    added = add(
        Library.open(home), "https://example.org/b", title="An essay", authors=["Ada Example"], year=1999
    )
    assert added.missing == ()
    own = [p for p in load.load(mine).papers.values() if p.line]
    assert [s.kind for p in own for s in p.sources][-2:] == ["pdf", "page"]
    with pytest.raises(NotAvailableError, match="on the list already: talk"):
        add(Library.open(home), "http://example.org/a.pdf", title="Another")
    assert server.requests == []


@pytest.mark.parametrize(
    ("typed", "title", "source"),
    [
        ("A Study of Nothing", "A Study of Nothing", None),
        ('"Nothing"', "Nothing", None),
        ("A talk https://example.org/a.pdf", "A talk", Source("pdf", "https://example.org/a.pdf")),
        ("A talk: (https://example.org/a.pdf).", "A talk", Source("pdf", "https://example.org/a.pdf")),
        ("https://example.org/a A talk", "A talk", Source("page", "https://example.org/a")),
        ("[A talk](https://example.org/a_(b))", "A talk", Source("page", "https://example.org/a_(b)")),
        ("GaLore https://arxiv.org/abs/2101.00001v2", "GaLore", Source("arxiv", "2101.00001v2")),
        ("GaLore - arXiv:2101.00001", "GaLore", Source("arxiv", "2101.00001")),
    ],
)
def test_a_title_and_a_link_typed_together(
    typed: str, title: str, source: Source | None, server: Server, mine: Path, clock: Any, home: Home
) -> None:
    server.fail("/api/query", status(404), forever=True)
    added = add(Library.open(home), typed)
    paper = load.load(mine).papers[added.paper]
    assert (paper.title, paper.sources) == (title, (source,) if source else ())
    assert "https" not in "".join(row.text for row in load.load(mine).rows_of(paper.id))


def test_the_link_next_to_a_title_identifies_the_paper(
    server: Server, mine: Path, clock: Any, home: Home
) -> None:
    added = add(Library.open(home), "That paper on weight decay https://arxiv.org/pdf/1711.05101")
    assert (added.paper, server.requests) == ("adamw", [])
    server.papers = {"2101.00001": Paper(title="Its own title")}
    assert add(Library.open(home), "My words 2101.00001").title == "Its own title"


def test_missing_facts_are_not_invented(mine: Path, home: Home) -> None:
    library = Library.open(home)
    added = add(library, "A Study of Nothing in Particular")
    assert (added.missing, added.fetched) == (("authors", "year"), "")
    assert "".join(line.strip() for line in added_lines(LIST, mine.read_text())) == (
        '- section: "Added"rows:- text: "A Study of Nothing in Particular"papers: [study_nothing_particular]'
        'study_nothing_particular:title: "A Study of Nothing in Particular"'
    )
    library.reload()
    paper = library.catalog.papers[added.paper]
    assert (paper.authors, paper.year, paper.sources, paper.by) == ((), 0, (), "")
    assert exporting.to_bibtex(library).split("\n\n")[-1] == (
        "@misc{studynothingparticular,\n  title = {{A Study of Nothing in Particular}},\n}\n"
    )
    assert '"A Study of Nothing in Particular"' not in exporting.to_csv(library)  # no comma, no quotes
    assert exporting.paper_facts(library, paper)["year"] is None
    summary = Sync(library, [paper.id], pdf=False).run()
    assert summary.states == {paper.id: "no source"}
    assert not Search(library, FullText(home), "study year:0000..2026").found
    assert list(Search(library, FullText(home), "study nothing")) == [paper.id]


def test_placeholders_of_older_lists_are_not_facts(mine: Path, home: Home) -> None:
    block = (
        '  talk:\n    title: "A talk"\n    authors: ["unknown"]\n    year: 2026\n'
        "    sources: [{page: https://example.org}]\n    missing: [authors, year]\n"
    )
    mine.write_text(LIST.rstrip("\n") + "\n" + textwrap.indent(block, "  "), encoding="utf-8")
    paper = load.load(mine).papers["talk"]
    assert (paper.authors, paper.year, paper.missing) == ((), 0, ("authors", "year"))


def test_hostile_facts(server: Server, mine: Path, clock: Any, home: Home) -> None:
    evil = 'x" \n- !!python/object:os.system "\u202e\u009b31m{}: [&a *a] \\ # \ufeff\uffff% @'
    server.papers = {"2101.00001": Paper(title=evil.replace("\uffff", ""))}
    add(Library.open(home), "2101.00001", title=evil)
    (paper,) = [p for p in load.load(mine).papers.values() if p.line and p.id != "adam"]
    assert paper.title == 'x" - !!python/object:os.system "31m{}: [&a *a] \\ # \ufeff\uffff% @'


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (status(404), "not found at"),
        (page(), "web page"),
        (status(429, Retry_After="3600"), "arXiv asks us to wait; no more requests until"),
    ],
)
def test_facts_that_cannot_be_fetched_are_missing(
    fault: Any, told: str, server: Server, mine: Path, clock: Any, home: Home
) -> None:
    server.fail("/api/query", fault, forever=True)
    added = add(Library.open(home), "2101.00001", title="Typed")
    assert told in added.unasked
    assert added.missing == ("authors",)  # the year follows from the id
    paper = load.load(mine).papers[added.paper]
    assert (paper.title, paper.year, paper.missing) == ("Typed", 2021, ("authors",))


def test_a_paper_with_a_block_and_without_a_row_gets_its_row(mine: Path, home: Home) -> None:
    mine.write_text(LIST.replace("            papers: [adam]\n", ""), encoding="utf-8")
    assert "adam" not in Library.open(home).listed
    add(Library.open(home), "adam")
    assert "adam" in Library.open(home).listed
    assert mine.read_text().count("    adam:\n") == 1


def test_an_id_that_arxiv_does_not_know(server: Server, mine: Path, clock: Any, home: Home) -> None:
    server.papers = {}
    with pytest.raises(NotAvailableError, match=r"2101.00001: arXiv does not know it \(asked twice\)"):
        add(Library.open(home), "2101.00001")
    assert len(server.requests) == 2


def test_offline(mine: Path, clock: Any, home: Home) -> None:
    added = add(Library.open(home), "2101.00001")
    assert "offline: arXiv cannot be found: the DNS lookup failed" in added.unasked
    assert added.missing == ("title", "authors")
    assert load.load(mine).papers[added.paper].title == "arXiv 2101.00001"


@pytest.mark.parametrize(
    "typed",
    [
        "adamw",
        "AdamW",
        "Decoupled Weight Decay Regularization",
        "1711.05101v2",
        "https://arxiv.org/abs/1711.05101",
    ],
)
def test_a_paper_that_ships_is_added_without_a_request(
    typed: str, server: Server, mine: Path, clock: Any, home: Home
) -> None:
    library = Library.open(home)
    assert "adamw" not in library.listed
    added = add(library, typed)
    assert (added.paper, added.missing, server.requests) == ("adamw", (), [])
    library.reload()
    assert "adamw" in library.listed
    assert added_lines(LIST, mine.read_text())[-1].strip() == "papers: [adamw]"
    with pytest.raises(NotAvailableError, match="on the list already: adamw"):
        add(library, typed)


def test_typed_facts_are_taken_without_asking(server: Server, mine: Path, clock: Any, home: Home) -> None:
    added = add(Library.open(home), "2101.00001", title="Typed", authors=["Ada Example"], year=2020)
    assert (added.missing, added.unasked, server.requests) == ((), "", [])


def test_after_a_refusal_papers_can_still_be_added(
    server: Server, mine: Path, clock: Any, home: Home
) -> None:
    server.fail("/api/query", status(403), forever=True)
    for number in (1, 2):  # the second one finds the lock held
        added = add(Library.open(home), f"2101.0000{number}")
        assert added.missing == ("title", "authors")
    assert add(Library.open(home), "adamw").paper == "adamw"


def test_the_next_sync_adds_the_missing_facts(server: Server, mine: Path, clock: Any, home: Home) -> None:
    library = Library.open(home)
    server.fail("/api/query", status(404))
    before = add(library, "2101.00001")
    assert before.missing
    server.papers = {"2101.00001": Paper(title="A found title")}
    library.reload()
    summary = Sync(library, [before.paper], pdf=False).run()
    assert summary.filled == [before.paper]
    assert "missing" not in mine.read_text()
    paper = load.load(mine).papers[before.paper]
    assert paper.title == "A found title"
    assert paper.authors != ("unknown",)
    (row,) = load.load(mine).rows_of(before.paper)
    assert row.text == f"A found title ({paper.year})"
    assert added_lines(LIST, mine.read_text())  # nothing else changed


def test_an_unregistered_doi(server: Server, mine: Path, clock: Any, home: Home) -> None:
    server.fail("/doi/10.1000/none", status(404), forever=True)
    with pytest.raises(NotAvailableError, match="the DOI registry does not know it"):
        add(Library.open(home), "10.1000/none")
    assert mine.read_text() == LIST


@pytest.mark.parametrize(
    ("name", "told"), [("adam", "taken"), ("adam-optimizer", "not an id"), ("class", "not an id")]
)
def test_an_impossible_id(name: str, told: str, mine: Path, home: Home) -> None:
    with pytest.raises(ReadtrackError, match=told):
        add(Library.open(home), "https://example.org/a.pdf", title="A talk", paper_id=name)


def test_a_section_that_is_not_there(server: Server, mine: Path, home: Home) -> None:
    with pytest.raises(ReadtrackError, match="no section is named like 'Visoin'; did you mean 'Vision'"):
        add(Library.open(home), "2101.00001", section="Visoin")
    assert server.requests == []


def test_the_list_that_ships_is_copied_first(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = load.shipped()
    before = shipped.read_bytes()
    library = Library.open(home)
    assert library.catalog.path == shipped
    added = add(library, "https://example.org/a.pdf", title="A talk", section="vision")
    assert (added.path, added.copied) == (home.papers_yaml, True)
    assert shipped.read_bytes() == before
    text = home.papers_yaml.read_text()
    assert "done: true" not in text  # the ticks belong to the list's author
    lines = added_lines(without_ticks(before.decode()), text)
    assert lines[0].startswith('      - text: "A talk"')
    assert lines[1] == "        papers: [talk]"
    assert len(Library.open(home).catalog.papers) == len(library.catalog.papers) + 1


def test_a_list_in_this_folder_is_copied_first(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = tmp_path / "papers.yaml"
    here.write_text(LIST)
    added = add(Library.open(home), "https://example.org/a.pdf", title="A talk")
    assert (added.path, added.copied) == (home.papers_yaml, True)
    assert here.read_text() == LIST


def test_a_link_to_the_list_stays_one(home: Home, tmp_path: Path) -> None:
    home.ensure()
    real = tmp_path / "dotfiles.yaml"
    real.write_text(LIST)
    real.chmod(0o600)
    home.papers_yaml.symlink_to(real)
    add(Library.open(home), "https://example.org/a.pdf", title="A talk")
    assert home.papers_yaml.is_symlink()
    assert "A talk" in real.read_text()
    assert os.stat(real).st_mode & 0o777 == 0o600
