"""Replication cards: their content, safe reading of any card, and the verdicts of a replay."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pageread import Page, claim, run

from readtrack.claims import Claim
from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.library import Library
from readtrack.plugins import prints
from readtrack.report.card import Card, CardClaim, of_library, read
from readtrack.report.pages import write_card
from readtrack.report.replay import replay, spreads
from readtrack.runs import store
from readtrack.verdict_table import VerdictRow

EVIL = "</script><script>x()</script><img src=x onerror=x()> ```json\n{}\n``` | & \u202e"


def card(home: Home, *, private: bool = False, **changes: Any) -> Card:
    folder = run(home, **changes)
    prints.save(folder, {"adam/model.py": prints.of_text("a\nb\nc\n")})
    store.save_note(folder, "Grace said so")
    return of_library(Library.open(home), folder, private=private)


@pytest.mark.parametrize("suffix", ["html", "md"])
def test_a_card_is_read_back_from_both_files(home: Home, tmp_path: Path, suffix: str) -> None:
    made = card(home)
    write_card(made, tmp_path, "card")
    again = read(tmp_path / f"card.{suffix}")
    assert again == made
    assert again.command == "readtrack run adam --seed 3 --budget quick"
    assert again.code == {"adam/model.py": prints.of_text("a\nb\nc\n")}
    assert again.claims[0].values == {"gain": 0.3}


def test_a_card_is_one_page_that_needs_nothing(home: Home, tmp_path: Path) -> None:
    page_file, text_file = write_card(card(home), tmp_path, "card")
    page = Page(page_file.read_text())
    for words in ("Adam: A Method", "readtrack replay", "It gains", "0.3", "≥ 0.2", "Toy CPU"):
        assert words in page.text
    assert (page.files, page.links[1:]) == ([], [link for link in page.links[1:] if link.startswith("#m-")])
    assert "script-src" not in page.policy
    assert "| gain | 0.3 | ≥ 0.2 |" in text_file.read_text()


def test_a_card_leaves_out_private_facts(home: Home, tmp_path: Path) -> None:
    settings = {"text": "/home/ada/corpus.txt"}
    hidden = ("secretbox", "/home/ada", "Grace")
    for file in write_card(card(home, job={"settings": settings}), tmp_path, "card"):
        assert [word for word in hidden if word in file.read_text()] == []
        assert "Left out:" in file.read_text()
    for file in write_card(card(home, private=True, number=2, job={"settings": settings}), tmp_path, "mine"):
        assert [word for word in hidden if word not in file.read_text()] == []


def test_hostile_texts_end_no_script_and_no_fence(home: Home, tmp_path: Path) -> None:
    event = {
        "event": "claim",
        "claim": claim(name=EVIL, sentence=EVIL),
        "values": {"gain": 0.3},
        "why": EVIL,
        "verdict": EVIL,
        "ours": EVIL,
        "seed": 3,
        "at_least": [],
        "edges": [],
    }
    made = card(home, events=[event], job={"settings": {EVIL: EVIL}, "broken": EVIL})
    page_file, text_file = write_card(made, tmp_path, "card")
    page = Page(page_file.read_text())
    assert not {"img", "iframe"} & {tag for tag, _ in page.tags}
    assert [named.get("type") for tag, named in page.tags if tag == "script"] == ["application/json"]
    assert "<img src=x" in page.text
    lines = [line for line in text_file.read_text().splitlines() if not line.startswith("    ")]
    assert not re.search(r"(?<!\\)<script", "\n".join(lines))
    assert read(page_file) == read(text_file)


@pytest.mark.parametrize(
    "change",
    [
        {"readtrack_card": 2}, {"job": 7}, {"job": {}}, {"claims": [{}]}, {"claims": 3}, {"code": [1]},
        {"code": {"a": 7}}, {"seconds": "long"}, {"paper": None}, {"versions": []}, {"machine": None},
    ],
)  # fmt: skip
def test_a_file_that_is_not_a_card_is_refused(home: Home, tmp_path: Path, change: dict[str, Any]) -> None:
    file = tmp_path / "card.json"
    file.write_text(json.dumps({**card(home).to_json(), **change}))
    with pytest.raises(ReadtrackError, match="no replication card"):
        read(file)


def test_files_that_are_not_cards_are_refused(tmp_path: Path) -> None:
    for name, text in {"a": "", "b": "[" * 100_000, "c": "{}", "d": "# x\n```json\n{\n```\n"}.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ReadtrackError, match="no replication card"):
            read(tmp_path / name)
    (tmp_path / "link").symlink_to("a")
    for name in ("link", "nothing"):
        with pytest.raises(ReadtrackError):
            read(tmp_path / name)


@pytest.mark.parametrize("bad", [{"threshold": "0.2"}, {"op": "~"}, {"direction": []}])
def test_a_rule_that_cannot_be_compared_is_refused(home: Home, tmp_path: Path, bad: dict[str, Any]) -> None:
    body = card(home).to_json()
    body["claims"][0]["claim"]["rule"][0].update(bad)
    (tmp_path / "card").write_text(json.dumps(body))
    with pytest.raises(ReadtrackError, match="no replication card"):
        read(tmp_path / "card")


# Replay


def stated(value: float, verdict: str = "", **changes: Any) -> CardClaim:
    found = Claim.from_json(claim(**changes))
    return CardClaim(found, verdict or ("held" if value >= 0.2 else "missed"), "", {"gain": value}, ())


def test_the_verdicts_of_a_replay(home: Home) -> None:
    made = card(home)
    elsewhere = {**made.machine, "threads": 8}
    edited = {"adam/model.py": prints.of_text("a\nd\nc\n")}

    def said(there: CardClaim, here: CardClaim, **changes: Any) -> tuple[str, str]:
        a, b = replace(made, claims=(there,)), replace(made, claims=(here,), **changes)
        one, *_ = replay(a, b, {}).claims
        return one.verdict, one.why

    assert said(stated(0.3), stated(0.3)) == ("SAME", "")
    assert said(stated(0.3), stated(0.304)) == ("SAME", "")  # 4 % of the distance to 0.2
    assert said(stated(0.3), stated(0.31)) == (
        "DIFFERENT",
        "the numbers differ although code and setting are the same",
    )
    assert said(stated(0.3), stated(0.31), machine=elsewhere) == (
        "UNCLEAR",
        "the rule gives the same result for different numbers in another setting (threads: 1 there, 8 here)",
    )
    where = "the code differs: adam/model.py, line 2"
    assert said(stated(0.3), stated(0.31), code=edited) == ("DIFFERENT", where)
    assert said(stated(0.3), stated(0.3001), code=edited) == ("DIFFERENT", where)  # only the code differs
    assert said(stated(0.3), stated(0.3001), code=edited, machine=elsewhere) == ("SAME", "")
    assert said(stated(0.3), stated(0.1), code=edited) == ("DIFFERENT", where)
    assert said(stated(0.3), stated(0.3), code=edited) == ("SAME", "")
    assert said(stated(0.3), stated(0.1)) == ("DIFFERENT", "the verdicts differ")
    assert said(stated(0.201), stated(0.199)) == ("UNCLEAR", "the values lie at the threshold")
    assert said(stated(0.3), stated(0.3, "not judged"))[0] == "UNCLEAR"
    assert said(stated(0.3, "not judged"), stated(0.3, "not judged"))[0] == "SAME"
    assert said(stated(0.3, "not judged"), stated(0.3, "not judged"), code=edited) == ("UNCLEAR", where)
    assert said(stated(0.3, "not judged"), stated(0.31, "not judged"))[0] == "UNCLEAR"
    assert said(stated(0.3, "not judged"), stated(0.31, "not judged"), code=edited) == ("DIFFERENT", where)
    assert said(stated(0.3), stated(0.3, name="another"))[0] == "DIFFERENT"
    other = claim()["rule"][0] | {"threshold": 0.25}
    assert said(stated(0.3), stated(0.3, rule=[other])) == ("DIFFERENT", "the rule differs")
    assert said(stated(float("nan"), "missed"), stated(float("nan"), "missed")) == ("SAME", "")
    assert said(stated(0.3, kind="identity"), stated(0.9, kind="identity"), machine=elsewhere)[0] == "SAME"


def test_a_difference_is_measured_by_the_seeds(home: Home) -> None:
    made, setting = card(home), {"threads": 8}
    values = {"gain": (0.2, 0.3, 0.4, 0.3, 0.3)}  # standard deviation 0.07
    row = VerdictRow(
        paper="adam", claim=stated(0.3).claim, verdict="reproduced", why="", held=5, seeds=(1, 2, 3, 4, 5),
        ours="", edges=(), otherwise=None, null=None, breaks={}, values=values,
    )  # fmt: skip
    here = replace(made, claims=(stated(0.315),), machine={**made.machine, **setting})
    assert replay(made, here, {}).verdict == "UNCLEAR"
    assert replay(made, here, spreads([row])).verdict == "SAME"
    ranged = replace(row, values={}, ours="gain 0.3 (0.2 to 0.4)")  # text of the earlier procedure
    assert spreads([ranged]) == {("it gains", "gain"): pytest.approx(0.2 / 2.326)}
    assert replay(made, here, spreads([ranged])).verdict == "SAME"
    assert spreads([replace(ranged, seeds=(1,))]) == {}
    assert spreads([replace(ranged, ours="another 0.3")]) == {}


def test_another_order_of_sums_may_change_as_much_as_another_seed(home: Home) -> None:
    made = card(home)
    spread = {("it gains", "gain"): 0.05}  # 2.8 of these are 0.139
    edited = {"adam/model.py": prints.of_text("a\nd\nc\n")}

    def said(value: float, **changes: Any) -> str:
        return replay(made, replace(made, claims=(stated(value),), **changes), spread).verdict

    for elsewhere in ({"threads": 8}, {"cpu": "another", "device_name": "another"}):
        machine = {**made.machine, **elsewhere}
        assert said(0.43, machine=machine) == "SAME"
        assert said(0.45, machine=machine) == "UNCLEAR"
        assert said(0.19, machine=machine) == "UNCLEAR"  # on the other side of the threshold
        assert said(0.1, machine=machine) == "DIFFERENT"
        assert said(0.33, machine=machine, code=edited) == "DIFFERENT"
        assert said(0.33, machine=machine, code={}) == "UNCLEAR"  # it is unknown whether the code is the same
    assert said(0.43, versions={**made.versions, "torch": "9"}) == "SAME"
    for no_order in (
        {"versions": {**made.versions, "readtrack": "9"}},
        {"machine": {**made.machine, "dtype": "bfloat16"}},
    ):
        assert said(0.43, **no_order) == "UNCLEAR"
    threads = {**made.machine, "threads": 8}
    flipped = replace(made, claims=(stated(0.1),), machine=threads)
    assert replay(made, flipped, {}).verdict == "UNCLEAR"  # the spread is unknown
    assert said(0.43) == "DIFFERENT"  # nothing differs, so only chance within the run can be the cause


def test_a_card_keeps_how_many_times_as_long_arms_were_trained(home: Home, tmp_path: Path) -> None:
    made = card(home, job={"times": 3})
    write_card(made, tmp_path, "card")
    assert read(tmp_path / "card.html").job["times"] == 3
    assert made.command == "readtrack run adam --seed 3 --budget quick --times 3"


def test_where_lines_differ() -> None:
    there = prints.of_text("a\nb\nc\nd\n")
    here = prints.of_text("a\nB\nc\nd\ne\n")
    found = prints.changes({"x.py": there, "y.py": there}, {"x.py": here, "z.py": here})
    assert prints.in_words(found) == (
        "x.py, line 2; x.py, line 5; y.py, lines 1 to 4 there, not here; z.py, lines 1 to 5"
    )
    assert prints.changes({"x.py": there}, {"x.py": prints.of_text("a  \nb\nc\nd")}) == []
    broken = prints.of_text("a\nb c\n")
    assert prints.in_words(prints.changes({"x.py": broken}, {"x.py": prints.of_text("a\nb d\n")})) == (
        "x.py, line 2"
    )


SOURCE = '''"""A paper."""

import torch  # the library

@torch.no_grad()
def step(x, lr=0.1,
         beta=0.9):
    """A step."""
    if x > 0:
        x = x * beta
        y = 1
    else:
        x = 'a' 'b'
    return (x,
            lr)
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# the library", "# PyTorch"),
        ("# the library", ""),
        ("A step.", "One step of descent.\n\n    Source: section 3.\n    "),
        ('    """A step."""\n', ""),
        ('"""A paper."""', '"""Another text."""'),
        ("'a' 'b'", '"ab"'),
        ("(x,\n            lr)", "x, lr"),
        ("x, lr=0.1,\n         beta=0.9", "x, lr=0.1, beta=0.9,"),
        ("        y = 1\n", "\n        y = 1  # one\n\n"),
        ("x = x * beta\n        y = 1", "x = x * beta; y = 1"),
    ],
)
def test_a_comment_a_docstring_or_the_format_changes_no_code(old: str, new: str) -> None:
    assert old in SOURCE
    there, here = prints.of_text(SOURCE), prints.of_text(SOURCE.replace(old, new))
    assert prints.changes({"x.py": there}, {"x.py": here}) == []


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("beta=0.9", "beta=0.95", "lines 5 to 7"),
        ("@torch.no_grad()\n", "", "lines 5 to 6"),
        ("x > 0", "x >= 0", "line 9"),
        ("x * beta", "x * beta * 1.0", "line 10"),
        ("x * beta", "beta * x", "line 10"),
        ("y = 1", "y = 1.0", "line 11"),
        ("        y = 1\n    else:\n", "    else:\n        y = 1\n", "line 12"),
        ("    return (x", "        return (x", "lines 14 to 15"),
        ("'a' 'b'", "'a', 'b'", "line 13"),
        ("            lr)", "            -lr)", "lines 14 to 15"),
    ],
)
def test_edits_that_can_change_a_number_change_the_code(old: str, new: str, where: str) -> None:
    assert old in SOURCE
    there, here = prints.of_text(SOURCE), prints.of_text(SOURCE.replace(old, new))
    assert where in prints.in_words(prints.changes({"x.py": there}, {"x.py": here}))


def test_hashes_of_code_are_read_back_and_older_ones_are_unknown() -> None:
    found = {"x.py": prints.of_text(SOURCE), "empty.py": []}
    assert prints.parse(json.loads(json.dumps(prints.as_json(found)))) == found
    assert prints.parse({"x.py": "0123456789abcdef"}) == {}
