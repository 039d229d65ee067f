"""papers.yaml: valid content is read unchanged, and each mistake is one line with file, line and fix."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from readtrack.reading_list.catalog import CatalogError, Note, Paper, Row, Section, Source
from readtrack.reading_list.load import load
from readtrack.text import plain

PROSE_OF_ADAM = """\
    problem: One step size does not suit every weight.
    idea: A step size for each weight.
    result: It converges faster (Figure 1).
"""
GOOD = """\
title: Self notes for some research papers list
note: protip, use  a scrapper
checklist:
  - section: Optimization algorithm
    note: read these first
    rows:
      - text: "SGD - AdamW [see blog](https://example.org/a)"
        done: true
        papers: [sgd, adam]
        rows:
          - text: "Hessian"
          - note: "(TODO: add more)"
      - text: "Hessian"
  - section: Empty
papers:
  sgd:
    title: A Stochastic Approximation Method
    authors: [Herbert Robbins, Sutton Monro]
    year: 1951
    sources:
      - doi: 10.1214/aoms/1177729586
  adam:
    title: "Adam: A Method for Stochastic Optimization"
    authors: [Diederik P. Kingma, Jimmy Ba]
    year: 2014
    sources:
      - page: https://example.org/adam
        note: the talk
      - arxiv: 1412.69800
      - arxiv: "1412.6980v9"
    aliases: [Adam-W]
    builds_on: [sgd]
    problem: One step size does not suit every weight.
    idea: A step size for each weight.
    result: It converges faster (Figure 1).
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "papers.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


@pytest.fixture
def complaint(write):
    """The message for an invalid file, after checking its form: one line, `papers.yaml:LINE: problem;
    fix`.
    """

    def complaint(text: str | bytes) -> str:
        with pytest.raises(CatalogError) as caught:
            load(write(text))
        said = str(caught.value)
        assert "\n" not in said
        assert "; " in said, "no fix is named"
        assert caught.value.exit_code == 2
        return said

    return complaint


