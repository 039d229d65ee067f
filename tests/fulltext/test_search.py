"""The query language, and the full-text index over list, notes and PDFs."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hostile_pdfs import make_pdf
from hypothesis import given, settings
from hypothesis import strategies as st

from readtrack.cli import app
from readtrack.fulltext import pdf
from readtrack.fulltext.index import FullText
from readtrack.fulltext.pdf_child import joined
from readtrack.fulltext.query import And, Field, Not, Or, Word, parse, years
from readtrack.fulltext.searching import Matches, Search, doubt
from readtrack.fulltext.words import spans
from readtrack.home import Home
from readtrack.library import Library
from readtrack.reading_list.catalog import Row
from readtrack.reading_list.load import shipped
from readtrack.tui.controllers.search import SearchController

if TYPE_CHECKING:
    from readtrack.tui.app import ReadtrackApp


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
    index = FullText(library.home)
    index.refresh(library)
    return index


def found(library: Library, index: FullText, text: str) -> list[str]:
    return list(Search(library, index, text))


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("", And(())),
        ("a b", And((Word("a"), Word("b")))),
        ('"Two Words"', Word("two words", phrase=True)),
        ('"Two Wor', Word("two wor")),
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
        ("xylophones or zebras", "gpt2"),
        ("former", "transformer"),
        ("former year:2017", "transformer"),
        ("bert", "bert"),
        ("betr", "bert"),
        ("gpt", "gpt"),
        ("gan", "gan"),
        ("flash atention", "flashattention"),
        ("flahs attention", "flashattention"),
        ("flash-attn", "flashattention"),
        ("transformr", "transformer"),
        ("infini attention", "infini_attention"),
        ("christopher re", "ssm"),
        ("herbert robins", "sgd"),
        ("stochsatic aproximation", "sgd"),
        ('"exact attent', "flashattention"),
    ],
)
def test_finding(library: Library, index: FullText, text: str, first: str) -> None:
    assert found(library, index, text)[0] == first


@pytest.mark.parametrize("text", ["brt", '"flash atention"', '"former"', "bert robbins", "state:unheard"])
def test_texts_without_a_match(library: Library, index: FullText, text: str) -> None:
    assert found(library, index, text) == []


def test_every_id_and_every_alias_finds_its_paper_first(library: Library, index: FullText) -> None:
    for paper in library.catalog.papers.values():
        for name in (paper.id, *paper.aliases):
            assert found(library, index, name)[0] == paper.id, name


def test_whole_words_come_before_parts_of_words_and_titles_before_other_texts(
    library: Library, index: FullText
) -> None:
    library.tag("adam", "bert")
    order = found(library, index, "bert")
    assert order[:2] == ["bert", "roberta"]
    assert order[2] == "adam"  # by its tag, before papers with the word in their texts
    assert "longformer" in order[3:]
    assert "sgd" not in order  # by Herbert Robbins


def test_a_match_gives_the_text_to_highlight_and_its_place(library: Library, index: FullText) -> None:
    library.tag("adam", "marimba")
    (tagged,) = Matches(Search(library, index, "marimb")).values()
    assert tagged.note == "#marimba"
    assert Matches(Search(library, index, "kingma"))["adam"].note == "by Diederik P. Kingma"
    assert Matches(Search(library, index, "2017"))["transformer"].note == "2017"
    search = Search(library, index, "stochsatic")
    assert search.instead == {"stochsatic": "stochastic"}
    assert spans("A Stochastic Approximation Method", Matches(search)["sgd"].words) == [(2, 12)]


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
    (hit,) = Search(library, index, "zebras").hits(["bert"]).values()
    assert (hit.kind, hit.page) == ("pdf", 2)
    assert "\x01Zebras\x02 graze" in hit.snippet
    with pytest.raises(pdf.UnreadableError, match="is damaged"):
        pdf.page_count(library.home, library.home.pdfs / "rope.pdf")


@pytest.mark.parametrize(
    "text", ["transformer", "flash attention", "flashattention", "layer-norm", "a 16x16", "xylophone", "ré"]
)
def test_a_word_typed_letter_by_letter_finds_the_same_as_at_once(
    library: Library, index: FullText, text: str
) -> None:
    typed = [found(library, index, text[:end]) for end in range(1, len(text) + 1)]
    for end, papers in enumerate(typed, 1):
        fresh = FullText(library.home)
        fresh.settle(library)
        assert found(library, fresh, text[:end]) == papers
        fresh.close()


def test_the_tag_of_a_removed_row_is_not_found(
    library: Library, index: FullText, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "tagged", lambda: {"row:gone": {"marimba"}, "adam": {"marimba"}})
    search = Search(library, index, "marimb")
    assert list(search) == list(search.found) == ["adam"]


def test_changed_notes_and_gone_pdfs_are_seen(library: Library, index: FullText) -> None:
    library.save_note("gpt2", "about marimbas now, which is longer\n")
    (library.home.pdfs / "bert.pdf").unlink()
    index.refresh(library)
    assert found(library, index, "marimbas") == ["gpt2"]
    assert found(library, index, "xylophones") == []
    assert found(library, index, "zebras") == []


@pytest.mark.parametrize("damage", ["deleted", "rubbish", "torn", "other version"])
def test_a_damaged_index_is_rebuilt_without_loss(library: Library, index: FullText, damage: str) -> None:
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
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version = 99")
    again = FullText(library.home)
    again.refresh(library)
    assert {text: found(library, again, text) for text in before} == before


def test_a_file_that_is_damaged_under_an_open_index_is_made_again(library: Library, index: FullText) -> None:
    before = found(library, index, "gradient")
    (library.home.cache / "search.sqlite").write_bytes(b"rubbish" * 50_000)
    index.close()
    assert found(library, index, "gradient") == before


@pytest.mark.parametrize("trouble", ["no folder", "not a file", "full disk", "another program writes"])
def test_where_the_file_cannot_be_used_the_index_is_in_memory(
    library: Library, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    cache = library.home.cache
    if trouble == "no folder":
        shutil.rmtree(cache, ignore_errors=True)
        cache.write_text("a file")
    else:
        library.home.ensure(cache)
    if trouble == "not a file":
        (cache / "search.sqlite").mkdir()
    connect = sqlite3.connect
    if trouble == "full disk":

        def small(name: str, **options: Any) -> sqlite3.Connection:
            db = connect(name, **options)
            if name != ":memory:":
                db.execute("PRAGMA max_page_count = 30")
            return db

        monkeypatch.setattr(sqlite3, "connect", small)
    if trouble == "another program writes":
        FullText(library.home).settle(library)
        library.save_note("bert", "changed")
        monkeypatch.setattr(
            sqlite3, "connect", lambda name, **options: connect(name, **options | {"timeout": 0})
        )
        other = connect(cache / "search.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
    index = FullText(library.home)
    assert found(library, index, "former year:2017") == ["transformer"]
    index.refresh(library)
    assert found(library, index, "zebras") == ["bert"]
    assert found(library, index, "xylophones") == ["gpt2"]


# Fields, front ends and a changing list

WORDS = ("former", "attention", "a", "bert", "gan", "2017", "zebras", "xylophones", "transfromer", "memory")
FIELDS = (
    "state:reading",
    "state:todo",
    "tag:mem",
    "year:2017",
    "year:2014..2018",
    "author:a",
    "section:e",
    "can:run",
    "has:note",
    "has:pdf",
    "-year:2017",
    "claim:reproduced",
)
terms = st.one_of(
    st.sampled_from(WORDS), st.sampled_from(WORDS).map(lambda one: f'"{one}"'), st.sampled_from(FIELDS)
)
queries = st.recursive(
    terms,
    lambda some: st.one_of(
        st.tuples(some, some).map(" ".join),
        st.tuples(some, some).map(lambda two: f"({two[0]} or {two[1]})"),
        some.map(lambda one: f"not ({one})"),
    ),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """A library that no test changes."""
    library = Library.open(Home(tmp_path_factory.mktemp("still")), shipped())
    library.home.ensure(library.home.pdfs)
    (library.home.pdfs / "bert.pdf").write_bytes(make_pdf("Zebras graze, transfromer"))
    library.save_note("gpt2", "A remark about xylophones.")
    library.tag("lstm", "memory-lane")
    library.mark("adam", "reading")
    return library


@settings(max_examples=150, deadline=None)
@given(queries, st.sampled_from(FIELDS))
def test_a_field_only_narrows(still: Library, text: str, field: str) -> None:
    index = FullText(still.home)
    index.refresh(still)
    wide = found(still, index, text)
    narrow = found(still, index, f"{text} {field}")
    assert set(narrow) == set(wide) & set(found(still, index, field))
    if not field.startswith("-"):
        assert narrow == [one for one in found(still, index, f"{field} {text}") if one in wide]
    index.close()


@settings(max_examples=40, deadline=None)
@given(queries)
def test_the_filter_and_the_command_line_find_the_same_in_the_same_order(still: Library, text: str) -> None:
    filtered, _ = SearchController(cast("ReadtrackApp", SimpleNamespace(library=still))).find(text)
    searched = printed(still, "search", "--json", "-n", "1000", "--", text)
    assert [one["subject"] for one in searched["results"]] == list(filtered)
    rows = printed(still, "list", "--json", "--", text)
    listed = {paper["id"] for row in rows for paper in row["papers"]}
    on_list = {paper for _, row in still.catalog.walk() if isinstance(row, Row) for paper in row.papers}
    assert listed == set(filtered) & on_list


def printed(library: Library, *command: str) -> Any:
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.setenv("READTRACK_HOME", str(library.home.root))
        assert app.run(list(command)) == 0
    return json.loads(out.getvalue())


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.sets(st.integers(0, 11), min_size=1), min_size=2, max_size=3),
    st.lists(queries, min_size=5, max_size=5),
)
def test_a_reload_gives_the_results_of_a_fresh_start(
    tmp_path_factory: pytest.TempPathFactory, lists: list[set[int]], texts: list[str]
) -> None:
    """The list, a note and an abstract change while another process has its own index open."""
    home = Home(tmp_path_factory.mktemp("changing"))
    path = home.root / "papers.yaml"
    write_list(home, path, lists[0])
    library, other = Library.open(home, path), Library.open(home, path)
    index, theirs = FullText(home), FullText(home)
    for some in lists:
        before = [found(library, index, text) for text in texts]
        write_list(home, path, some)
        other.reload()
        other.save_note("paper_3", f"about zebras and {len(some)} xylophones") if 3 in some else None
        for text in texts:
            found(other, theirs, text)
        assert [one for one in before[0] if one not in library.catalog.papers] == []
        library.reload()
        index.ready = False  # as ctrl+r does
        fresh = FullText(Home(tmp_path_factory.mktemp("none") / "missing"))
        assert [found(library, index, text) for text in texts] == [
            found(library, fresh, text) for text in texts
        ]


def write_list(home: Home, path: Path, some: set[int]) -> None:
    names = {number: f"paper_{number}" for number in sorted(some)}
    rows = "".join(
        f"      - text: Row {WORDS[n % 10]}\n        papers: [{name}]\n" for n, name in names.items()
    )
    facts = "".join(
        f"  {name}:\n    title: The {WORDS[n % 10]} and trans{WORDS[n % 7]}\n    authors: [A. Author]\n"
        f'    year: {2010 + n}\n    sources: [{{arxiv: "1706.{n:05}"}}]\n'
        for n, name in names.items()
    )
    path.write_text(
        f"title: T\nchecklist:\n  - section: Every\n    rows:\n{rows}papers:\n{facts}", encoding="utf-8"
    )
    home.ensure(home.metadata)
    for n, name in names.items():
        (home.metadata / f"{name}.json").write_text(json.dumps({"abstract": f"attention {n * len(some)}"}))


def test_the_command(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["search", "zebras"]) == 0
    assert "p. 2: Zebras graze" in capsys.readouterr().out
    assert app.run(["search", "year:2017..2018", "author:vaswani", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["subject"] == "transformer"
    assert app.run(["search", "state:unheard"]) == 3
    assert "Available: todo, reading" in capsys.readouterr().err


def test_words_that_cannot_be_meant_are_doubted(library: Library) -> None:
    assert "year" in doubt(library, "year:soon")
    assert "memory-lane" in doubt(library, "tag:gpu")
    assert doubt(library, "tag:mem") == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("foo:bar", "There is no field 'foo'. Fields: state, tag, year, section, can, claim, author, has."),
        ("attention auther:bahdanau", "There is no field 'auther'; did you mean 'author'? Fields: state,"),
        ("-foo:bar attention foo:bar", "There is no field 'foo'"),
        ("https://nowhere.example", ""),
        ("arxiv:9999.99999", ""),
        ('"foo:bar"', ""),
    ],
)
def test_an_unknown_field_is_reported_with_the_known_ones(
    library: Library, index: FullText, text: str, told: str
) -> None:
    assert not Search(library, index, text).found
    assert (doubt(library, text) == "") == (told == "")
    assert doubt(library, text).startswith(told)


def test_pages_are_counted_and_joined(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "a.pdf"
    file.write_bytes(make_pdf("one", "two"))
    assert pdf.page_count(home, file) == 2
    assert pdf.pages(home, file) == [(1, "one"), (2, "two")]
    assert joined("atten-\r\ntion is\nall") == "attention is all"


@pytest.mark.timing
def test_a_key_in_a_list_of_ten_thousand_papers_takes_30_ms(tmp_path: Path) -> None:
    make = [sys.executable, "tests/big_home.py", str(tmp_path / "big"), "--runs", "0"]
    subprocess.run(make, check=True, cwd=Path(__file__).parents[2], timeout=120)
    library = Library.open(Home(tmp_path / "big"))
    gc.freeze()  # as the app does
    took: dict[str, list[float]] = {}
    for _ in range(3):
        index = FullText(library.home)
        index.refresh(library)
        for text in ("mat", "mator ralin", "former year:2017", "transfomer", "e t a"):
            for end in range(1, len(text) + 1):
                began = time.process_time()
                Matches(Search(library, index, text[:end]))
                took.setdefault(text[:end], []).append(time.process_time() - began)
    gc.unfreeze()
    assert {key: min(seconds) for key, seconds in took.items() if min(seconds) >= 0.03} == {}
