"""Lists from Zotero, Obsidian and GitHub, including rows without a certain match."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from time import process_time

import pytest

from readtrack.cli import app, transfer
from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.library import Library
from readtrack.reading_list.catalog import Row
from readtrack.reading_list.journal import Journal
from readtrack.reading_list.load import load, shipped
from readtrack.reading_list.sources import parse
from readtrack.transfer import bibtex, exporting, importing, incoming, linking, markdown
from readtrack.transfer.importing import Choices
from readtrack.transfer.matching import Matcher, alike

PDF = b"%PDF-1.4\n" + b" " * 2000 + b"startxref\n0\n%%EOF\n"

NOTES = """---
title: Zettel
tags: [ml]
---
An intro line.

# My own list

## Reading
- [x] Adam
- [/] BERT
- [-] GPT-2
- [ ] ~~T5 (2019)~~
- [ ] GQA and my fish
- [ ] FlashAttention
  - [ ] something else
\t- [/] and deeper
"""


@pytest.fixture(scope="module")
def matcher() -> Matcher:
    listed = load(shipped())
    return Matcher(listed.papers, [listed])


def take(file: Path, *more: str) -> int:
    return app.run(["import", str(file), "--yes", *more])


def row_of(library: Library, words: str) -> Row:
    return next(item for _, item in library.catalog.walk() if isinstance(item, Row) and words in item.text)


# Matching


@pytest.mark.parametrize(
    ("row", "paper"),
    [
        ("BERT (2019)", "bert"),
        ("Batch Normalisation (Ioffe & Szegedy, 2015)", "batchnorm"),
        ("He et al. 2016 - Deep residual learning", "resnet"),
        ("diffusion models (ddpm, stable diffusion)", "ddpm"),
        ("ask Jonas about lunch, 2017", None),
    ],
)
def test_papers_that_share_a_rows_rare_words_are_offered_first(row: str, paper: str | None) -> None:
    assert next(iter(alike(row, load(shipped()).papers)), None) == paper


@pytest.mark.parametrize(
    ("row", "papers"),
    [("The Transformer", ("transformer",)), ("the GPT-3 paper", ("gpt3",)), ("the paper", ())],
)
def test_a_papers_name_may_have_an_article(matcher: Matcher, row: str, papers: tuple[str, ...]) -> None:
    assert matcher.match(row).papers == papers


@pytest.mark.parametrize(
    ("title", "year", "source"),
    [
        ("Deep Residual Learning for Image Recognition, Revisited", 2021, "2103.07579"),
        ("Layer Normalisation", 2020, "2003.07845"),
        ("Layer Normalization", 2016, "2003.07845"),
        ("Longformers", 2020, "2009.00001"),
        ("Long Short-Term Memory", 1997, "10.1000/another.work"),
        (
            "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning",
            2023,
            "2307.08691",
        ),
    ],
)
def test_an_id_of_another_paper_goes_before_the_title(
    matcher: Matcher, title: str, year: int, source: str
) -> None:
    entry = matcher.match_entry(title, year, [parse(source)])
    url = parse(source).url
    for match in (entry, matcher.match(f"{title} ({url})"), matcher.match(f"[{title}]({url})")):
        assert (match.papers, match.candidates) == ((), ())


@pytest.mark.parametrize(
    ("title", "source", "paper"),
    [
        ("Attention Is All You Need", "1706.03762", "transformer"),
        ("Attention Is All You Need", "", "transformer"),
        ("GQA: Training Generalized Multi-Query Transformer Models", "", "gqa"),
        ("ViT: An Image is Worth 16x16 Words", "", "vit"),
        ("The paper that BERT is", "1810.04805v1", "bert"),
        ("ImageNet classification with deep convolutional neural networks", "10.1145/3065386", "alexnet"),
    ],
)
def test_markdown_and_bibtex_have_one_rule(matcher: Matcher, title: str, source: str, paper: str) -> None:
    sources = [parse(source)] if source else []
    assert matcher.match_entry(title, None, sources).papers == (paper,)
    assert matcher.match(" ".join([title, *(one.url for one in sources)])).papers == (paper,)


def test_a_later_paper_is_not_a_duplicate_of_the_first(tmp_path: Path, home: Home) -> None:
    file = tmp_path / "mine.md"
    file.write_text("- [ ] FlashAttention\n- [x] FlashAttention-2 https://arxiv.org/abs/2307.08691\n")
    made = importing.plan(Library.open(home), file)
    assert [one.status for one in made.found] == ["matched", "new"]
    importing.apply(Library.open(home), made)
    assert Library.open(home).state("flashattention") == "todo"


def test_entries_of_one_title_and_two_ids_are_two_papers(tmp_path: Path, home: Home) -> None:
    file = tmp_path / "two.bib"
    entry = "@misc{{k{0}, title={{On Fish}}, year=2020, eprint={{2001.0000{0}}}, readstatus={{{1}}}}}\n"
    file.write_text(entry.format(1, "") + entry.format(2, "read"))
    assert take(file) == 0
    assert take(file) == 0
    library = Library.open(home)
    first, second = (library.find(f"2001.0000{number}") for number in (1, 2))
    assert [library.state(one.id) for one in (first, second)] == ["todo", "read"]


# Rows without a certain match


def test_an_ambiguous_row_is_kept_and_a_second_import_links_it(
    tmp_path: Path, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.md"
    file.write_text("- [ ] GQA and my fish https://example.org/fish\n- [ ] BERT\n")
    assert take(file) == 0
    assert "--as 1=gqa" in (said := capsys.readouterr().err)
    assert "readtrack link" in said
    library = Library.open(home)
    library.mark(row_of(library, "fish").subject, "reading")
    assert take(file, "--as", "1=gqa") == 0
    library.reload()
    row = row_of(library, "fish")
    assert (row.text, row.papers) == ("GQA and my fish https://example.org/fish", ("gqa",))
    assert (library.state("gqa"), library.orphans) == ("reading", {})
    assert take(file, "--as", "1=gqa") == 0
    assert "nothing to do" in capsys.readouterr().err
    assert exporting.to_markdown(library) == file.read_text().replace("[ ] GQA", "[/] GQA")
    assert exporting.unsaid(library, "markdown")[0].startswith("1 row is linked to a paper")


def test_an_ambiguous_entry_keeps_its_link(tmp_path: Path, home: Home) -> None:
    file = tmp_path / "mine.bib"
    written = (
        "@misc{k, title={Notes on Layer Normalization, and fish}, year=2020, url={https://example.org/x}}\n"
    )
    file.write_text(written)
    assert take(file) == 0
    library = Library.open(home)
    row = row_of(library, "fish")
    assert row.papers == ()
    assert row.text.endswith("(2020) https://example.org/x")
    assert exporting.to_bibtex(library) == written
    assert not importing.plan(library, file).changes(library)


def test_a_row_is_left_out_or_stays_a_row_on_the_readers_choice(tmp_path: Path, home: Home) -> None:
    file = tmp_path / "mine.md"
    file.write_text("- [ ] BERT\n  - [ ] inside\n- [ ] GPT-2\n")
    assert take(file, "--as", "3=none", "--skip", "1") == 0
    rows = [(i.text, i.papers) for _, i in Library.open(home).catalog.walk() if isinstance(i, Row)]
    assert rows == [("inside", ()), ("GPT-2", ())]
    with pytest.raises(ReadtrackError, match=r"line 9 .* has no row"):
        importing.plan(Library.open(home), file, Choices({9: ["bert"]}))


def test_linking_a_row_keeps_its_history_and_unlinking_keeps_its_state(
    tmp_path: Path, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.md"
    file.write_text("- [ ] Chapter 1\n- [ ] Chapter 2\n- [ ] BERT\n")
    take(file)
    library = Library.open(home)
    subject = row_of(library, "Chapter 1").subject
    library.mark(subject, "read")
    library.tag(subject, "gpu")
    library.rate(subject, 4)
    library.save_note(subject, "mine\n")
    assert app.run(["link", "chapter 1", "vision-transformer"]) == 0
    library.reload()
    assert row_of(library, "Chapter 1").papers == ("vit",)
    said = (library.state("vit"), library.tags("vit"), library.rating("vit"), library.note("vit"))
    assert said == ("read", {"gpu"}, 4, "mine\n")
    assert library.state(row_of(library, "Chapter 2").subject) == "todo"
    assert library.orphans == {}
    assert app.run(["unlink", "row:chapter-1"]) == 0
    library.reload()
    row = row_of(library, "Chapter 1")
    assert (row.papers, library.state(row.subject), library.state("vit")) == ((), "read", "read")
    assert app.run(["unlink", "row:chapter-1"]) == 3
    capsys.readouterr()
    assert app.run(["link", "chapter", "vit"]) == 2
    assert "row:chapter-1; row:chapter-2" in capsys.readouterr().err


def test_the_question_takes_a_choice_as_an_answer(
    tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.md"
    file.write_text("- [ ] GQA and my fish\n- [ ] BERT\n")
    answers = iter(["1=nothing_like_it", "1=gqa", "y"])
    asked: list[str] = []
    monkeypatch.setattr(transfer, "_answer", lambda question: asked.append(question) or next(answers))
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    assert app.run(["import", str(file)]) == 0
    assert asked[0] == asked[1] == "Write it? [y/N, or LINE=PAPERS] "
    assert asked[2] == "Write it? [y/N] "
    assert "nothing_like_it" in capsys.readouterr().err
    assert row_of(Library.open(home), "fish").papers == ("gqa",)


def test_an_undo_takes_a_links_marks_back_together(tmp_path: Path, home: Home) -> None:
    file = tmp_path / "mine.md"
    file.write_text("- [ ] Chapter 1\n")
    take(file)
    library = Library.open(home)
    library.mark(row_of(library, "Chapter").subject, "read")
    linking.link(library, row_of(library, "Chapter"), ("bert",))
    library.undo()
    assert library.state("bert") == "todo"
    linking.unlink(library, row_of(library, "Chapter"))
    assert library.state(row_of(library, "Chapter").subject) == "read"


@pytest.mark.parametrize(
    "written",
    [
        '      - text: "Fish"\n',
        '      - text: "Fish"   # mine\n        papers: []\n',
        '      - text: "Fish"\n        papers:\n        done: true\n',
        '      - text: "Fish"\n        papers:\n        - one\n        done: true\n',
        '      - text: "Fish"\n        papers:\n          - one   # first\n',
        '      - {text: "Fish", papers: [one]}\n',
    ],
)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_row_is_linked_however_it_is_written(home: Home, written: str, ending: str) -> None:
    paper = "  {}:\n    title: T{}\n    authors: [A]\n    year: 2020\n"
    paper += "    sources:\n      - arxiv: '2001.0000{}'\n"
    text = (
        "title: Mine\nchecklist:\n  - section: S\n    rows:\n" + written + '      - text: "Other"\npapers:\n'
    )
    text += "".join(paper.format(name, number, number) for number, name in enumerate(("one", "two")))
    home.ensure()
    home.papers_yaml.write_bytes(text.replace("\n", ending).encode())
    library = Library.open(home)
    linking.link(library, row_of(library, "Fish"), ("two", "one"))
    assert row_of(library, "Fish").papers == ("two", "one")
    assert row_of(library, "Other").papers == ()
    assert home.papers_yaml.read_bytes().count(b"\r\n") in (0, home.papers_yaml.read_bytes().count(b"\n"))


# Zotero


def test_zotero_brings_abstracts_tags_and_pdfs_that_are_listed_first(
    tmp_path: Path, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a; b.pdf").write_bytes(PDF)
    os.mkfifo(tmp_path / "files" / "pipe.pdf")
    file = tmp_path / "zotero.bib"
    file.write_text(
        "@article{a, title={Adam: A Method for Stochastic Optimization}, date={2014-12-22}, "
        "abstract={About {Adam}.}, keywords={Computer Science - Machine Learning, gpu}, "
        "file={Snapshot:files/x.html:text/html;Full Text:files/a\\; b.pdf:application/pdf}}\n"
        "@article{b, title={On Fish}, date={2020-01}, doi={10.1234/fish}, file={files/pipe.pdf}}\n"
        "@article{c, title={On Birds}, date={2020-01}, doi={10.1234/bird}, file={:gone.pdf:PDF}}\n"
    )
    assert take(file) == 0
    told = capsys.readouterr()
    assert f"PDF for adam: {tmp_path / 'files' / 'a; b.pdf'}" in told.out
    assert told.out.count("PDF for") == 1
    assert "--pdfs` attaches them" in told.err
    library = Library.open(home)
    assert library.pdf("adam") is None
    assert (library.metadata("adam") or {})["abstract"] == "About Adam."
    assert "imported from zotero.bib" in (library.metadata("adam") or {})["source"]
    assert library.tags("adam") == {"computer-science-machine-learning", "gpu"}
    assert library.find("10.1234/fish").year == 2020
    assert take(file, "--pdfs") == 0
    assert library.pdf("adam") is not None
    capsys.readouterr()
    assert take(file, "--pdfs") == 0
    assert "nothing to do" in capsys.readouterr().err
    library.undo()
    assert library.tags("adam") == set()


def test_an_abstract_that_is_there_stays(tmp_path: Path, home: Home) -> None:
    home.ensure(home.metadata)
    (home.metadata / "adam.json").write_text('{"abstract": "arXiv\'s"}')
    file = tmp_path / "zotero.bib"
    file.write_text("@article{a, title={Adam}, eprint={1412.6980}, year=2014, abstract={mine}}")
    assert take(file) == 0
    assert json.loads((home.metadata / "adam.json").read_text()) == {"abstract": "arXiv's"}


def test_the_journal_is_read_once_for_all_tags(
    tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "many.bib"
    entry = (
        "@misc{{k{0}, title={{Fish {0} of the sea}}, year=2020, doi={{10.1234/x{0}}}, keywords={{a, b}}}}\n"
    )
    file.write_text("".join(map(entry.format, range(40))))
    library, loads = Library.open(home), []
    real = Journal.load
    monkeypatch.setattr(Journal, "load", lambda self: loads.append(1) or real(self))
    importing.apply(library, importing.plan(library, file))
    assert len(library.tagged()) == 40
    assert len(loads) < 6


# The reader's own lines


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_an_export_gives_the_file_back_as_it_was(tmp_path: Path, home: Home, ending: str, mark: str) -> None:
    file, out = tmp_path / "mine.md", tmp_path / "out.md"
    file.write_bytes((mark + NOTES.replace("\n", ending)).encode())
    assert take(file) == 0
    assert app.run(["export", "-o", str(out)]) == 0
    assert out.read_bytes() == file.read_bytes()
    library = Library.open(home)
    states = [library.state(one) for one in ("adam", "bert", "gpt2", "t5")]
    assert states == ["read", "reading", "skipped", "skipped"]
    assert library.state(row_of(library, "deeper").subject) == "reading"
    assert importing.plan(library, file).note == library.catalog.note == "An intro line."
    library.mark("bert", "read")
    library.mark("flashattention", "reading")
    assert app.run(["export", "-o", str(out)]) == 0
    expected = file.read_bytes().replace(b"[/] BERT", b"[x] BERT").replace(b"[ ] Flash", b"[/] Flash")
    assert out.read_bytes() == expected


def test_a_file_without_a_title_gets_none_and_new_rows_end_as_its_lines_do(
    tmp_path: Path, home: Home
) -> None:
    file, more = tmp_path / "mine.md", tmp_path / "more.md"
    file.write_bytes(b"- [ ] BERT\r\n- [ ] one\r\n")
    more.write_bytes(b"- [ ] two\r\n")
    take(file)
    assert exporting.to_markdown(Library.open(home)) == "- [ ] BERT\r\n- [ ] one\r\n"
    library = Library.open(home)
    text = home.papers_yaml.read_text().replace('- text: "one"', '- text: "one"\n      - text: "three"')
    home.papers_yaml.write_text(text)
    library.reload()
    assert exporting.to_markdown(library) == "- [ ] BERT\r\n- [ ] one\r\n- [ ] three\r\n"


def test_a_list_keeps_its_title_when_a_file_without_one_comes_in(tmp_path: Path, home: Home) -> None:
    file, more = tmp_path / "mine.bib", tmp_path / "more.md"
    file.write_text("@misc{a, title={Adam}, eprint={1412.6980}, year=2014}")
    more.write_text("- [ ] BERT\n")
    take(file)
    take(more)
    assert exporting.to_markdown(Library.open(home)).startswith("# mine\n")


def test_states_are_exported_with_the_signs_that_an_import_reads(tmp_path: Path, home: Home) -> None:
    file = tmp_path / "mine.md"
    file.write_text("# T\n\n## S\n- [ ] BERT\n- [ ] GPT-2\n")
    take(file)
    library = Library.open(home)
    library.mark("bert", "reading")
    library.mark("gpt2", "skipped")
    assert exporting.to_markdown(library) == "# T\n\n## S\n- [/] BERT\n- [-] GPT-2\n"


def test_a_rule_at_the_top_is_not_front_matter() -> None:
    document = markdown.parse("---\n- [ ] a\n---\n- [ ] b\n")
    assert document.front == ""
    assert [item.text for item in document.items if item.kind == "row"] == ["a", "b"]


def test_a_linked_pdf_next_to_the_list_is_offered(tmp_path: Path, home: Home) -> None:
    (tmp_path / "my bert.pdf").write_bytes(PDF)
    file = tmp_path / "mine.md"
    file.write_text("- [ ] [BERT](my%20bert.pdf)\n- [ ] [GPT-2](https://example.org/gpt2.pdf)\n")
    made = importing.plan(Library.open(home), file)
    assert made.pdfs == {"bert": tmp_path / "my bert.pdf"}


def test_bibtex_cites_the_work_once_by_its_own_title(home: Home) -> None:
    library = Library.open(home, shipped())
    part = exporting.entry(library, library.catalog.papers["attention"])
    assert "title = {{Attention Is All You Need}}" in part
    whole = exporting.to_bibtex(library)
    assert whole.count("Attention Is All You Need") == 1
    assert "(section" not in whole


def test_pasted_text_is_bibtex_or_markdown(home: Home) -> None:
    library = Library.open(home)
    entry = incoming.pasted("  @misc{a, title={Adam}, eprint={1412.6980}, year=2014}")
    assert [one.papers for one in importing.plan(library, entry).found] == [("adam",)]
    importing.apply(library, importing.plan(library, incoming.pasted("- [x] BERT\n- fish\n")))
    assert library.catalog.title == "My papers"
    assert library.state("bert") == "read"


# Devices, pipes, and files made to be slow


def test_an_export_is_written_into_a_pipe(tmp_path: Path, home: Home) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(
        [sys.executable, "-c", f"print(len(open({str(pipe)!r}).read()))"], stdout=subprocess.PIPE
    )
    assert app.run(["export", "-o", str(pipe)]) == 0
    assert int(reader.communicate(timeout=60)[0]) > 1000
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert app.run(["export", "-o", os.devnull]) == 0
    assert not Path(os.devnull).is_file()


def test_a_pipe_is_not_imported(tmp_path: Path, home: Home) -> None:
    os.mkfifo(tmp_path / "pipe.md")
    assert take(tmp_path / "pipe.md") == 2


@pytest.mark.parametrize(
    "text",
    [
        "@misc{a, author={A" + " " * 200_000 + "and B" + " " * 200_000 + "}, title={x}}",
        "@misc{a, title={" + "{" * 5_000 + "x" + "}" * 5_000 + "}}",
        "@misc{a, title={" + "\\textbf{" * 5_000 + "x" + "}" * 5_000 + "}}",
    ],
    ids=["blanks", "braces", "macros"],
)
def test_entries_made_to_be_slow_are_read(text: str) -> None:
    began = process_time()
    assert len(bibtex.read(text).entries) == 1
    assert process_time() - began < 20


def test_headings_made_to_be_slow_are_read() -> None:
    began = process_time()
    document = markdown.parse("# a" + " " * 400_000 + "b\n## c" + " #" * 200_000 + "\n")
    assert [item.kind for item in document.items] == ["title", "section"]
    assert process_time() - began < 20


@pytest.mark.slow
def test_a_list_of_equal_rows_comes_in_and_goes_out(tmp_path: Path, home: Home) -> None:
    file = tmp_path / "equal.md"
    file.write_text("# T\n\n## S\n" + "- [ ] the same\n" * 20_000)
    began = process_time()
    library = Library.open(home)
    importing.apply(library, importing.plan(library, file))
    assert exporting.to_markdown(library) == file.read_text()
    assert process_time() - began < 30


@pytest.mark.parametrize(
    ("row", "papers"),
    [
        ("GPT-3 paper", ("gpt3",)),
        ("the  Adam paper", ("adam",)),
        ("The paper", ()),
        ("my position paper", ()),
    ],
)
def test_a_paper_may_be_called_one(matcher: Matcher, row: str, papers: tuple[str, ...]) -> None:
    assert matcher.match(row).papers == papers
