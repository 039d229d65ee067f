"""The query language, and the full-text index over list, notes and PDFs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hostile_pdfs import make_pdf
from hypothesis import given, settings
from hypothesis import strategies as st

from readtrack.cli import app
from readtrack.fulltext import pdf
from readtrack.fulltext.index import FullText
from readtrack.fulltext.pdf_child import joined
from readtrack.fulltext.query import And, Field, Not, Or, Word, is_simple, parse, years
from readtrack.fulltext.searching import Search, doubt
from readtrack.home import Home
from readtrack.library import Library
from readtrack.reading_list.load import shipped


@pytest.fixture
def library(home: Home) -> Library:
    home.ensure(home.pdfs)
    (home.pdfs / "bert.pdf").write_bytes(make_pdf("First page", "Zebras graze on the second page"))
    (home.pdfs / "rope.pdf").write_bytes(b"%PDF-1.4 damaged")
    library = Library.open(home, shipped())
    library.save_note("gpt2", "# Mine\nA remark about xylophones.\n")
    library.tag("lstm", "memory-lane")
    library.mark("adam", "reading")
    return library


@pytest.fixture
def index(library: Library) -> FullText:
    library.home.ensure(library.home.cache)
    index = FullText(library.home.cache / "search.sqlite")
    index.refresh(library)
    return index


def found(library: Library, index: FullText, text: str) -> list[str]:
    return list(Search(library, index, text).subjects())


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("", And(())),
        ("a b", And((Word("a"), Word("b")))),
        ('"Two Words"', Word("two words", phrase=True)),
        ("a or b c", Or((Word("a"), And((Word("b"), Word("c")))))),
        ("not (a or state:read)", Not(Or((Word("a"), Field("state", "read"))))),
        ("-tag:gpu", Not(Field("tag", "gpu"))),
        ("runnable", Field("can", "run")),
        ('section:"some research"', Field("section", "some research")),
        ("a or", Word("a")),
        ("(a", Word("a")),
        ("a) b", And((Word("a"), Word("b")))),
        ("not", And(())),
        ("state:", And(())),
        ("Ré AND x", And((Word("re"), Word("x")))),
        ("http://x", Word("http://x")),
    ],
)
def test_queries(text: str, node: object) -> None:
    assert parse(text) == node


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from(list("ab():\"-| notrOR\x00'*^")) | st.characters(), max_size=25))
def test_anything_is_a_query(text: str) -> None:
    parse(text)
    is_simple(text)


def test_years() -> None:
    assert [years(one) for one in ("2017", "2017..2020", "..2015", "2020..", "201", "x")] == [
        (2017, 2017),
        (2017, 2020),
        (0, 2015),
        (2020, 9999),
        (2010, 2019),
        None,
    ]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("flashattention", "flashattention"),
        ("attention is all", "transformer"),
        ("zebras graz", "bert"),
        ("xylophone", "gpt2"),
        ("memory-lane", "lstm"),
        ("author:kingma state:reading", "adam"),
        ("transfromer year:2017", "transformer"),
        ('"graze on the second"', "bert"),
        ("zebras or xylophones", "gpt2"),
    ],
)
def test_finding(library: Library, index: FullText, text: str, first: str) -> None:
    assert found(library, index, text)[0] == first


def test_fields_and_operators(library: Library, index: FullText) -> None:
    papers = library.catalog.papers
    everything = set(found(library, index, ""))
    assert set(found(library, index, "not state:reading")) == everything - {"adam"}
    span = found(library, index, "year:2017..2018")
    assert set(span) == {id_ for id_, paper in papers.items() if 2017 <= paper.year <= 2018}
    assert set(found(library, index, "can:run")) == everything & library.runnable().keys()
    assert found(library, index, "has:note") == ["gpt2"]
    assert found(library, index, "attention not attention") == []
    vision = found(library, index, "section:vision")
    assert "resnet" in vision
    assert "bert" not in vision
    verdicts = library.shipped_verdicts
    reproduced = {id_ for id_, all_ in verdicts.items() if any(one.verdict == "reproduced" for one in all_)}
    assert set(found(library, index, "claim:reproduced")) == reproduced & everything


def test_a_hit_in_a_pdf_names_its_page(library: Library, index: FullText) -> None:
    (result,) = Search(library, index, "zebras").results()
    assert result.hit is not None
    assert (result.hit.kind, result.hit.page) == ("pdf", 2)
    assert "\x01Zebras\x02 graze" in result.hit.snippet
    with pytest.raises(pdf.UnreadableError, match="is damaged"):
        pdf.page_count(library.home, library.home.pdfs / "rope.pdf")


def test_changed_notes_and_gone_pdfs_are_seen(library: Library, index: FullText) -> None:
    library.save_note("gpt2", "about marimbas now, which is longer\n")
    (library.home.pdfs / "bert.pdf").unlink()
    index.refresh(library)
    assert found(library, index, "marimbas") == ["gpt2"]
    assert found(library, index, "xylophones") == []
    assert found(library, index, "zebras") == []


@pytest.mark.parametrize("damage", ["deleted", "rubbish", "torn", "other version"])
def test_a_damaged_index_is_made_again_without_a_word_lost(
    library: Library, index: FullText, damage: str
) -> None:
    path = library.home.cache / "search.sqlite"
    before = {text: found(library, index, text) for text in ("zebras", "xylophones", "attention", "gradient")}
    index.close()
    if damage == "deleted":
        path.unlink()
    elif damage == "rubbish":
        path.write_bytes(b"rubbish" * 5000)
    elif damage == "torn":
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
    else:
        import sqlite3

        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version = 99")
    again = FullText(path)
    again.refresh(library)
    assert {text: found(library, again, text) for text in before} == before


def test_the_command(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["search", "zebras"]) == 0
    assert "p. 2: Zebras graze" in capsys.readouterr().out
    assert app.run(["search", "year:2017..2018", "author:vaswani", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["subject"] == "transformer"
    assert app.run(["search", "state:unheard"]) == 3
    assert "There is: todo, reading" in capsys.readouterr().err


def test_words_that_cannot_be_meant_are_doubted(library: Library) -> None:
    assert "year" in doubt(library, "year:soon")
    assert "memory-lane" in doubt(library, "tag:gpu")
    assert doubt(library, "tag:mem") == ""


def test_pages_are_counted_and_joined(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "a.pdf"
    file.write_bytes(make_pdf("one", "two"))
    assert pdf.page_count(home, file) == 2
    assert pdf.pages(home, file) == [(1, "one"), (2, "two")]
    assert joined("atten-\r\ntion is\nall") == "attention is all"
