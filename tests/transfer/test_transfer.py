"""Import and export by a reader: import, mark, export, restore."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from readtrack.cli import app
from readtrack.home import Home
from readtrack.library import Library
from readtrack.reading_list.load import load, shipped
from readtrack.runs.job import new_job
from readtrack.runs.store import write_end_event
from readtrack.transfer import exporting, importing, markdown
from readtrack.transfer.matching import Matcher

CHECKLIST = """# My list
words,  twice spaced

## Language
- [x] Attention is all you need
  - [ ] BERT (2018)
  - [ ] Mamba, S4, SSM (2023)
- [ ] Something nobody knows
(stray)

## Links
- [ ] https://arxiv.org/pdf/2005.14165v2.pdf
- [ ] [the blog](./local.html) on BERT
- [ ] bert \n\n"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.md"
    path.write_text(CHECKLIST, encoding="utf-8")
    return path


def take(file: Path, *more: str) -> int:
    return app.run(["import", str(file), "--yes", *more])


def test_the_shipped_list_imports_from_its_own_markdown_with_every_row_matched(
    tmp_path: Path, home: Home
) -> None:
    library = Library.open(home, shipped())
    file = tmp_path / "all.md"
    file.write_text(exporting.to_markdown(library), encoding="utf-8")
    made = importing.plan(Library.open(home), file)
    assert len(made.found) == 63
    assert {one.status for one in made.found} == {"matched", "duplicate"}
    importing.apply(Library.open(home), made)
    rows = [(row.text, row.papers) for _, row in Library.open(home).catalog.walk() if hasattr(row, "papers")]
    assert rows == [(row.text, row.papers) for _, row in load(shipped()).walk() if hasattr(row, "papers")]


def test_rows_find_their_papers(file: Path, home: Home) -> None:
    made = importing.plan(Library.open(home), file)
    assert [(one.status, one.papers, one.twin) for one in made.found] == [
        ("matched", ("transformer",), ""),
        ("matched", ("bert",), ""),
        ("matched", ("ssm", "s4", "mamba"), ""),
        ("unknown", (), ""),
        ("matched", ("gpt3",), ""),
        ("unknown", (), ""),
        ("duplicate", ("bert",), "line 6"),
    ]


@pytest.mark.parametrize(
    ("text", "papers", "candidates"),
    [
        ("see arXiv:1810.04805v1, twice", ("bert",), ()),
        ("10.1162/neco.1997.9.8.1735", ("lstm",), ()),
        ("Attention Is All You Need!", ("transformer",), ()),
        ("*A Stochastic Approximation Methods*", ("sgd",), ()),
        ("my notes on fish", (), ()),
        ("BERT and my fish", (), ("bert",)),
    ],
)
def test_matching(text: str, papers: tuple[str, ...], candidates: tuple[str, ...]) -> None:
    match = Matcher(load(shipped()).papers).match(text)
    assert (match.papers, match.candidates) == (papers, candidates)


