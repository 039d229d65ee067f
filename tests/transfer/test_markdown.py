"""Parsing a Markdown checklist and writing it again preserves every byte."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from readtrack.transfer.markdown import merged, parse

LINES = st.sampled_from(
    [
        *("# A title", "## A section", "### Deeper #", "#nothing", "---", "* * *", "```", "> quoted"),
        *("- [ ] a row", "  - [x] inside", "\t* [X] tab", "1. [ ] one", "- plain", "- [ ]", "    - [ ] deep"),
        *(
            "stray",
            "  more words",
            "",
            "   ",
            "\\- not a row",
            "- [link](https://example.org/a_(b))",
            "- [x](y)",
        ),
        *("- [ ] ünï 漢字 😀\u2028x", "\x1b[31m- [ ] red"),
    ]
)
FILES = st.lists(st.tuples(LINES | st.text(max_size=20), st.sampled_from(["\n", "\r\n"])), max_size=25).map(
    lambda lines: "".join(line + end for line, end in lines)
)


@settings(max_examples=80, deadline=None)
@given(FILES, st.booleans())
def test_the_items_put_together_are_the_file(text: str, cut: bool) -> None:
    text = text[:-1] if cut else text
    document = parse(text)
    assert document.source == text
    assert merged(list(document.items), [document]) == text


@settings(max_examples=40, deadline=None)
@given(FILES)
def test_new_ticks_change_ticks_alone(text: str) -> None:
    document = parse(text)
    wanted = [item.with_state("read") if item.kind == "row" else item for item in document.items]
    after = parse(merged(wanted, [document]))
    assert [(i.kind, i.text, i.depth) for i in after.items] == [
        (i.kind, i.text, i.depth) for i in document.items
    ]
    assert all(item.state == "read" for item in after.items if item.kind == "row")


def test_the_items_of_a_checklist() -> None:
    document = parse(
        "# Mine\nread one a day\n\n## One\n- [x] a\n  b\n  - [ ] inside\n\n  * plain\n- [ ] c # d\n"
        "(TODO: more)\n```\n- [ ] code\n```\n"
    )
    assert [(i.kind, i.depth, i.text, i.state) for i in document.items] == [
        ("title", 0, "Mine", "todo"),
        ("prose", 0, "read one a day", "todo"),
        ("section", 0, "One", "todo"),
        ("row", 0, "a b", "read"),
        ("row", 1, "inside", "todo"),
        ("row", 1, "plain", "todo"),
        ("row", 0, "c # d", "todo"),
        ("prose", 0, "(TODO: more)", "todo"),
        ("prose", 0, "```", "todo"),
        ("prose", 0, "- [ ] code", "todo"),
        ("prose", 0, "```", "todo"),
    ]


def test_rows_without_a_heading_stand_in_a_section_that_the_file_does_not_get() -> None:
    document = parse("- [ ] a\n")
    assert [(i.kind, i.text, i.raw) for i in document.items] == [
        ("section", "List", ""),
        ("row", "a", "- [ ] a\n"),
    ]
    assert document.source == "- [ ] a\n"
