"""Entries that readtrack writes are read back unchanged, by readtrack and by an independent parser
(pybtex).
"""

from __future__ import annotations

from unicodedata import normalize

from hypothesis import example, given, settings
from hypothesis import strategies as st
from pybtex.database import parse_string

from readtrack.reading_list.catalog import Paper, Source
from readtrack.text import one_line
from readtrack.transfer import bibtex

AUTHORS = ("Diederik P. Kingma", "Jimmy Ba")
PAPER = Paper("adam", "Adam", AUTHORS, 2014, (Source("arxiv", "1412.6980v9"),), (), (), "", "", "", 0)
SIGNS = st.characters(exclude_categories=["Cs", "Cc", "Cf", "Co", "Cn", "Zl", "Zp"])
TEXTS = (
    st.text(SIGNS | st.sampled_from(list("{}\\\"$%&#_~^-`'@,!?<>")), min_size=1, max_size=30)
    .map(lambda text: one_line(normalize("NFC", text)))
    .filter(bool)
)


@settings(max_examples=40, deadline=None)
@given(TEXTS)
@example("{unbalanced")
@example("100% of \\LaTeX's $x^2$ -- ``quoted'' & {braces}")
def test_a_title_comes_back(title: str) -> None:
    written = bibtex.entry(PAPER._replace(title=title))
    (entry,) = bibtex.read(written).entries
    assert entry.title == title
    (other,) = parse_string(written, "bibtex").entries.values()
    assert bibtex.decoded(other.fields["title"]) == title


def test_an_entry_by_another_parser() -> None:
    paper = PAPER._replace(authors=("Ada Lovelace", "The Team, and Friends", "et al."))
    parsed = parse_string(
        bibtex.entry(paper, {"categories": ["cs.LG"]}, tags=["gpu"], is_read=True), "bibtex"
    )
    (key,) = parsed.entries
    entry = parsed.entries[key]
    assert key == "lovelace2014adam"
    assert entry.fields["eprint"] == "1412.6980v9"
    assert entry.fields["primaryClass"] == "cs.LG"
    assert [str(person) for person in entry.persons["author"]] == [
        "Lovelace, Ada",
        "{The Team, and Friends}",
        "others",
    ]


def test_keywords_are_whole_tags_and_the_longest_end_after_a_word() -> None:
    (entry,) = bibtex.read(
        "@misc{a, title={x}, keywords={Computer Science - Computer Vision and Pattern Recognition, "
        f"{' '.join(['word'] * 16)} words, {'x' * 90}}}}}"
    ).entries
    assert entry.tags == (
        "computer-science-computer-vision-and-pattern-recognition",
        "-".join(["word"] * 16),
        "x" * 80,
    )


def test_common_entries_are_read() -> None:
    found = bibtex.read(
        r"""
@string{nips = "NeurIPS"}
@article{a, title = {The {BERT} of G{\"o}del \'etude 50% \& $x^2$}, author = "Kingma, Diederik P. and
  {The ALICE, and others} and others", date = {2014-03}, journal = nips, eprint = {1412.6980},
  archivePrefix = {arXiv}, keywords = {Deep Learning, gpu; }, readstatus = {read}}
@misc{broken, title = {x
@misc{b, title = {Link}, year = 2020, url = {https://example.org/a%20b_c}}
@article{a, title = {The same key}, year = 2021}
"""
    )
    first, second, third = found.entries
    assert first.title == "The BERT of Gödel étude 50% & $x^2$"
    assert first.authors == ("Diederik P. Kingma", "The ALICE, and others", "et al.")
    assert (first.year, first.tags, first.is_read, first.line) == (2014, ("deep-learning", "gpu"), True, 3)
    assert first.sources == (Source("arxiv", "1412.6980"),)
    assert second.sources == (Source("page", "https://example.org/a%20b_c"),)
    assert third.title == "The same key"
    assert len(found.problems) == 1
    assert found.shared == ['@string{nips = "NeurIPS"}']
