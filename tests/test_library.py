"""The library: list, journal, notes, metadata, plugins and runs together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from readtrack.errors import ReadtrackError
from readtrack.fulltext.index import FullText
from readtrack.fulltext.searching import Search
from readtrack.home import Home
from readtrack.library import Library
from readtrack.reading_list import load
from readtrack.reading_list.catalog import CatalogError, Row
from readtrack.transfer import linking

LIST = """\
title: Notes
checklist:
  - section: Attention
    rows:
      - text: Transformer (Attention is all you need)
        done: true
        papers: [transformer, attention]
        rows:
          - text: Flash
            papers: [flashattention]
      - text: Hessian Matrix
      - text: Localization
        done: true
      - text: LSTM and friends
        papers: [lstm, gru, rnn]
papers:
  transformer:
    title: Attention Is All You Need
    authors: [Ashish Vaswani]
    year: 2017
    sources: [{arxiv: "1706.03762v5"}]
    builds_on: [attention]
  attention:
    title: Neural Machine Translation by Jointly Learning to Align and Translate
    authors: [Dzmitry Bahdanau]
    year: 2014
    sources: [{arxiv: "1409.0473"}, {arxiv: "1706.03762"}]
  flashattention:
    title: "FlashAttention: Fast and Memory-Efficient Exact Attention"
    authors: [Tri Dao, Christopher Ré]
    year: 2022
    sources: [{arxiv: "2205.14135"}, {arxiv: "2307.08691"}]
    aliases: [flash-attention, Flash]
    idea: Tiles that fit into fast memory.
  lstm:
    title: Long Short-Term Memory
    authors: [Sepp Hochreiter, Jürgen Schmidhuber]
    year: 1997
    sources: [{doi: 10.1162/neco.1997.9.8.1735}]
  gru:
    title: Learning Phrase Representations
    authors: [Kyunghyun Cho]
    year: 2014
    sources: [{arxiv: "1406.1078"}, {pdf: "https://example.org/Cho.pdf"}]
  rnn:
    title: Finding Structure in Time
    authors: [Jeffrey Elman]
    year: 1990
    sources: [{arxiv: cs/9901001}]
  pearlmutter:
    title: Fast Exact Multiplication
    authors: [Barak A. Pearlmutter]
    year: 1994
    sources: [{doi: 10.1162/neco.1994.6.1.147}, {arxiv: "1706.04454", note: a later survey}]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "papers.yaml"
    path.write_text(LIST)
    return path


@pytest.fixture
def library(home: Home, path: Path) -> Library:
    return Library.open(home, path)


def row(library: Library, text: str) -> Row:
    return next(
        item for _, item in library.catalog.walk() if isinstance(item, Row) and item.text.startswith(text)
    )


# States


def test_ticks_are_where_states_start(library):
    assert library.state("transformer") == library.state("attention") == "read"
    assert library.state("flashattention") == "todo", "a tick does not reach the rows below"
    assert library.state("row:localization") == "read"
    assert library.state("row:hessian-matrix") == "todo"
    assert library.since("transformer") is None


def test_the_journal_overrules_the_tick_and_the_undo_brings_it_back(library):
    library.mark("transformer", "todo")
    assert library.state("transformer") == "todo"
    assert library.since("transformer") is not None
    assert library.undo() == "transformer: no longer todo, back to read."
    assert library.state("transformer") == "read"
    assert library.since("transformer") is None
    assert library.undo() is None


def test_changes_are_there_the_next_time(library, home, path):
    library.mark("lstm", "implemented")
    library.tag("lstm", "#GPU")
    library.tag("lstm", "gpu")
    library.rate("lstm", 5)
    library.mark("row:hessian-matrix", "skipped")
    again = Library.open(home, path)
    assert (again.state("lstm"), again.tags("lstm"), again.rating("lstm")) == ("implemented", {"gpu"}, 5)
    assert again.state("row:hessian-matrix") == "skipped"
    assert len(home.journal.read_text().splitlines()) == 4, "saying it twice is one entry"
    again.change_tags("lstm", remove=["gpu"])
    again.rate("lstm", None)
    assert (again.tags("lstm"), again.rating("lstm")) == (set(), None)


def test_an_unchanged_state_is_not_written(library, home):
    library.mark("transformer", "read")
    assert library.since("transformer") is not None, "now it has a date"
    size = home.journal.stat().st_size
    library.mark("transformer", "read")
    library.change_tags("transformer", remove=["gpu"])
    library.rate("transformer", None)
    assert home.journal.stat().st_size == size