def replaced(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


# Valid files


def test_a_list_is_read_as_it_stands(write):
    read = load(write(GOOD))
    assert (read.title, read.note) == (
        "Self notes for some research papers list",
        "protip, use  a scrapper",
    )
    optimisation, empty = read.sections
    assert (optimisation.title, optimisation.note, empty.rows) == (
        "Optimization algorithm",
        "read these first",
        (),
    )
    row = optimisation.rows[0]
    assert isinstance(row, Row)
    assert row.text == "SGD - AdamW [see blog](https://example.org/a)"
    assert row.done
    assert row.papers == ("sgd", "adam")
    assert row.line == line_of(GOOD, "- text")
    assert row.rows[1] == Note("(TODO: add more)")
    adam = read.papers["adam"]
    assert adam.authors == ("Diederik P. Kingma", "Jimmy Ba")
    assert (adam.year, adam.aliases, adam.builds_on) == (2014, ("Adam-W",), ("sgd",))
    assert (adam.problem, adam.idea, adam.result) == (
        "One step size does not suit every weight.",
        "A step size for each weight.",
        "It converges faster (Figure 1).",
    )
    assert adam.line == line_of(GOOD, "  adam:")
    assert adam.sources == (
        Source("page", "https://example.org/adam", "the talk"),
        Source("arxiv", "1412.69800"),
        Source("arxiv", "1412.6980v9"),
    )
    assert adam.arxiv_id == "1412.69800", "an unquoted id keeps its zeros"
    assert read.papers["sgd"].arxiv_id is None


def paper(*sources):
    return Paper("x", "X", ("A",), 2000, sources, (), (), "", "", "", 1)


ARXIV = Source("arxiv", "2205.14135")
OTHER_WORK = Source("arxiv", "2307.08691", "the second part")
DOI = Source("doi", "10.1162/neco.1994.6.1.147")
PDF = Source("pdf", "https://x.org/a.pdf")
MIRROR = Source("pdf", "https://y.org/a.pdf", "a mirror")


@pytest.mark.parametrize(
    ("sources", "arxiv_id", "pdfs"),
    [
        ((ARXIV, OTHER_WORK), "2205.14135", (ARXIV,)),
        ((OTHER_WORK, ARXIV), "2307.08691", (OTHER_WORK, ARXIV)),  # the first is the paper
        ((DOI, OTHER_WORK), None, ()),
        ((PDF, OTHER_WORK), None, (PDF,)),
        ((DOI, MIRROR, PDF), None, (PDF,)),
        ((DOI, MIRROR), None, (MIRROR,)),
        ((DOI,), None, ()),
    ],
)
def test_a_later_source_with_a_note_is_another_work(sources, arxiv_id, pdfs):
    assert paper(*sources).arxiv_id == arxiv_id
    assert paper(*sources).pdf_sources == pdfs


def test_the_walk_goes_in_the_readers_order(write):
    read = load(write(GOOD))
    shown = [(depth, getattr(item, "text", None) or item.title) for depth, item in read.walk()]
    assert shown == [
        (0, "Optimization algorithm"),
        (1, "SGD - AdamW [see blog](https://example.org/a)"),
        (2, "Hessian"),
        (2, "(TODO: add more)"),
        (1, "Hessian"),
        (0, "Empty"),
    ]
    assert [row.line for row in read.rows_of("adam")] == [line_of(GOOD, "- text")]
    assert read.rows_of("nothing") == []


@pytest.mark.parametrize(
    ("prose", "expected"),
    [
        (
            {"summary": "It averages.", "claim": "It is fast.", "figure": "3x."},
            ("", "It averages.", "It is fast. 3x."),
        ),
        ({"claim": "It is fast."}, ("", "", "It is fast.")),
        ({"figure": "3x."}, ("", "", "3x.")),
        ({"problem": "P.", "idea": "I.", "result": "R."}, ("P.", "I.", "R.")),
        (
            {
                "summary": "old",
                "claim": "old",
                "figure": "old",
                "problem": "P.",
                "idea": "I.",
                "result": "R.",
            },
            ("P.", "I.", "R."),
        ),
        (
            {"summary": "It averages.", "claim": "old", "problem": "P.", "result": "R."},
            ("P.", "It averages.", "R."),
        ),
    ],
)
def test_keys_of_older_lists_are_read_where_the_new_ones_are_missing(write, prose, expected):
    lines = "".join(f"    {name}: {text}\n" for name, text in prose.items())
    read = load(write(replaced(PROSE_OF_ADAM, lines))).papers["adam"]
    assert (read.problem, read.idea, read.result) == expected


def test_row_keys_are_unique_and_stay_the_same(write):
    rows = [item for _, item in load(write(GOOD)).walk() if isinstance(item, Row)]
    assert [row.key for row in rows] == ["sgd-adamw-see-blog-https-example-org-a", "hessian", "hessian-2"]
    odd = load(
        write("title: t\nchecklist:\n  - section: s\n    rows:\n      - text: '???'\n      - text: '!'\n")
    )
    assert [row.key for row in odd.sections[0].rows] == ["row", "row-2"]


@pytest.mark.parametrize(
    ("source", "url"),
    [
        (Source("arxiv", "1706.03762v5"), "https://arxiv.org/abs/1706.03762v5"),
        (Source("arxiv", "cs/9901001"), "https://arxiv.org/abs/cs/9901001"),
        (
            Source("doi", "10.1002/(SICI)1097<1::AID>3.0"),
            "https://doi.org/10.1002/(SICI)1097%3C1::AID%3E3.0",
        ),
        (Source("pdf", "https://example.org/a.pdf"), "https://example.org/a.pdf"),
    ],
)
def test_a_source_has_a_link(source, url):
    assert source.url == url


@pytest.mark.parametrize("value", ["cs/9901001", "math.GT/0309136v2", "0704.0001", "2312.00752v12"])
def test_arxiv_ids_of_all_times_are_taken(write, value):
    text = replaced("arxiv: 1412.69800", f"arxiv: {value}")
    assert load(write(text)).papers["adam"].arxiv_id == value


def test_text_stays_text_under_yamls_conversions(write):
    text = replaced("section: Empty", "section: no").replace("aliases: [Adam-W]", "aliases: [1e5, null-it]")
    read = load(write(text))
    assert read.sections[1].title == "no"
    assert read.papers["adam"].aliases == ("1e5", "null-it")


def test_control_characters_are_removed(write):
    hostile = r'"\e]0;owned\a\e[31mAdam\x9b2J \u202Eevil\0"'
    text = GOOD.replace('"Adam: A Method for Stochastic Optimization"', hostile).replace('"Hessian"', hostile)
    read = load(write(text))
    everything = json.dumps(read._replace(path=""), ensure_ascii=True)
    assert not re.search(r"\\u00[019][0-9a-f]|\\u202e|\\n", everything)
    assert "Adam" in read.papers["adam"].title
    assert "owned" not in read.papers["adam"].title


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(write):
    usual = load(write(GOOD))
    assert load(write(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())) == usual


def test_without_the_c_parser_the_outcome_is_the_same(write, complaint, monkeypatch):
    fast, broken = load(write(GOOD)), replaced("year: 1951", "year: [")
    said = complaint(broken)
    monkeypatch.delattr(yaml, "CSafeLoader")
    assert load(write(GOOD)) == fast
    assert complaint(broken).split(":")[:2] == said.split(":")[:2]


# Invalid files


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    year: 1951", "    yaer: 1951", "unknown key 'yaer'; did you mean 'year'?"),
        ("note: protip", "nte: protip", "unknown key 'nte'; did you mean 'note'?"),
        (
            "    note: read these first",
            "    colour: red",
            "unknown key 'colour'; a section may have section, note, rows",
        ),
        ("        done: true", "        done: perhaps", "'done' is 'perhaps'; it must be true or false"),
        ("    year: 1951", "    year: about 1951", "'year' is 'about 1951'; it must be four digits"),
        ("    year: 1951", "    year: ١٩٥١", "'year' is '١٩٥١'; it must be four digits"),
        (
            "sgd:\n    title: A Stochastic Approximation Method\n",
            "mine:\n",
            "the paper mine has no 'title'; add 'title: ...'",
        ),
        (
            "[Herbert Robbins, Sutton Monro]",
            "Herbert Robbins",
            "'authors' is 'Herbert Robbins'; it must be a list",
        ),
        (
            "[Herbert Robbins, Sutton Monro]",
            "[[Herbert]]",
            "an item of 'authors' is a list; it must be a text",
        ),
        ("[Herbert Robbins, Sutton Monro]", "[]", "'authors' is empty; give at least one"),
        ("    title: A Stochastic Approximation Method", "    title:", "'title' is empty; write a text"),
        (
            "    title: A Stochastic Approximation Method",
            '    title: "\\e[1m"',
            "'title' is empty; write a text",
        ),
        (
            "10.1214/aoms/1177729586",
            "https://doi.org/10.1214/aoms/1177729586",
            "is not a DOI; write '10.1214/aoms/1177729586'",
        ),
        ("page: https://example.org/adam", "page: javascript:alert(1)", "is not a link; write one such as"),
        (
            "page: https://example.org/adam",
            "web: https://example.org/adam",
            "unknown key 'web'; a source may",
        ),
        (
            "page: https://example.org/adam",
            "pdf: https://e.org/a\n        doi: 10.1000/1",
            "this source has 2 of arxiv, doi",
        ),
        ("arxiv: 1412.69800", "arxiv: 1412.698", "'1412.698' is not an arXiv id; write one such as"),
        ("arxiv: 1412.69800", "arxiv: 1413.69800", "'1413.69800' is not an arXiv id; write one such as"),
        ("arxiv: 1412.69800", "arxiv: ١٤١٢.٦٩٨٠", "is not an arXiv id; write one such as"),
        (
            "arxiv: 1412.69800",
            "arxiv: https://arxiv.org/pdf/1412.69800v2.pdf",
            "is not an arXiv id; write '1412.69800v2'",
        ),
        ("papers: [sgd, adam]", "papers: [sgd, adma]", "there is no paper 'adma'; did you mean 'adam'?"),
        ("papers: [sgd, adam]", "papers: [sgd, sgd]", "'sgd' is listed twice in 'papers'; keep one"),
        (
            "builds_on: [sgd]",
            "builds_on: [sdg]",
            "adam builds on 'sdg', which is unknown; did you mean 'sgd'?",
        ),
        ("builds_on: [sgd]", "builds_on: [adam]", "builds_on contains a cycle, adam -> adam; remove"),
        ("aliases: [Adam-W]", "aliases: [SGD]", "'SGD' already means sgd; remove it from one"),
        ("  adam:", "  sgd:", "'sgd' is already on line 16; keep one of the two"),
        ("    year: 2014", "    year: 2014\n    year: 2015", "'year' is already on line"),
        ("  adam:", "  Adam-W:", "'Adam-W' is not an id; use lower-case letters"),
        ("  adam:", "  [adam]:", "a list where a key is expected; write 'key: value'"),
        (
            "      - doi: 10.1214/aoms/1177729586",
            "      \tdoi: 1",
            "a tab is used as indentation; use spaces",
        ),
        ("    builds_on: [sgd]", "    builds_on: [sgd", "check the lines above it, too"),
        (
            "Stochastic Approximation",
            "Stochastic: Approximation",
            "use double quotes for text that has ': ' or '#' or begins with a sign",
        ),
        ("A Stochastic Approximation Method", "*Stochastic*", "double quotes"),
        ("A Stochastic Approximation Method", "*Stochastic", "double quotes"),
        ("- section: Empty", "- Empty", "a section is 'Empty'; it must be keys such as 'section:'"),
        ('- note: "(TODO: add more)"', "- note: [a]", "'note' is a list; it must be a text"),
        ('- text: "SGD', '- txt: "SGD', "unknown key 'txt'; did you mean 'text'?"),
        ("papers:\n  sgd:", "papers: x\nunused:\n  sgd:", "unknown key 'unused'"),
        ("title: Self notes", "---\ntitle: x\n---\ntitle: Self notes", "a second YAML document starts here"),
        ("        note: the talk", "      - note: the talk", "this source has none of arxiv, doi"),
        ("A Stochastic Approximation Method", "@Stochastic", "double quotes"),
    ],
)
def test_a_mistake_names_its_line_and_the_fix(complaint, old, new, said):
    text = replaced(old, new)
    message = complaint(text)
    assert said in message
    assert re.match(r"papers\.yaml:\d+: ", message)


