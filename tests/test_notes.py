"""Notes from a template, quotes from PDFs, and repairs of a home."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from readtrack import notes, upkeep
from readtrack.cli import app
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.home import Home
from readtrack.library import Library
from readtrack.reading_list.load import shipped

PDF = b"""%PDF-1.4
1 0 obj
<< /Type /Catalog /Pages 2 0 R >>
endobj
2 0 obj
<< /Type /Pages /Kids [4 0 R] /Count 1 >>
endobj
3 0 obj
<< /Length 74 >>
stream
BT /F1 12 Tf 40 700 Td (The Quick-Brown Fox jumps over the lazy dog.) Tj ET
endstream
endobj
4 0 obj
<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents 3 0 R
/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>
endobj
trailer << /Size 5 /Root 1 0 R >>
%%EOF
"""


@pytest.fixture
def library(home: Home) -> Library:
    home.ensure(home.pdfs)
    (home.pdfs / "bert.pdf").write_bytes(PDF)
    return Library.open(home, shipped())


def test_a_note_begins_with_the_template_and_an_untouched_one_goes(library: Library) -> None:
    assert notes.begin(library, "bert") == ""
    notes.template(library.home).write_text("# {title} ({year})\n{unknown} {date}\n", encoding="utf-8")
    begun = notes.begin(library, "bert")
    assert begun.startswith("# BERT: Pre-training")
    assert "{unknown}" in begun
    notes.settle(library, "bert", begun)
    assert library.note("bert") == ""
    begun = notes.begin(library, "bert")
    library.save_note("bert", begun + "mine\n")
    notes.settle(library, "bert", begun)
    assert library.note("bert").endswith("mine\n")
    assert notes.begin(library, "bert") == ""


def test_a_quote_is_found_and_kept_once(library: Library) -> None:
    library.save_note("bert", "before\n")
    found = notes.highlight(library, "bert", "quick brown  FOX", comment="a fox")
    assert found == notes.Highlight(1, "Quick-Brown Fox")
    assert notes.highlight(library, "bert", "quickbrown fox") is None
    assert library.note("bert") == "before\n\n> Quick-Brown Fox (p. 1)\n\na fox\n"
    assert notes.highlights(library.note("bert")) == [found]
    with pytest.raises(ReadtrackError, match="does not contain"):
        notes.highlight(library, "bert", "a cat")
    with pytest.raises(NotAvailableError, match="of gpt2 is not here"):
        notes.highlight(library, "gpt2", "anything")
    assert notes.highlight(library, "gpt2", "anything", page=3) == notes.Highlight(3, "anything")


def test_every_fault_is_named_and_mended(library: Library, capsys: pytest.CaptureFixture[str]) -> None:
    home = library.home
    library.mark("bert", "read")
    with home.journal.open("ab") as file:
        file.write(b"torn {\n")
    for folder in (home.metadata, home.notes, home.runs / "half", home.cache):
        home.ensure(folder)
    (home.metadata / "bert.json").write_text("{", encoding="utf-8")
    (home.notes / "nobody.md").write_text("words\n", encoding="utf-8")
    (home.notes / "gpt2.md").write_text(" \n", encoding="utf-8")
    (home.pdfs / "rope.pdf").write_bytes(b"no pdf")
    (home.cache / "search.sqlite").write_bytes(b"rubbish" * 1000)
    topics = [one.topic for one in upkeep.findings(Library.open(home))]
    assert topics == ["journal", "notes", "notes", "metadata", "pdfs", "runs", "search"]
    for one in upkeep.findings(Library.open(home)):
        if one.mend is not None:
            one.mend()
    left = [one.text for one in upkeep.findings(Library.open(home))]
    assert left == ["nobody.md belongs to no paper on the list"]
    assert (home.root / "set-aside" / "journal.jsonl").read_bytes() == b"torn {\n"
    assert (home.root / "set-aside" / "pdfs" / "rope.pdf").read_bytes() == b"no pdf"
    assert Library.open(home).state("bert") == "read"


def test_a_reworded_row_keeps_its_states_and_links(tmp_path: Path, home: Home) -> None:
    file = tmp_path / "list.md"
    file.write_text("- [ ] Try the famous recipe of my aunt\n- [ ] other\n", encoding="utf-8")
    assert app.run(["import", str(file), "--yes"]) == 0
    library = Library.open(home)
    (row,) = [subject for subject in library.bare_rows() if "recipe" in subject]
    library.mark(row, "reading")
    library.save_note(row, "salt\n")
    text = home.papers_yaml.read_text(encoding="utf-8")
    home.papers_yaml.write_text(
        text.replace("Try the famous recipe of my aunt", "Bake bread"), encoding="utf-8"
    )
    (orphan,) = Library.open(home).orphans
    assert app.run(["adopt", orphan, "bake"]) == 0
    library = Library.open(home)
    (row,) = [subject for subject in library.bare_rows() if "bake" in subject]
    assert (library.state(row), library.note(row)) == ("reading", "salt\n")
    assert library.orphans == {}


def test_a_row_gets_the_state_of_one_of_its_twins(home: Home) -> None:
    home.ensure()
    rows = '      - text: "Watch it"\n'
    text = f'title: "Mine"\nchecklist:\n  - section: "Talks"\n    rows:\n{rows}{rows}papers: {{}}\n'
    home.papers_yaml.write_text(text, encoding="utf-8")
    library = Library.open(home)
    first, second = library.bare_rows()
    library.mark(first, "read")
    library.tag(first, "gpu")
    library.rate(first, 4)
    library.mark(second, "skipped")
    home.papers_yaml.write_text(text.replace(rows, "", 1), encoding="utf-8")
    library = Library.open(home)
    (row,) = library.bare_rows()
    assert (library.state(row), sorted(library.orphans)) == ("todo", sorted([first, second]))
    assert app.run(["adopt", first, "watch"]) == 0
    library = Library.open(home)
    assert (library.state(row), library.tags(row), library.rating(row)) == ("read", {"gpu"}, 4)
    assert list(library.orphans) == [second]


def test_fixing_by_command_leaves_a_home_in_order(
    library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    library.mark("bert", "read")
    with library.home.journal.open("ab") as file:
        file.write(json.dumps({"at": "never"}).encode() + b"\n")
    app.run(["doctor", "--fix"])
    assert "fixed journal" in capsys.readouterr().out
    assert not Library.open(library.home).problems


# Several writers


def test_paragraphs_and_quotes_written_at_once_are_all_there(library: Library) -> None:
    commands = [["note", "bert", f"paragraph {number}"] for number in range(4)]
    commands += [["highlight", "bert", f"quote {number}", "--page", "1"] for number in range(4)]
    (library.home.pdfs / "bert.pdf").unlink()
    writers = [subprocess.Popen([sys.executable, "-m", "readtrack", *command]) for command in commands]
    assert [writer.wait(60) for writer in writers] == [0] * 8
    words = library.note("bert").splitlines()
    assert {f"paragraph {number}" for number in range(4)} <= set(words)
    assert {f"> quote {number} (p. 1)" for number in range(4)} <= set(words)


def test_a_note_that_another_program_holds_is_not_written(library: Library, monkeypatch) -> None:
    lock = library.home.lock
    monkeypatch.setattr(library.home, "lock", lambda name: lock(name, timeout=0.05))
    with (
        lock("notes"),
        pytest.raises(
            ReadtrackError, match=r"Another program has held the lock on .*notes\.lock for too long"
        ),
    ):
        library.add_to_note("bert", "text")
    assert library.note("bert") == ""


@pytest.mark.parametrize(
    ("before", "edited", "now", "expected"),
    [
        ("a\n", "a\nb", "a\n", "a\nb"),
        ("a\n", "a\nb", "a\n\nc\n", "a\nb\n\nc\n"),
        ("", "b", "c\n", "b\n\nc\n"),
        ("a\n", "", "a\n\nc\n", "c\n"),
        ("a\n", "a b\n", "x\n", "a b\n\n(Changed by another program at the same time:)\n\nx\n"),
        ("a\n", "a b\n", "", "a b\n"),
    ],
)
def test_edits_of_a_note_by_two_programs_are_merged(before, edited, now, expected) -> None:
    assert notes.united(before, edited, now) == expected


def test_the_doctor_names_lines_of_a_clock_that_was_wrong_and_runs_that_cannot_be_read(
    library: Library, tmp_path: Path
) -> None:
    home = library.home
    library.mark("bert", "read")
    ahead = '{"at": "2106-01-01T00:00:00+00:00", "paper": "gpt2", "state": "read"}\n'
    with home.journal.open("a", encoding="utf-8") as file:
        file.write(ahead)
    (home.runs / "odd").mkdir(parents=True)
    (home.runs / "odd" / "job.json").write_text("[" * 5000, encoding="utf-8")
    (home.runs / "link").symlink_to(tmp_path)
    found = list(upkeep.findings(Library.open(home)))
    assert [(one.topic, one.text, one.mend) for one in found] == [
        ("clock", "journal.jsonl has lines dated in the future: 2", None),
        ("runs", "run odd: job.json cannot be read: it is nested too deeply", None),
        ("runs", "link is a symbolic link and is ignored", None),
    ]
    assert ahead in home.journal.read_text(encoding="utf-8")