@pytest.mark.parametrize(
    ("states", "folded"),
    [
        (("todo", "todo", "todo"), "todo"),
        (("implemented", "implemented", "implemented"), "implemented"),
        (("skipped", "skipped", "skipped"), "skipped"),
        (("read", "implemented", "skipped"), "read"),
        (("implemented", "skipped", "skipped"), "read"),
        (("read", "todo", "todo"), "reading"),
        (("skipped", "todo", "todo"), "reading"),
        (("reading", "implemented", "read"), "reading"),
    ],
)
def test_a_row_takes_the_state_of_its_papers(library, states, folded):
    for paper, state in zip(("lstm", "gru", "rnn"), states, strict=True):
        library.mark(paper, state)
    assert library.row_state(row(library, "LSTM")) == folded


def test_a_row_is_marked_and_unmarked_as_one(library):
    library.mark("gru", "reading")
    lstm = row(library, "LSTM")
    library.mark_all(lstm.papers or (lstm.subject,), "read")
    assert library.row_state(lstm) == "read"
    assert library.undo() == "gru, lstm and rnn: no longer read, back to todo or reading."
    assert library.state("gru") == "reading"
    hessian = row(library, "Hessian")
    library.mark_all(hessian.papers or (hessian.subject,), "reading")
    assert library.row_state(hessian) == library.state("row:hessian-matrix") == "reading"


def test_undo_names_the_change(library):
    library.rate("lstm", 3)
    library.rate("lstm", 4)
    library.tag("gru", "gpu")
    library.change_tags("gru", remove=["gpu"])
    assert [library.undo() for _ in range(5)] == [
        "gru: tag gpu restored.",
        "gru: tag gpu removed.",
        "lstm: back to a rating of 3.",
        "lstm: back to no rating.",
        None,
    ]


@pytest.mark.parametrize(
    "act",
    [
        lambda library: library.mark("lstn", "read"),
        lambda library: library.mark_all(["gru", "lstn"], "read"),
        lambda library: library.tag("lstn", "gpu"),
        lambda library: library.rate("lstn", 3),
        lambda library: library.save_note("lstn", "text"),
        lambda library: library.note("lstn"),
        lambda library: library.metadata("lstn"),
        lambda library: library.pdf("lstn"),
    ],
)
def test_a_misspelt_subject_is_named_with_the_nearest(library, home, act):
    with pytest.raises(ReadtrackError, match="There is no paper 'lstn'; did you mean 'lstm'"):
        act(library)
    assert not home.journal.exists()


def test_a_misspelt_state_is_refused(library, home):
    with pytest.raises(ReadtrackError, match="'state' is not one of todo, reading, read"):
        library.mark("lstm", "red")
    assert not home.journal.exists()


def test_malformed_lines_of_the_journal_are_problems_not_errors(library, home, path):
    library.mark("lstm", "read")
    home.journal.write_bytes(home.journal.read_bytes() + b'{"at": "2026-')
    again = Library.open(home, path)
    assert again.problems == ["journal.jsonl:2: not a complete JSON line; skipped. You can delete the line"]
    assert again.state("lstm") == "read"
    library.reload()
    assert library.problems == again.problems


def test_two_libraries_see_each_other_after_a_reload(library, home, path):
    other = Library.open(home, path)
    other.mark("gru", "read")
    library.mark("rnn", "read")
    assert library.state("gru") == "read", "marking reads the journal again"
    path.write_text(LIST.replace("title: Notes", "title: Changed"))
    (home.plugins).mkdir(parents=True)
    assert "mine" not in library.runnable()
    (home.plugins / "mine.py").write_text("")
    library.reload()
    assert library.catalog.title == "Changed"
    assert "mine" in library.runnable()


def test_a_list_that_the_reader_adds_during_a_session_is_found(home, path, tmp_path, monkeypatch):
    """`readtrack add` in another terminal creates it on first use."""
    monkeypatch.chdir(tmp_path)  # path is ./papers.yaml here
    library = Library.open(home)
    given = Library.open(home, path)
    assert (library.list_path, library.catalog.path) == (path, path)
    home.ensure()
    home.papers_yaml.write_text(LIST.replace("title: Notes", "title: My own"))
    assert library.list_path == home.papers_yaml
    library.reload()
    assert (library.catalog.title, library.catalog.path) == ("My own", home.papers_yaml)
    given.reload()
    assert given.catalog.title == "Notes", "a list that was named stays the one"