def test_an_export_differs_from_the_import_in_ticks_alone(
    file: Path, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert take(file) == 0
    library = Library.open(home)
    assert exporting.to_markdown(library) == CHECKLIST
    library.mark("bert", "read")
    (unknown,) = [
        row for _, row in library.catalog.walk() if getattr(row, "text", "").startswith("Something")
    ]
    library.mark(unknown.subject, "implemented")
    expected = (
        CHECKLIST.replace("[ ] BERT", "[x] BERT")
        .replace("[ ] Some", "[x] Some")
        .replace("[ ] bert", "[x] bert")
    )
    assert exporting.to_markdown(library) == expected


def test_importing_again_changes_nothing(file: Path, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert take(file) == 0
    before = {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file()}
    assert take(file) == 0
    assert "nothing to do" in capsys.readouterr().err
    after = {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file()}
    assert {p: d for p, d in after.items() if "cache" not in p.parts} == {
        p: d for p, d in before.items() if "cache" not in p.parts
    }


def test_a_file_with_new_rows_extends_the_list_and_a_tick_counts_unless_the_reader_said_otherwise(
    file: Path, home: Home
) -> None:
    take(file)
    Library.open(home).mark("mamba", "reading")
    changed = CHECKLIST.replace("[ ] BERT (2018)", "[x] BERT (2018)\n    - [ ] GPT-2").replace(
        "[ ] Mamba", "[x] Mamba"
    )
    file.write_text(changed, encoding="utf-8")
    assert take(file) == 0
    library = Library.open(home)
    states = [library.state(one) for one in ("bert", "mamba", "s4")]
    assert states == ["read", "reading", "read"]
    exported = exporting.to_markdown(library)
    assert "  - [x] BERT (2018)\n    - [ ] GPT-2\n  - [/] Mamba" in exported
    assert markdown.parse(exported).items[-1].text == "bert"


def test_nothing_is_written_without_a_word(
    file: Path, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["import", str(file)]) == 2
    assert app.run(["import", str(file), "--dry-run", "--json"]) == 0
    assert not home.papers_yaml.exists()
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["status"] for row in rows].count("matched") == 4


def test_a_choice_settles_a_row(file: Path, home: Home) -> None:
    take(file, "--as", "8=rope,gqa")
    (row,) = [
        one
        for _, one in Library.open(home).catalog.walk()
        if getattr(one, "text", "").startswith("Something")
    ]
    assert row.papers == ("rope", "gqa")


def test_bibtex_in_and_out(tmp_path: Path, home: Home) -> None:
    file = tmp_path / "refs.bib"
    file.write_text(
        "@article{kb, title={Adam: A Method for Stochastic Optimization}, year=2014, note={mine}}\n\n"
        "@misc{new1, title={A Brand New Idea: of {Fish}}, author={Doe, Jane}, year=2025, "
        "doi={10.1234/fish.1}, keywords={sea}}\n\n"
        "@misc{new1, title={A Brand New Idea: of Fish}, year=2025, doi={10.1234/FISH.1}}\n\n"
        "@book{old, title={A Book of Old}, year=1970}\n",
        encoding="utf-8",
    )
    made = importing.plan(Library.open(home), file)
    assert [one.status for one in made.found] == ["matched", "new", "duplicate", "new"]
    importing.apply(Library.open(home), made)
    library = Library.open(home)
    new = library.find("10.1234/fish.1")
    assert (new.title, new.authors, library.tags(new.id)) == (
        "A Brand New Idea: of Fish",
        ("Jane Doe",),
        {"sea"},
    )
    written = exporting.to_bibtex(library)
    entries = file.read_text(encoding="utf-8").strip().split("\n\n")
    adam, *others = written.strip().split("\n\n")
    assert others == [entries[1], entries[3]]
    # An entry without authors is completed with known facts, and its own fields are kept.
    assert adam.startswith(
        entries[0].removesuffix("}") + ",\n  author = {Diederik P. Kingma and Jimmy Ba},\n"
    )
    assert not importing.plan(library, file).changes(library)


def test_json_restores_an_empty_home(
    file: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(file)
    library = Library.open(home)
    library.mark("bert", "read")
    library.save_note("bert", "ünïque\n")
    home.ensure(home.pdfs)
    (home.pdfs / "bert.pdf").write_bytes(b"%PDF-1.4 \xff\xfe mine")
    target = tmp_path / "all.json"
    assert app.run(["export", "--format", "json", "--output", str(target)]) == 0
    other = tmp_path / "other"
    monkeypatch.setenv("READTRACK_HOME", str(other))
    assert app.run(["import", str(target), "--yes"]) == 0

    def files(root: Path) -> dict[str, bytes]:
        kept = (p for p in root.rglob("*") if p.is_file() and not {"cache", "locks"} & set(p.parts))
        return {str(p.relative_to(root)): p.read_bytes() for p in kept}

    assert files(other) == files(home.root)
    assert "pdfs/bert.pdf" in files(other)


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x"])
def test_an_export_cannot_write_outside_of_the_home(tmp_path: Path, home: Home, name: str) -> None:
    file = tmp_path / "bad.json"
    file.write_text(
        json.dumps({"format": exporting.FORMAT, "version": 1, "files": {name: "x"}}), encoding="utf-8"
    )
    assert app.run(["import", str(file), "--yes"]) == 2


def test_two_homes_become_one(
    file: Path, home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Home(tmp_path / "other")
    there = Library.open(other, shipped())
    there.mark("bert", "read")
    there.save_note("bert", "theirs\n")
    there.save_note("rope", "rope\n")
    (other.runs / "r1").mkdir(parents=True)
    new_job("bert").write(other.runs / "r1")
    write_end_event(other.runs / "r1", "completed", "")
    importing.apply(Library.open(other), importing.plan(Library.open(other), file))
    take(file)
    library = Library.open(home)
    library.mark("gpt2", "reading")
    library.save_note("bert", "ours\n")
    assert app.run(["merge", str(other.root)]) == 1
    library.reload()
    assert (library.state("bert"), library.state("gpt2")) == ("read", "reading")
    assert "ours" in library.note("bert")
    assert "theirs" in library.note("bert")
    assert library.note("rope") == "rope\n"
    assert (home.runs / "r1" / "job.json").exists()
    capsys.readouterr()
    assert app.run(["merge", str(other.root)]) == 0
    assert "nothing to do" in capsys.readouterr().err


def test_bets_and_practice_of_two_homes_are_kept(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    for root, run in ((home.root, "here"), (other, "there")):
        (root / "practice").mkdir(parents=True)
        (root / "bets.jsonl").write_text(f'{{"run": "{run}"}}\n{{"run": "both"}}\n')
        (root / "practice" / "log.jsonl").write_text(f'{{"did": "{run}"}}\n')
        (root / "practice" / "lstm.py").write_text(f"# {run}\n")
    (other / "practice" / "gru.py").write_text("# there\n")

    app.run(["merge", str(other)])
    assert (home.root / "bets.jsonl").read_text() == '{"run": "here"}\n{"run": "both"}\n{"run": "there"}\n'
    assert not (home.practice / "gru.py").exists()  # code is taken only on request
    assert "names programs to run" in capsys.readouterr().out

    app.run(["merge", str(other), "--plugins"])
    assert (home.practice / "log.jsonl").read_text() == '{"did": "here"}\n{"did": "there"}\n'
    assert (home.practice / "lstm.py").read_text() == "# here\n"
    assert (home.practice / "gru.py").read_text() == "# there\n"
