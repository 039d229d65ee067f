"""Judging over seeds, and the table: verdicts that cannot arise by chance alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from readtrack import verdicts
from readtrack.bench.judge import Speedup
from readtrack.claims import UNTRAINED, Bound, Break, Claim, Figure, at_least, at_most
from readtrack.procedure import MOST_SEEDS
from readtrack.verdict_pages import page
from readtrack.verdict_table import VerdictRow, VerdictTable, error_rates
from readtrack.verdicts import Judged, judge_over_seeds, rule_seeds

GAIN = Claim(
    name="gain",
    sentence="It gains.",
    paper=Figure("0.4", where="table 1", read="table"),
    rule=(Bound("gain", ">=", 0.2, direction=0.05),),
    breaks=(Break("no gate", "The gate stays open.", "near miss"),),
    control="the same | without",
)


def event(claim: Claim, values: dict[str, float], **more: object) -> dict[str, object]:
    return {"claim": claim.to_json(), "values": values, **more}


def over(values: list[float], claim: Claim = GAIN, metric: str = "gain", **more: object) -> Judged:
    stated = {seed: [event(claim, {metric: value}, **more)] for seed, value in enumerate(values)}
    (one,) = judge_over_seeds("paper", stated)
    return one


FIRST = [0.3, 0.31, 0.1, 0.33, 0.34]  # one of five disagrees: t is 1.7


@pytest.mark.parametrize(
    ("values", "verdict", "wants"),
    [
        ([0.3, 0.31, 0.29, 0.3, 0.32], "reproduced", 5),
        ([0.1, 0.12, 0.11, 0.09, 0.1], "weak", 5),
        ([0.01, 0.02, 0.0, 0.01, 0.02], "not reproduced", 5),
        ([-0.3, -0.2, -0.3, -0.2, -0.4], "not reproduced", 5),
        ([math.nan] * 5, "not reproduced", 5),
        ([0.05] * 5, "not reproduced", 5),  # exactly at the direction
        ([0.21, 0.9, 0.22, 0.3, 0.25], "not judged", 10),  # all five hold, but the mean is not significant
        ([0.5, 0.1, -0.6, 0.6, 0.1], "not judged", 10),
        ([0.3, 0.3, 0.3, math.nan, math.nan], "not judged", 10),
        ([*FIRST, 0.3, 0.3, 0.3, 0.3, 0.3], "reproduced", 10),
        ([*FIRST, 0.3, 0.3, 0.3, 0.3, 0.19], "reproduced", 10),  # 8 of 10, and t is 3.6
        ([0.3, -0.2, -0.25, -0.15, -0.2, 0.21, -0.1, -0.2, -0.15, -0.1], "not reproduced", 10),  # 2 of 10
        ([*FIRST, *[0.0] * 5], "not judged", 20),
        ([*FIRST, *[0.0] * 15], "not reproduced", 20),
        ([*[0.19, 0.25, 0.15, 0.26, 0.18] * 4], "weak", 20),  # undecided, but significantly above 0.05
        ([*[0.5, 0.1, -0.6, 0.6, 0.1] * 4], "inconclusive", 20),
        ([*[0.3, 0.3, 0.3, 0.3, math.nan] * 4], "reproduced", 20),  # 16 of 20
        ([*[0.3, 0.3, 0.3, 0.3, math.nan, math.nan] * 3, 0.3, 0.3], "inconclusive", 20),  # 14 of 20
    ],
)
def test_looks_at_5_10_and_20_seeds_decide(values, verdict, wants):
    one = over(values)
    assert (one.verdict, one.wants) == (verdict, wants)


def test_fewer_seeds_than_a_look_judge_nothing():
    for values in ([0.3] * 3, [0.0] * 3, [*FIRST, 0.3]):
        one = over(values)
        assert (one.verdict, one.why) == ("not judged", f"{len(values)} of {one.wants} seeds have run")


def test_seeds_after_the_look_that_decides_change_nothing():
    agreed = [0.3, 0.31, 0.32, 0.33, 0.34]
    ten = over([*agreed, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert (ten.verdict, ten.seeds, ten.held) == ("reproduced", (0, 1, 2, 3, 4), 5)


def test_an_inconclusive_claim_names_the_undecided_interval():
    one = over([0.5, 0.1, -0.6, 0.6, 0.1] * 4)
    assert one.why == "gain -0.06281 to 0.3428 (95 %)"
    weak = over([0.19, 0.25, 0.15, 0.26, 0.18] * 4)
    assert (weak.verdict, weak.why) == ("weak", "gain 0.1857 to 0.2263 (95 %)")
    ratio = replace(GAIN, rule=(Bound("ratio", "<=", 1.0, ratio=True),))
    assert over([0.25, 4.0, 0.25, 4.0] * 5, ratio, "ratio").why == "ratio 0.5139 to 1.946 (95 %)"
    partly = over([*[0.3, 0.3, 0.3, 0.3, math.nan, math.nan] * 3, 0.3, 0.3])
    assert partly.why == "gain ≥ 0.2: 14 of 20 seeds"


def test_a_control_may_fail_with_one_seed_in_five():
    claim = replace(GAIN, control_reaches=(Bound("plain", ">=", 0.5),))

    def judged(values: list[float], failed: set[int]) -> Judged:
        stated = {
            seed: [event(claim, {"gain": gain, "plain": 0.1 if seed in failed else 0.9})]
            for seed, gain in enumerate(values)
        }
        (one,) = judge_over_seeds("paper", stated)
        return one

    sure, unsure = [0.3, 0.31, 0.3, 0.32, 0.3], [0.5, 0.1, -0.6, 0.6, 0.1]
    two = judged(sure, {0, 3})
    assert (two.verdict, two.why) == ("not judged", "the control failed: plain ≥ 0.5 (2 of 5 seeds)")
    assert (two.wants, judged(sure[:3], {0, 1}).wants) == (5, 5)
    assert judged(sure, {3}).verdict == "reproduced"
    assert judged(unsure * 2, {0, 7}).wants == 20
    assert judged(unsure * 2, {0, 6, 7}).why == "the control failed: plain ≥ 0.5 (3 of 10 seeds)"
    assert judged(unsure * 4, {0, 7, 12, 14}).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("rule", "longer", "turned"),
    [
        (at_least("nats", "ours", 0.2, minus="theirs"), [0.1, 0.05], False),
        (at_least("nats", "ours", 0.2, minus="theirs"), [0.1, -0.2], True),
        (at_least("nats", "ours", -0.02, minus="theirs"), [-0.01, -0.01], False),  # equal arms satisfy it
        (at_least("nats", "ours", -0.02, minus="theirs"), [-0.01, -0.1], True),
        (at_most("nats", "ours", 0.9, over="theirs"), [0.95, 0.99], False),
        (at_most("nats", "ours", 0.9, over="theirs"), [0.9, 1.3], True),
        (at_most("nats", "ours", 0.99, over="theirs", toward=1.05), [1.02, 1.06], False),
        (at_most("nats", "ours", 0.99, over="theirs", toward=1.05), [1.02, 1.1], True),
        (at_most("nats", "ours", 0.9, over="theirs", toward=0.95), [0.96, 0.98], False),
        (at_least("nats", "ours", 0.2, minus="theirs"), [math.nan, math.nan], True),
        (at_least("nats", "ours", 0.2), [-1.0, -1.0], False),  # no arms are compared
    ],
)
def test_a_claim_whose_sign_turns_with_more_steps_is_inconclusive(rule, longer, turned):
    claim = replace(GAIN, rule=(rule,), control_arm="theirs", after_steps=100)
    sure = [0.5, 0.51, 0.52, 0.5, 0.49]
    more = over(longer, claim, rule.metric)
    one = over(sure, claim, rule.metric).after_more(more)
    assert one.verdict == ("inconclusive" if turned else "reproduced")
    assert one.why == (f"with more steps its sign turns: {rule.metric}" if turned else "")
    assert over(sure, claim, rule.metric).after_more(None).verdict == "reproduced"
    # The longer runs are the same in another verification, so only the first verdict can change.
    assert one.otherwise() == over(sure, claim, rule.metric).otherwise()
    missed = over([math.nan] * 5, claim, rule.metric)
    assert missed.after_more(more).verdict == missed.verdict


LEVEL = at_least("gain", "ours", 0.2, called="level")
LEAD = at_least("gain", "ours", 0.2, minus="theirs", toward=0.05, called="lead")
LEADS = replace(GAIN, rule=(LEVEL, LEAD), control_arm="theirs", breaks=(UNTRAINED,))
FAR, NEAR, OPEN = [0.3, 0.31, 0.29, 0.3, 0.32], [0.1, 0.12, 0.11, 0.09, 0.1], [0.5, 0.1, -0.6, 0.6, 0.1] * 4


def leads(level: list[float], lead: list[float], **more: object) -> Judged:
    pairs = enumerate(zip(level, lead, strict=True))
    stated = {seed: [event(LEADS, {"level": a, "lead": b}, **more)] for seed, (a, b) in pairs}
    (one,) = judge_over_seeds("paper", stated)
    return one


@pytest.mark.parametrize(
    ("plain", "untrained", "null", "verdict", "guards"),
    [
        # Neither run clears a bound, so every bound counts.
        (leads(OPEN, FAR * 4), leads(NEAR, NEAR), leads(NEAR, NEAR), "inconclusive", set()),
        # Bounds cleared by the control alone are left out; bounds cleared by two copies of it are false
        # positives.
        (leads(FAR, FAR), None, leads(FAR, FAR), "reproduced", {"level ≥ 0.2"}),
        (leads(FAR, FAR), leads(FAR, NEAR), None, "reproduced", {"level ≥ 0.2"}),
        (leads(FAR, FAR), leads(FAR, FAR), None, "not judged", {"level ≥ 0.2", "lead ≥ 0.2"}),
        # A guard must be cleared.
        (leads(NEAR, FAR), leads(FAR, NEAR), None, "not reproduced", set()),
        (leads(OPEN, FAR * 4), None, leads(FAR, FAR), "inconclusive", set()),
    ],
)
def test_a_bound_that_holds_without_the_idea_is_a_guard(plain, untrained, null, verdict, guards):
    judged = plain.guarded(untrained, null)
    assert (judged.verdict, set(judged.guards)) == (verdict, guards)
    row = VerdictRow.of(judged)
    said = page(VerdictTable([row], {"paper": {}}), "paper")
    assert said.count("a guard, not counted, since") == len(guards)
    assert len(guards) == 2 or row.effect.metric == "lead"


def test_coins_do_not_judge_the_control_alone():
    tossed = leads(FAR, NEAR, null="items")
    assert not leads(FAR, FAR).guarded(None, tossed).guards


def test_a_break_that_equals_the_control_is_not_a_catch():
    near = replace(GAIN, breaks=(Break("near", "Almost.", "near miss"),))
    row = VerdictRow.of(over(FAR, near), breaks={"near": "not reproduced"})
    alike = replace(row, alike={"near": "ours and theirs"})
    counted = dict(error_rates([row])), dict(error_rates([alike]))
    caught = "near misses caught, of the claims that are reproduced"
    assert counted[0][caught].startswith("1 of 1")
    assert counted[1][caught] == "not run"
    assert counted[1]["breaks equal to their control in every number (not counted)"] == "1"
    said = page(VerdictTable([alike], {"paper": {}}), "paper")
    assert "fails the rule: a null run, since ours and theirs are equal in every number" in said


def test_a_page_does_not_name_the_mode_of_a_benchmark_that_stops_at_a_goal():
    claim = replace(GAIN, rule=(Speedup("answer", over="naive", threshold=3.0, mode="until"),))
    said = page(VerdictTable([VerdictRow.of(over(FAR, claim))], {"paper": {}}), "paper")
    assert "speed of paper over naive, answer: ≥ 3" in said


def test_arms_are_alike_only_with_every_seed():
    pairs = [["a and b", "a and c"], ["a and b"]]
    stated = {seed: [event(GAIN, {"gain": 0.0}, alike=found)] for seed, found in enumerate(pairs)}
    assert judge_over_seeds("paper", stated)[0].alike == ("a and b",)


def test_a_run_without_events_is_not_judged():
    stated = {seed: [event(GAIN, {}, verdict="not judged", why="no targets")] for seed in range(5)}
    (one,) = judge_over_seeds("paper", stated)
    assert (one.verdict, one.why) == ("not judged", "no targets (5 of 5 seeds)")


def test_seeds_without_a_number_are_counted_and_not_averaged():
    assert over([0.3, 0.5, math.nan, 0.4, math.nan]).ours == "gain 0.4 (0.3 to 0.5), no number with 2 seeds"
    assert over([math.nan] * 5).ours == "gain nan, no number with 5 seeds"


def test_ratios_are_averaged_geometrically():
    ratio = replace(GAIN, rule=(Bound("ratio", "<=", 1.0, ratio=True),))
    one = over([0.25, 4.0, 0.25, 4.0, 1.0] * 4, ratio, "ratio")
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


def test_a_failed_run_or_a_changed_rule_judges_nothing():
    stated = {seed: [event(GAIN, {"gain": 0.3})] for seed in range(5)}
    (failed,) = judge_over_seeds("paper", {**stated, 3: None})
    assert (failed.verdict, failed.why) == ("not judged", "no completed run with seed 3")
    gains = [0.5, 0.1, -0.6, 0.6, 0.1, *[0.3] * 5]
    late = {seed: [event(GAIN, {"gain": gain})] for seed, gain in enumerate(gains)} | {7: None}
    assert judge_over_seeds("paper", late)[0].why == "no completed run with seed 7"
    # A claim that the first five seeds decide does not need the seventh.
    assert judge_over_seeds("paper", {**late, **stated})[0].verdict == "reproduced"
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


def test_time_is_judged_by_three_runs_of_the_benchmark():
    timed = replace(GAIN, rule=(Speedup("norm", over="naive", threshold=1.5),))
    stated = {
        seed: [event(timed, {}, verdict="not judged", why="the benchmark did not run")] for seed in range(5)
    }

    def verdict(ours: float) -> str:
        rows = [measurement("a", "naive", 300.0), measurement("b", "paper", ours)]
        return judge_over_seeds("paper", stated, [rows] * 3)[0].verdict

    assert [verdict(ours) for ours in (100.0, 250.0, 400.0)] == ["reproduced", "weak", "not reproduced"]
    rows = [measurement("a", "naive", 300.0), measurement("b", "paper", 100.0)]
    (number,) = judge_over_seeds("paper", stated, [rows] * 3)[0].numbers
    assert number.metric == "speed of paper over naive, norm, forward"
    assert number[1:4] == pytest.approx((3.0, 3.0, 3.0))  # both drift alike
    (unmeasured,) = judge_over_seeds("paper", stated)
    assert unmeasured.verdict == "not judged"
    assert unmeasured.ours == ""
    assert "not measured" in unmeasured.why


def test_a_variant_that_passes_the_rule_in_place_of_the_papers_is_a_rival():
    faster = Speedup("norm", over="naive", threshold=1.5)
    timed = replace(GAIN, rule=(faster,), rival_variants=("c",))
    stated = {seed: [event(timed, {}, verdict="not judged")] for seed in range(5)}

    def judged(*rivals: tuple[str, float]) -> Judged:
        rows = [measurement("a", "naive", 300.0), measurement("b", "paper", 100.0)]
        rows += [measurement(name, "strong", median) for name, median in rivals]
        return judge_over_seeds("paper", stated, [rows] * 3)[0]

    runs = []
    for median in (190.0, 200.0, 210.0):
        rows = [measurement("a", "naive", 300.0), measurement("b", "paper", 100.0)]
        runs.append([*rows, measurement("c", "strong", median)])
    (close,) = judge_over_seeds("paper", stated, runs)
    assert close.verdict == "not judged"
    assert close.why == "a rival could not be judged: c is too close to the threshold"

    passes, fails, absent = judged(("c", 150.0)), judged(("c", 250.0)), judged(("d", 150.0))
    assert (passes.verdict, passes.why) == ("not specific", "c passes the rule, too")
    assert (fails.verdict, fails.why) == ("reproduced", "")
    assert absent.verdict == "not judged"
    assert absent.why.endswith("there is no 'c'")
    assert [number.metric for number in fails.numbers] == [
        "speed of paper over naive, norm, forward",
        "speed of c over naive, norm, forward",
    ]
    said = page(VerdictTable([VerdictRow.of(fails)], {"paper": {}}), "paper")
    assert "- **rivals in the benchmark**: speed of c over naive, norm, forward 1.2" in said
    with pytest.raises(TypeError, match="Speedup and Growth bounds only"):
        replace(timed, rule=(*GAIN.rule, faster))


def test_a_missed_time_is_not_hidden_by_seeds_that_disagree():
    rule = (Bound("gain", ">=", 0.2), Speedup("norm", over="naive", threshold=1.5))
    both = replace(GAIN, rule=rule)
    stated = {
        seed: [event(both, {"gain": 0.1 if seed in (3, 8) else 0.3 + seed / 100})] for seed in range(10)
    }
    rows = [measurement("a", "naive", 300.0), measurement("b", "paper", 400.0)]
    (one,) = judge_over_seeds("paper", stated, [rows] * 3)
    assert (one.held, len(one.seeds), one.verdict) == (8, 10, "not reproduced")


def test_the_chance_of_another_verdict_grows_towards_the_bound():
    far, near = over([0.5, 0.52, 0.51, 0.49, 0.5]), over([0.23, 0.3, 0.25, 0.35, 0.28])
    assert far.otherwise() == 0.0
    assert near.verdict == "reproduced"
    assert 0.05 < near.otherwise() < 0.9
    assert over([math.nan] * 5).otherwise() is None
    assert over([0.3] * 4).otherwise() is None


def test_the_rules_give_the_seeds():
    seeds = rule_seeds([GAIN], MOST_SEEDS)
    assert len(set(seeds)) == MOST_SEEDS
    assert min(seeds) >= 1000
    assert rule_seeds([GAIN], 5) == seeds[:5]
    assert rule_seeds([replace(GAIN, sentence="In other words.", control="none")], MOST_SEEDS) == seeds
    assert rule_seeds([replace(GAIN, name="more", seeded_as=GAIN.name)], MOST_SEEDS) == seeds
    assert not set(rule_seeds([replace(GAIN, name="more")], MOST_SEEDS)) & set(seeds)
    moved = replace(GAIN, rule=(Bound("gain", ">=", 0.19, direction=0.05),))
    assert not set(rule_seeds([moved], MOST_SEEDS)) & set(seeds)


def test_another_procedure_takes_other_seeds(monkeypatch: pytest.MonkeyPatch):
    seeds = rule_seeds([GAIN], MOST_SEEDS)
    monkeypatch.setattr(verdicts, "PROCEDURE", verdicts.PROCEDURE + 1)
    assert not set(rule_seeds([GAIN], MOST_SEEDS)) & set(seeds)


def test_a_weak_verdict_names_the_rivals_that_have_the_effect_too():
    claim = replace(GAIN, breaks=(UNTRAINED, Break("theirs", "It is theirs.", "rival")))
    weak = replace(over([0.5, 0.51, 0.52, 0.5, 0.49], claim, "gain"), verdict="weak", why="0.1 to 0.3 (95 %)")
    assert weak.beside({"theirs": "weak"}).why == "0.1 to 0.3 (95 %); with a rival, too: theirs"
    assert weak.beside({"theirs": "reproduced"}).why.endswith("; with a rival, too: theirs")
    assert weak.beside({"theirs": "not reproduced", "untrained": "weak"}) == weak