def test_a_list_that_breaks_during_a_session_leaves_the_library_unchanged(library, path):
    library.mark("gru", "read")
    path.write_text(LIST.replace("checklist:", "checklst:"))
    with pytest.raises(CatalogError, match=r"papers.yaml:2: unknown key 'checklst'; did you mean"):
        library.reload()
    assert library.catalog.title == "Notes"
    assert library.state("gru") == "read"


# Finding


@pytest.mark.parametrize(
    ("query", "id_"),
    [
        ("lstm", "lstm"),
        (" LSTM ", "lstm"),
        ("flash", "flashattention"),
        ("Flash Attention", "flashattention"),
        ("FLASH-ATTENTION", "flashattention"),
        ("attention", "attention"),
        ("2205.14135", "flashattention"),
        ("2205.14135v3", "flashattention"),
        ("2307.08691", "flashattention"),
        ("arXiv:2205.14135", "flashattention"),
        ("https://arxiv.org/abs/2205.14135v1", "flashattention"),
        ("http://www.arxiv.org/pdf/2205.14135.pdf", "flashattention"),
        ("https://export.arxiv.org/pdf/2205.14135v2", "flashattention"),
        ("https://arxiv.org/html/2205.14135v2/", "flashattention"),
        ("1706.03762", "transformer"),
        ("1706.03762v1", "transformer"),
        ("cs/9901001v2", "rnn"),
        ("https://arxiv.org/abs/cs/9901001", "rnn"),
        ("10.1162/neco.1997.9.8.1735", "lstm"),
        ("doi:10.1162/NECO.1997.9.8.1735", "lstm"),
        ("https://doi.org/10.1162/neco.1997.9.8.1735", "lstm"),
        ("https://example.org/Cho.pdf", "gru"),
        ("Attention Is All You Need", "transformer"),
        ("all you need", "transformer"),
        ("jointly", "attention"),
    ],
)
def test_a_paper_is_found_by_id_link_or_title(library, query, id_):
    assert library.find(query).id == id_


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("learning", "'learning' is ambiguous: attention, gru. Name one of them."),
        ("flashatention", "There is no paper 'flashatention'; did you mean 'flashattention'?"),
        ("2205.99999", "There is no paper '2205.99999'; `readtrack list` shows all papers"),
        ("", "There is no paper ''; `readtrack list` shows all papers"),
        ("\x1b[31mx", "There is no paper 'x'; `readtrack list` shows all papers"),
    ],
)
def test_a_failed_search_names_the_nearest_or_the_candidates(library, query, said):
    with pytest.raises(ReadtrackError) as caught:
        library.find(query)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("text", "subjects"),
    [
        ("schmidhuber", {"lstm"}),
        ("JURGEN", {"lstm"}),
        ("christopher re", {"flashattention"}),
        ("flash-attention", {"flashattention"}),
        ("friends", {"lstm", "gru", "rnn"}),
        ("friends 2014", {"gru"}),
        ("hessian", {"row:hessian-matrix"}),
        ('"need attention"', set()),
        ('"all you need"', {"transformer", "attention"}),
        ('"finding stru', {"rnn"}),
        ("state:read", {"transformer", "attention", "row:localization"}),
        ("state:rea", {"transformer", "attention", "row:localization", "gru"}),
        ("state:todo friends", {"lstm", "rnn"}),
        ("state:nonsense", set()),
        ("tag:cuda", {"gru"}),
        ("tag:cu", {"gru"}),
        ("CUDA", {"gru"}),
        ("io-aware", {"flashattention"}),
        ("tiles", {"flashattention"}),
        ("runnable", {"lstm"}),
        ("runnable state:read", set()),
        ("nothing of the kind", set()),
    ],
)
def test_a_search_takes_every_word(library, home, monkeypatch, text, subjects):
    library.mark("gru", "reading")
    library.tag("gru", "cuda")
    home.metadata.mkdir(parents=True)
    (home.metadata / "flashattention.json").write_text(json.dumps({"abstract": "An IO-aware algorithm"}))
    monkeypatch.setattr(library, "runnable", lambda: {"lstm": "a plugin"})
    found = set(Search(library, FullText(home), text).found)
    assert found - (library.catalog.papers.keys() - library.listed.keys()) == subjects


