"""Judging over seeds, and the table: verdicts that chance alone does not give."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import pytest

from readtrack.bench.judge import Speedup
from readtrack.claims import Bound, Break, Claim, Figure
from readtrack.verdict_table import Row, Table, error_rates, headline, markdown, wilson
from readtrack.verdicts import MORE_SEEDS, Judged, judge_over_seeds, needs_more, rule_seeds, settled

GAIN = Claim(
    name="gain",
    sentence="It gains.",
    paper=Figure("0.4", where="table 1", read="table"),
    rule=(Bound("gain", ">=", 0.2, direction=0.05),),
    breaks=(Break("no gate", "The gate stays open."),),
    control="the same | without",
)


def event(claim: Claim, values: dict[str, float], **more: object) -> dict[str, object]:
    return {"claim": claim.to_json(), "values": values, **more}


def over(values: list[float], claim: Claim = GAIN, metric: str = "gain", **more: object) -> Judged:
    stated = {seed: [event(claim, {metric: value}, **more)] for seed, value in enumerate(values)}
    (one,) = judge_over_seeds("paper", stated)
    return one


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.3, 0.31, 0.29, 0.3, 0.32], "reproduced"),
        ([0.21, 0.9, 0.22, 0.3, 0.25], "reproduced"),  # all five, though the mean is not sure
        ([0.1, 0.12, 0.11, 0.09, 0.1], "weak"),
        ([0.01, 0.02, 0.0, 0.01, 0.02], "not reproduced"),
        ([-0.3, -0.2, -0.3, -0.2, -0.4], "not reproduced"),
        ([0.19, 0.25, 0.15, 0.26, 0.18], "weak"),  # not surely 0.2, surely over 0.05
        ([0.5, 0.1, -0.3, 0.6, 0.1], "inconclusive"),
        ([math.nan] * 5, "not reproduced"),
        ([0.05] * 5, "not reproduced"),  # where the direction begins: nowhere
        ([0.3, 0.3, 0.3, math.nan, math.nan], "inconclusive"),
    ],
)
def test_five_seeds_decide(values, verdict):
    assert over(values).verdict == verdict


def test_fewer_seeds_decide_only_when_three_have_missed():
    assert over([0.3, 0.3, 0.3]).verdict == "not judged"
    three = over([0.1, 0.0, -0.1])
    assert (three.verdict, three.why) == ("not reproduced", "settled by 3 seeds")
    assert not settled(GAIN, [event(GAIN, {"gain": value}) for value in (0.1, 0.0, 0.3)])


def test_seeds_whose_control_failed_settle_that_nothing_is_judged():
    claim = replace(GAIN, control_reaches=(Bound("plain", ">=", 0.5),))
    failed = [{"gain": 0.0, "plain": 0.1}] * 3
    events = [event(claim, values) for values in failed]
    assert settled(claim, events[:2])
    assert not settled(claim, [*events[:1], event(claim, {"gain": 0.3, "plain": 0.9})])
    (one,) = judge_over_seeds("paper", dict(enumerate([e] for e in events)))
    assert (one.verdict, one.why) == ("not judged", "the control failed: plain ≥ 0.5 (3 of 3 seeds)")


def test_three_misses_of_five_never_come_out_reproduced():
    draw = random.Random(1)
    for _ in range(2000):
        misses = [draw.uniform(-1, 0.2) - 1e-9 for _ in range(3)]
        values = [*misses, *(0.2 + draw.expovariate(0.1) for _ in range(2))]
        assert over(values).verdict != "reproduced"


def test_a_truth_on_the_bound_passes_seldom():
    draw = random.Random(0)
    won = sum(over([draw.gauss(0.2, 0.05) for _ in range(5)]).verdict == "reproduced" for _ in range(2000))
    assert won / 2000 < 0.09  # 5 % by the mean, and 3 % by all five


def test_one_dissenter_calls_for_five_more():
    five = [0.3, 0.31, 0.1, 0.33, 0.34]
    assert needs_more([over(five)])
    assert not needs_more([over([0.3, 0.31, 0.32, 0.33, 0.34])])
    assert over([*five, 0.3, 0.3, 0.3, 0.3, 0.3]).verdict == "reproduced"
    two_dissent = over([*five, 0.3, 0.3, 0.3, 0.3, 0.19])
    assert (two_dissent.verdict, two_dissent.why) == ("inconclusive", "8 of 10 seeds held")
    assert over([0.01, 0.02, 0.3, 0.0, 0.01, *[0.0] * 5]).verdict == "not reproduced"


def test_ten_seeds_change_nothing_where_the_five_agreed():
    agreed = [0.3, 0.31, 0.32, 0.33, 0.34]
    ten = over([*agreed, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert (ten.verdict, ten.seeds, ten.held) == ("reproduced", (0, 1, 2, 3, 4), 5)


def test_ratios_are_averaged_geometrically():
    ratio = replace(GAIN, rule=(Bound("ratio", "<=", 1.0, ratio=True),))
    one = over([0.25, 4.0, 0.25, 4.0, 1.0], ratio, "ratio")
    assert one.numbers[0].mean == pytest.approx(1.0)
    assert one.verdict == "inconclusive"


def test_an_identity_must_hold_with_each_seed():
    identity = replace(GAIN, kind="identity", rule=(Bound("largest difference", "<=", 1e-6),))
    assert over([1e-7] * 5, identity, "largest difference").verdict == "held"
    assert over([1e-7] * 4 + [1e-3], identity, "largest difference").verdict == "missed"
    absent = replace(identity, control_reaches=(Bound("largest difference", ">=", 1e-8),))
    judged = over([0.0] * 5, absent, "largest difference")
    assert (judged.verdict, judged.why) == (
        "not judged",
        "the control failed: largest difference ≥ 1e-08",
    )


def test_a_control_that_fails_judges_nothing():
    with_control = replace(GAIN, control_reaches=(Bound("control", ">=", 0.9),))
    stated = {
        seed: [event(with_control, {"gain": 0.3, "control": control})]
        for seed, control in enumerate((0.95, 0.5, 0.95, 0.4, 0.95))
    }
    (one,) = judge_over_seeds("paper", stated)
    assert (one.verdict, one.why) == ("not judged", "the control failed: control ≥ 0.9 (2 of 5 seeds)")


def test_a_failed_run_or_a_changed_rule_judges_nothing():
    stated = {seed: [event(GAIN, {"gain": 0.3})] for seed in range(5)}
    (failed,) = judge_over_seeds("paper", {**stated, 3: None})
    assert (failed.verdict, failed.why) == ("not judged", "no completed run with seed 3")
    other = replace(GAIN, rule=(Bound("gain", ">=", 0.1),))
    (changed,) = judge_over_seeds("paper", {**stated, 3: [event(other, {"gain": 0.3})]})
    assert (changed.verdict, changed.why) == ("not judged", "the rule differs between seeds")
    (silent,) = judge_over_seeds("paper", {**stated, 3: []})
    assert silent.verdict == "not judged"


def test_a_value_that_was_never_reached_meets_no_upper_bound():
    steps = replace(GAIN, rule=(Bound("steps", "<=", 500),))
    assert over([400.0] * 5, steps, "steps").verdict == "reproduced"
    limited = over([400.0] * 5, steps, "steps", at_least=["steps"])
    assert limited.verdict == "not reproduced"
    assert limited.ours == "steps ≥ 400"


def measurement(variant: str, role: str, median: float) -> dict[str, object]:
    medians = [median, median * 1.01, median * 0.99, median, median * 1.005]
    return {
        "case": "norm", "axes": {}, "mode": "forward", "variant": variant, "role": role, "flags": [],
        "t_ns": {"value": median, "medians": medians},
    }  # fmt: skip


def test_time_is_judged_by_the_benchmarks_own_interval():
    timed = replace(GAIN, rule=(Speedup("norm", over="naive", threshold=1.5),))
    stated = {seed: [event(timed, {})] for seed in range(5)}

    def verdict(ours: float) -> str:
        rows = [measurement("a", "naive", 300.0), measurement("b", "paper", ours)]
        return judge_over_seeds("paper", stated, rows)[0].verdict

    assert [verdict(ours) for ours in (100.0, 250.0, 400.0)] == ["reproduced", "weak", "not reproduced"]
    rows = [measurement("a", "naive", 300.0), measurement("b", "paper", 100.0)]
    (number,) = judge_over_seeds("paper", stated, rows)[0].numbers
    assert number.metric == "speed of paper over naive, norm, forward"
    assert number[1:4] == pytest.approx((3.0, 3.0, 3.0))  # both drift alike
    (unmeasured,) = judge_over_seeds("paper", stated)
    assert unmeasured.verdict == "not judged"
    assert unmeasured.ours == ""
    assert "not measured" in unmeasured.why


def test_the_chance_of_another_verdict_grows_towards_the_bound():
    far, near = over([0.5, 0.52, 0.51, 0.49, 0.5]), over([0.21, 0.3, 0.22, 0.35, 0.21])
    assert far.otherwise() == 0.0
    assert 0.05 < near.otherwise() < 0.9
    assert over([math.nan] * 5).otherwise() is None


def test_the_rules_give_the_seeds():
    seeds = rule_seeds([GAIN], MORE_SEEDS)
    assert len(set(seeds)) == MORE_SEEDS
    assert min(seeds) >= 1000
    assert rule_seeds([GAIN], 5) == seeds[:5]
    assert rule_seeds([replace(GAIN, sentence="In other words.", control="none")], MORE_SEEDS) == seeds
    moved = replace(GAIN, rule=(Bound("gain", ">=", 0.19, direction=0.05),))
    assert not set(rule_seeds([moved], MORE_SEEDS)) & set(seeds)


# The table

FACTS = {"paper": {"budget": "quick"}}


def rows() -> list[Row]:
    identity = replace(GAIN, name="equal", kind="identity", rule=(Bound("gain", "<=", 1e-6),))
    return [
        Row.of(over([0.3, 0.31, 0.29, 0.3, 0.32]), "not reproduced", {"no gate": "not reproduced"}),
        Row.of(over([0.01] * 5), "reproduced", {"no gate": "reproduced"}),
        Row.of(over([0.0] * 5, identity)),
    ]


def test_the_head_counts_measured_claims_and_its_own_errors():
    assert headline(rows()) == "1 of 2 measured claims reproduced (1 not reproduced)"
    assert dict(error_rates(rows())) == {
        "null runs reproduced": "1 of 2 (95 % interval 9 to 91 %)",
        # A claim that is not reproduced cannot fall.
        "breaks caught, of the claims that are reproduced": "1 of 1 (95 % interval 21 to 100 %)",
    }
    assert dict(error_rates([Row.of(over([0.3] * 5))]))["null runs reproduced"] == "not run"
    # What was not judged says nothing about how often the rule is wrong.
    (_, null), (_, broken) = error_rates(
        [*rows(), Row.of(over([0.3] * 5), "not judged", {"gate": "not judged"})]
    )
    assert null == "1 of 2 (95 % interval 9 to 91 %); 1 not judged"
    assert broken == "1 of 1 (95 % interval 21 to 100 %); 1 not judged"


def test_wilsons_interval():
    low, high = wilson(0, 40)
    assert low == 0
    assert high == pytest.approx(0.0876, abs=1e-3)


def test_the_page_lists_identities_apart_and_escapes_what_markdown_would_take():
    page = markdown(Table(rows(), FACTS, [("paper", "seed 3: it <b>failed</b>")]))
    measured, others = page.split("## Identities and theorems")
    assert measured.count("| paper | gain: It gains. |") == 2
    assert "the same \\| without" in measured
    assert "0.4 (table 1)" in measured
    assert "| paper | equal: It gains. | identity |" in others
    assert "it \\<b>failed\\</b>" in others


def test_a_best_value_at_the_edge_is_marked():
    edged = over([0.3] * 5, edges=["plain: rate 0.3"])
    assert "best at the edge of the grid: plain: rate 0.3" in markdown(Table([Row.of(edged)], {}))


def test_the_json_says_the_same_and_is_json():
    body = json.loads(Table([*rows(), Row.of(over([math.nan] * 5))], FACTS).to_json())
    assert body["headline"].startswith("1 of 3 measured claims")
    assert [claim["verdict"] for claim in body["claims"][:3]] == ["reproduced", "not reproduced", "held"]
    assert body["claims"][0]["breaks"] == {"no gate": "not reproduced"}


def test_a_table_keeps_what_an_earlier_one_says_of_other_papers():
    one, other = Row.of(over([0.3] * 5)), Row.of(over([0.01] * 5))
    earlier = Table(
        [replace(other, paper="first"), other, replace(other, paper="gone")],
        {paper: {"date": "2026-01-01"} for paper in ("first", "paper", "gone")},
        [("first", "seed 3: killed"), ("paper", "seed 3: killed")],
    )
    read = Table.from_json(earlier.to_json())
    assert read.runs() == [(["first", "paper", "gone"], {"date": "2026-01-01"})]
    table = Table([one], {"paper": {"date": "2026-02-02"}}).joined(read, ["first", "paper", "last"])
    assert [(row.paper, row.verdict) for row in table.rows] == [
        ("first", "not reproduced"),
        ("paper", "reproduced"),
    ]
    assert table.remarks == [("first", "seed 3: killed")]
    page = markdown(table)
    assert "first:\n\n- date: 2026-01-01\n\npaper:\n\n- date: 2026-02-02" in page
    with pytest.raises(ValueError, match="not a table of verdicts"):
        Table.from_json('{"claims": [{}]}')