@pytest.mark.parametrize(
    ("old", "new", "marker"),
    [
        ("    year: 1951", "    yaer: 1951", "yaer"),
        ("[Herbert Robbins, Sutton Monro]", "\n      - Herbert\n      - []", "- []"),
        ("arxiv: 1412.69800", "arxiv: nonsense", "nonsense"),
        ("builds_on: [sgd]", "builds_on: [nothing]", "nothing"),
        ("papers: [sgd, adam]", "papers:\n          - sgd\n          - nothing", "nothing"),
        ("aliases: [Adam-W]", "aliases: [sgd]", "aliases"),
        ("  adam:", "  sgd:", '  sgd:\n    title: "Adam'),
        ("      - doi: 10.1214/aoms/1177729586", "      \tdoi: 1", "\tdoi"),
    ],
)
def test_the_line_is_the_one_to_change(complaint, old, new, marker):
    text = replaced(old, new)
    assert complaint(text).startswith(f"papers.yaml:{line_of(text, marker)}: ")


def test_a_circle_of_papers_is_shown(complaint):
    paper = "  {0}:\n    title: T\n    authors: [A]\n    year: 2000\n    sources: [arxiv: 2001.00001]\n"
    text = "title: t\nchecklist: []\npapers:\n"
    for id_, parent in (("a", "b"), ("b", "c"), ("c", "d"), ("d", "b"), ("e", "a")):
        text += paper.format(id_) + f"    builds_on: [{parent}]\n"
    said = complaint(text.replace("[arxiv: 2001.00001]", "[{arxiv: 2001.00001}]"))
    assert re.search("b -> c -> d -> b|c -> d -> b -> c|d -> b -> c -> d", said), "x -> y: x builds on y"