def test_an_empty_search_finds_everything(library, home):
    assert set(Search(library, FullText(home), "  ").found) == {
        *library.catalog.papers,
        "row:hessian-matrix",
        "row:localization",
    }


def test_the_plugins_of_the_home_folder_can_be_run(library, home):
    home.plugins.mkdir(parents=True)
    (home.plugins / "lstm.py").write_text("raise SystemExit('nobody may import this')")
    assert library.runnable()["lstm"].origin == "user"


# Files


def test_a_note_is_a_file_that_other_programs_may_write_too(library, home):
    assert library.note("lstm") == ""
    assert library.note_path("lstm") == home.notes / "lstm.md"
    library.save_note("lstm", "# Gates\n\nForget gate: 2000.\n")
    assert library.note("lstm") == library.note_path("lstm").read_text() == "# Gates\n\nForget gate: 2000.\n"
    library.note_path("lstm").write_text("changed in an editor\n")
    assert library.note("lstm") == "changed in an editor\n"
    library.save_note("row:hessian-matrix", "second order")
    assert (home.notes / "row-hessian-matrix.md").read_text() == "second order"
    library.save_note("lstm", " \n")
    assert not library.note_path("lstm").exists()
    library.save_note("lstm", "")
    assert [path.name for path in home.notes.iterdir()] == ["row-hessian-matrix.md"]


def test_a_note_may_be_a_link_to_a_private_file(library, home, tmp_path):
    vault = tmp_path / "vault.md"
    vault.write_text("old")
    vault.chmod(0o600)
    home.notes.mkdir(parents=True)
    library.note_path("gru").symlink_to(vault)
    library.save_note("gru", "new")
    assert library.note_path("gru").is_symlink()
    assert (vault.read_text(), vault.stat().st_mode & 0o777) == ("new", 0o600)
    library.save_note("gru", " ")  # the link belongs to the reader and is kept
    assert library.note_path("gru").is_symlink()
    assert (vault.read_text(), library.note("gru")) == ("", "")


def test_a_note_that_is_not_utf8_is_shown_but_not_overwritten(library, home):
    home.notes.mkdir(parents=True)
    library.note_path("lstm").write_bytes(b"caf\xe9")
    assert library.note("lstm") == "caf\N{REPLACEMENT CHARACTER}"
    with pytest.raises(ReadtrackError, match="is not UTF-8"):
        library.save_note("lstm", library.note("lstm"))
    assert library.note_path("lstm").read_bytes() == b"caf\xe9"


def test_a_note_that_cannot_be_written_is_one_line(library, home):
    home.ensure(home.notes / "lstm.md")
    with pytest.raises(ReadtrackError, match=r"Could not write the note .*lstm\.md: Is a directory\.$"):
        library.save_note("lstm", "text")
    with pytest.raises(ReadtrackError, match=r"Could not read the note .*lstm\.md: Is a directory\.$"):
        library.note("lstm")


def test_metadata_is_safe_to_print_and_damage_counts_as_not_fetched(library, home):
    assert library.metadata("lstm") is None
    home.metadata.mkdir(parents=True)
    file = home.metadata / "lstm.json"
    hostile = {
        "title": "\x1b]0;owned\x07LSTM",
        "authors": ["\x9bA"],
        "version": 3,
        "\x1b[1mk": {"x": "\x07y"},
    }
    file.write_text(json.dumps(hostile))
    assert library.metadata("lstm") == {"title": "LSTM", "authors": ["A"], "version": 3, "k": {"x": "y"}}
    for damage in (b"", b"{", b"[]", b"\xff", b"[" * 100_000):
        file.write_bytes(damage)
        assert library.metadata("lstm") is None


@pytest.mark.parametrize(
    ("paper_id", "link"),
    [
        ("flashattention", "https://arxiv.org/pdf/2205.14135"),
        ("transformer", "https://arxiv.org/pdf/1706.03762v5"),
        ("lstm", "https://doi.org/10.1162/neco.1997.9.8.1735"),
        ("pearlmutter", "https://doi.org/10.1162/neco.1994.6.1.147"),  # the paper itself, not the survey
    ],
)
def test_a_paper_that_is_not_here_can_be_read_on_the_web(library, paper_id, link):
    assert library.link(library.catalog.papers[paper_id]) == link


