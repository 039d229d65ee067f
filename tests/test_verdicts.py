"""Claims over several seeds: which numbers decide, and what the table says."""

from __future__ import annotations

import math
from typing import Any

import pytest

from readtrack.claims import Bound, Claim
from readtrack.verdicts import judge, markdown, seeds_wanted, tally

NAN = math.nan
GAIN = Bound("gain", ">=", 0.5, direction=0.0)


def claim(**fields: Any) -> Claim:
    return Claim(**{"name": "gains", "sentence": "It gains.", "paper": "2x", "rule": (GAIN,), **fields})


def event(stated: Claim, **values: float) -> dict[str, Any]:
    return {"claim": stated.to_json(), "values": values}


def seeds(stated: Claim, *gains: float) -> dict[int, list[dict[str, Any]]]:
    return {100 + index: [event(stated, gain=gain)] for index, gain in enumerate(gains)}


@pytest.mark.parametrize(
    ("gains", "by_mean", "by_each"),
    [
        ((0.6, 0.7, 0.8), "reproduced", "reproduced"),
        ((0.4, 0.6, 0.8), "reproduced", "weak"),
        ((-0.1, 0.9, 0.9), "reproduced", "not reproduced"),
        ((0.1, 0.2, 0.6), "weak", "weak"),
        ((-0.5, -0.5, 0.9), "not reproduced", "not reproduced"),
        ((0.9, NAN, 0.9), "not reproduced", "not reproduced"),
        ((math.inf, -math.inf, 0.9), "not reproduced", "not reproduced"),
    ],
)
def test_the_mean_decides_unless_each_seed_must_hold(
    gains: tuple[float, ...], by_mean: str, by_each: str
) -> None:
    assert [one.verdict for one in judge("p", seeds(claim(), *gains))] == [by_mean]
    assert [one.verdict for one in judge("p", seeds(claim(every_seed=True), *gains))] == [by_each]


def test_an_exact_claim_must_hold_with_each_seed() -> None:
    exact = claim(exact=True, rule=(Bound("gain", "==", 3.0),))
    assert judge("p", seeds(exact, 3.0, 3.0))[0].verdict == "exact"
    (one,) = judge("p", seeds(exact, 2.0, 4.0))
    assert (one.verdict, one.by_seed) == ("not reproduced", ("not reproduced", "not reproduced"))


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-17, 123456.789])
@pytest.mark.parametrize("count", [3, 7, 10])
def test_the_mean_of_equal_numbers_is_that_number(value: float, count: int) -> None:
    equal = claim(rule=(Bound("gain", "==", value),))
    assert judge("p", seeds(equal, *[value] * count))[0].verdict == "reproduced"


def test_without_one_of_its_seeds_a_claim_is_not_judged() -> None:
    (one,) = judge("p", {**seeds(claim(), 0.9, 0.8), 102: None})
    assert (one.verdict, one.seeds, one.why) == ("not judged", (100, 101), "no completed run with seed 102")
    assert one.ours == "gain 0.85 (0.8 to 0.9)"
    assert judge("p", {100: None}) == []


def test_a_claim_that_a_seed_did_not_state_does_not_hold() -> None:
    other = event(claim(name="other"), gain=1.0)
    stated = {100: [event(claim(), gain=0.9), other], 101: [other]}
    verdicts = {one.claim.name: one for one in judge("p", stated)}
    assert {name: one.verdict for name, one in verdicts.items()} == {
        "gains": "not reproduced",
        "other": "reproduced",
    }
    assert verdicts["gains"].ours == "gain nan (0.9 to 0.9)"


def test_a_rule_that_moves_with_the_seed_is_not_judged() -> None:
    moved = claim(rule=(Bound("gain", ">=", 0.1),))
    (one,) = judge("p", {100: [event(claim(), gain=0.9)], 101: [event(moved, gain=0.2)]})
    assert one.verdict == "not judged"
    assert "rule" in one.why


def test_numbers_beside_the_rule_are_reported_too() -> None:
    events = {seed: [event(claim(), gain=1.0, loss=float(seed))] for seed in (1, 2, 3)}
    (one,) = judge("p", events)
    assert [(s.metric, s.mean, s.low, s.high) for s in one.numbers] == [("gain", 1, 1, 1), ("loss", 2, 1, 3)]
    assert one.ours == "gain 1; loss 2 (1 to 3)"


def test_exact_claims_ask_for_no_more_seeds() -> None:
    events = [event(claim(seeds=5)), event(claim(name="identity", exact=True, seeds=9))]
    assert seeds_wanted(events) == 5
    assert seeds_wanted(events[1:]) == 0


def cells(row: str) -> list[str]:
    """The cells of a table's row as a reader of Markdown splits it: at the pipes that are not escaped."""
    row = row.replace(r"\\", "").replace(r"\|", "")
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_table_has_a_row_for_each_claim() -> None:
    each = claim(name="each", every_seed=True, rule=(GAIN, Bound("gain", "<=", 1.0)))
    judged = judge("p", seeds(claim(control="none", deviations="small"), 0.4, 0.8))
    judged += judge("q", seeds(each, 0.4, 0.8))
    page = markdown(judged, facts=[("date", "today")], remarks=[("r", "seed 100: r failed")])
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {len(cells(row)) for row in rows} == {9}
    assert cells(rows[2]) == [
        "p",
        "gains: It gains.",
        "gain ≥ 0.5 (mean)",
        "gain 0.6 (0.4 to 0.8)",
        "2x",
        "reproduced",
        "none",
        "small",
        "100 to 101",
    ]
    assert cells(rows[3])[2] == "gain ≥ 0.5, ≤ 1 (each seed)"
    assert cells(rows[3])[-1] == "100 to 101 (1 of 2 held)"
    assert "1 reproduced, 1 weak.\n" in page
    assert tally(judged) == "1 reproduced, 1 weak"
    assert "- date: today\n" in page
    assert page.endswith("## Without a verdict\n\n- r: seed 100: r failed\n")


def test_what_a_plugin_says_cannot_break_the_table() -> None:
    wild = claim(
        name="a|b\\|c",
        sentence="one\ntwo\x1b[31m\x07 <b>*bold*</b>",
        paper="[link](x) `code` $x$",
        control="\u202eevil",
        deviations="~~gone~~ &lt; _so_",
    )
    page = markdown(judge("p|q", seeds(wild, 1.0)), facts=[("machine", "a\nb")])
    (row,) = [line for line in page.splitlines() if line.startswith("| p\\|q")]
    assert len(cells(row)) == 9
    assert not any(ord(c) < 32 or c in "\x7f\u202e" for c in row)
    assert r"\<b>\*bold\*\</b>" in row
    assert r"\[link\](x) \`code\` \$x\$" in row
    assert r"\~\~gone\~\~ \&lt; \_so\_" in row
    assert "- machine: a b\n" in page


def test_a_page_without_claims_says_so() -> None:
    page = markdown([], facts=[])
    assert "No claims.\n" in page
    assert "|" not in page