def test_a_long_lineage_can_be_drawn(write):
    paper = (
        "  p{0}: {{title: T, authors: [A], year: 2000, sources: [{{arxiv: 2001.00001}}], builds_on: [{1}]}}\n"
    )
    papers = "".join(paper.format(i, f"p{i - 1}" if i else "") for i in range(3000))
    read = load(write(f"title: t\nchecklist: []\npapers:\n{papers}"))
    assert read.papers["p2999"].builds_on == ("p2998",)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is empty; start it with"),
        (b" \n\n", "it is empty; start it with"),
        (b"# nothing yet\n", "it holds only comments; start it with"),
        (b"title: caf\xe9\n", "papers.yaml:1: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        (b"title: t\nnote: \x00\n", "papers.yaml:2: "),
        (b"title: t\nnote: \x1b[31m\n", "papers.yaml:2: "),
        (b"just words\n", "the list is 'just words'; it must be keys such as 'title:'"),
        (b"- a\n", "the list is a list; it must be keys"),
        (b"title: t\n", "the list has no 'checklist'; add"),
        (b"\x7fELF\x02\x01\x01\x00\x00", "papers.yaml:1: "),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "papers.yaml:2: byte 0xe2 is not UTF-8"),
        (b"title: &a t\nchecklist: []\nnote: *a\n", "papers.yaml:3: '*a' is a YAML alias"),
        (b"title: !!python/object/apply:os.system [ls]\nchecklist: []\n", "'title' is a list"),
        (b"title: t\nchecklist: []\n<<: {note: x}\n", "unknown key '<<'"),
    ],
)
def test_a_file_that_is_not_a_list_is_refused(complaint, data, said):
    assert said in complaint(data)