def test_a_pdf_is_there_or_not(library, home):
    assert library.pdf("lstm") is None
    home.pdfs.mkdir(parents=True)
    (home.pdfs / "lstm.pdf").write_bytes(b"%PDF-1.7")
    assert library.pdf("lstm") == home.pdfs / "lstm.pdf"


def test_results_are_the_runs_of_the_home_folder(library, home):
    assert library.results() == []
    for run_id, paper in (("20260101-000000-lstm-aaaa", "lstm"), ("20260102-000000-gru-bbbb", "gru")):
        folder = home.ensure(home.runs / run_id)
        events = [
            {
                "event": "hello",
                "run_id": run_id,
                "paper": paper,
                "at": f"{run_id[:4]}-01-0{run_id[7]}T00:00:00+00:00",
            },
            {"event": "end", "outcome": "completed", "detail": ""},
        ]
        job = {"run_id": run_id, "paper": paper, "created": events[0]["at"]}
        (folder / "job.json").write_text(json.dumps(job))
        (folder / "events.jsonl").write_text(
            "".join(
                json.dumps({"v": 1, "seq": i, "t": 0.0, **event}) + "\n" for i, event in enumerate(events)
            )
        )
    assert [run.paper for run in library.results()] == ["gru", "lstm"]
    assert [run.run_id for run in library.results("lstm")] == ["20260101-000000-lstm-aaaa"]


# Opening


def test_without_arguments_it_opens_the_readers_list_or_the_one_that_ships(home, path):
    assert len(Library.open().catalog.papers) > 80
    home.ensure()
    home.papers_yaml.write_text(LIST)
    assert Library.open().catalog.title == "Notes"


def test_opening_it_again_imports_no_heavy_module(library, home, path):
    home.ensure()  # without a home, nothing is stored
    library.reload()
    code = (
        "import sys; from pathlib import Path; from readtrack.library import Library\n"
        "from readtrack.fulltext.index import FullText; from readtrack.fulltext.searching import Search\n"
        f"library = Library.open(papers_yaml=Path({str(path)!r}))\n"
        "library.runnable(), Search(library, FullText(library.home), 'lstm'), library.row_state\n"
        "heavy = {'torch', 'numpy', 'textual', 'rich', 'yaml', 'filelock', 'platformdirs', 'psutil'}\n"
        "print(heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_redo_repeats_undone_changes_in_order(library: Library) -> None:
    papers = sorted(library.catalog.papers)[:2]
    assert library.redo() is None
    library.mark_all(papers, "reading")
    library.tag(papers[0], "gpu")
    library.rate(papers[1], 4)
    for _ in range(3):
        assert library.undo()
    assert library.rating(papers[1]) is None
    assert library.tags(papers[0]) == set()
    assert library.redo() == f"{papers[0]} and {papers[1]}: reading again."
    assert library.redo() == f"{papers[0]}: tag gpu restored."
    assert library.redo() == f"{papers[1]}: rated 4 again."
    assert library.redo() is None
    assert [library.state(paper) for paper in papers] == ["reading", "reading"]
    assert (library.tags(papers[0]), library.rating(papers[1])) == ({"gpu"}, 4)
    # Then an undo reverts the last of them, and a change makes a redo impossible.
    assert library.undo() == f"{papers[1]}: back to no rating."
    library.mark(papers[0], "read")
    assert library.redo() is None


def test_ticks_in_a_clone_are_its_authors(
    home: Home, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This applies to a clone of readtrack, and of any repository with a list."""
    monkeypatch.chdir(tmp_path)
    library = Library.open(home)
    assert library.list_path == path
    assert library.state("transformer") == "todo"
    assert library.shows_shipped_list
    library.mark("transformer", "read")
    assert library.state("transformer") == "read"
    linking.link(library, linking.find_row(library, "Hessian Matrix"), ["hessian"])
    assert path.read_text() == LIST  # creates the reader's own list
    assert library.list_path == home.papers_yaml
    assert "done: true" not in home.papers_yaml.read_text()
    assert library.state("attention") == "todo"


def test_a_list_that_was_named_is_the_readers(home: Home, path: Path) -> None:
    assert Library.open(home, path).state("transformer") == "read"


def test_the_checkouts_own_list_is_not_the_readers(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(load.shipped().parent)
    library = Library.open(home)
    assert not library.is_readers
    assert any(row.done for _, row in library.catalog.walk() if isinstance(row, Row))
    assert {library.state(paper) for paper in library.listed} == {"todo"}