@pytest.mark.timing
def test_an_alias_bomb_is_refused_at_once(complaint):
    layers = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    start = time.monotonic()
    assert "is a YAML alias" in complaint(f"a0: &a0 [x]\n{layers}")
    assert time.monotonic() - start < 2


@pytest.mark.timing
@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", "[{a: "])
def test_a_deep_file_is_refused_at_once(complaint, opening):
    start = time.monotonic()
    assert "nested more than" in complaint(opening * 100_000)
    assert time.monotonic() - start < 5


@pytest.mark.timing
def test_a_huge_file_is_refused_before_it_is_parsed(complaint):
    start = time.monotonic()
    said = complaint(b"- a\n" * (50 * 2**20 // 4))
    assert "larger than" in said
    assert time.monotonic() - start < 2


def test_a_missing_file_a_folder_and_an_unreadable_file(tmp_path, write, monkeypatch):
    with pytest.raises(CatalogError, match=r"nowhere.yaml: there is no such file; put your list there"):
        load(tmp_path / "nowhere.yaml")
    with pytest.raises(CatalogError, match=r"this is a folder; name the file in it"):
        load(tmp_path)
    with pytest.raises(CatalogError, match=r"it cannot be read \(Not a directory\); check"):
        load(write(GOOD) / "x")

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = write(GOOD)
    monkeypatch.setattr(Path, "open", refuse)  # permissions do not stop root, who may run the tests
    with pytest.raises(CatalogError, match=r"it cannot be read \(Permission denied\); check its"):
        load(path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
@example(b"\xef\xbb\xbf")
@example(b"? ? ?")
@example(b"!<\xff> x")
@example(b"a: !!float x\n...\n...\n")
@example(b"--- |\n%YAML 1.2\n")
def test_any_bytes_give_a_list_or_an_error(write, data):
    only_a_list_or_a_complaint(write(data))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_to_a_good_list_gives_a_list_or_an_error(write, data):
    good = GOOD.encode()
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 40)))
    pieces = st.sampled_from(
        [b"", b"\t", b"'", b'"', b"[", b"}", b": ", b"\n", b"&a ", b"*a", b"!!int ", b"- ", b"~"]
    )
    put = data.draw(st.one_of(st.binary(max_size=8), st.lists(pieces, max_size=4).map(b"".join)))
    only_a_list_or_a_complaint(write(good[:start] + put + good[end:]))


def only_a_list_or_a_complaint(path: Path) -> None:
    try:
        read = load(path)
    except CatalogError as error:
        said = str(error)
    else:
        said = read.title
        assert all(isinstance(item, Section | Row | Note) for _, item in read.walk())
    assert said == plain(said).expandtabs(1).replace("\n", " ")
