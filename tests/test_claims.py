"""A claim is judged only by numbers, and it can fail."""

from __future__ import annotations

import json
import math

import pytest

from readtrack.bench.judge import Growth, Speedup
from readtrack.claims import AtLeast, Bound, Break, Claim, Figure, flat

DROP = Bound("accuracy drop", "<=", 0.03, direction=0.10)
GAIN = Bound("speed-up", ">=", 2.0, direction=1.0, ratio=True)
NAN = math.nan


def claim(*rule: Bound | Speedup | Growth, **fields: object) -> Claim:
    return Claim(name="faster", sentence="It is.", paper=Figure("3x"), rule=rule or (DROP, GAIN), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("op", "below", "at", "above"),
    [
        (">=", False, True, True),
        ("<=", True, True, False),
        (">", False, False, True),
        ("<", True, False, False),
        ("==", False, True, False),
    ],
)
def test_each_operator_has_its_usual_meaning(op, below, at, above):
    bound = Bound("loss", op, 1.5)
    assert (bound.holds(1.0), bound.holds(1.5), bound.holds(2.0)) == (below, at, above)
    assert not bound.holds(NAN)


@pytest.mark.parametrize(
    ("drop", "gain", "held"),
    [
        (0.02, 2.5, "held"),
        (0.03, 2.0, "held"),
        (0.05, 2.5, "missed"),
        (0.02, 0.9, "missed"),
        (NAN, 2.5, "missed"),
        (0.02, math.inf, "held"),
        (math.inf, 2.5, "missed"),
    ],
)
def test_one_run_holds_or_misses(drop, gain, held):
    assert claim().judge({"accuracy drop": drop, "speed-up": gain}) == (held, "")


def test_a_missing_metric_is_not_evidence():
    assert claim().judge({"accuracy drop": 0.01})[0] == "missed"


def test_a_useless_control_judges_no_claim():
    with_control = claim(control_reaches=(Bound("accuracy, control", ">=", 0.9),))
    values = {"accuracy drop": 0.01, "speed-up": 3.0}
    assert with_control.judge({**values, "accuracy, control": 0.95}) == ("held", "")
    verdict, why = with_control.judge({**values, "accuracy, control": 0.5})
    assert (verdict, why) == ("not judged", "the control failed: accuracy, control ≥ 0.9")


def test_a_guard_that_fails_is_a_fault_and_not_a_verdict_on_the_paper():
    guarded = claim(guards=(Bound("change seen from the right", "==", 0.0),))
    values = {"accuracy drop": 0.01, "speed-up": 3.0, "change seen from the right": 0.1}
    assert guarded.judge(values) == ("missed", "a guard failed: change seen from the right = 0")


def test_a_lower_limit_passes_no_upper_bound():
    steps = {"steps": 400.0}
    assert claim(Bound("steps", ">=", 300)).judge(steps, ["steps"])[0] == "held"
    assert claim(Bound("steps", ">=", 500)).judge(steps, ["steps"])[0] == "missed"
    assert claim(Bound("steps", "<=", 500)).judge(steps, ["steps"])[0] == "missed"
    assert claim(Bound("steps", "<=", 500)).judge(steps)[0] == "held"
    assert AtLeast(400).value == 400


def test_the_benchmark_decides_the_bounds_on_time():
    timed = claim(DROP, Speedup("attention", over="naive", threshold=1.07))
    assert timed.metrics == ["accuracy drop"]
    assert timed.judge({"accuracy drop": 0.01}) == ("held", "")
    verdict, why, found = timed.judge_timed([])
    assert (verdict, why) == ("not judged", "not measured")
    assert list(found) == ["speed of paper over naive, attention, forward"]


def test_a_bound_reads_as_a_formula():
    assert str(DROP) == "accuracy drop ≤ 0.03"
    assert str(Bound("rank", "==", 4)) == "rank = 4"
    assert str(Bound("gap", ">", 0.123456)) == "gap > 0.1235"


def test_a_figure_names_its_source():
    assert str(Figure("BLEU 28.4", where="table 2", read="table")) == "BLEU 28.4 (table 2)"
    assert str(Figure("BLEU 28.4", where="table 2")) == "BLEU 28.4 (table 2, from memory)"
    assert str(Figure("faster", read="abstract")) == "faster"


def test_a_claim_without_a_figure_or_a_rule_is_refused():
    with pytest.raises(TypeError, match="paper must be a Figure"):
        Claim(name="old", sentence="It is.", paper="3x", rule=(DROP,))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="at least one bound"):
        Claim(name="empty", sentence="It is.", paper=Figure("3x"), rule=())


def test_a_claim_survives_json():
    there = claim(
        DROP,
        GAIN,
        Speedup("attention", over="strong", threshold=1.5, axes={"tokens": 4096}),
        Growth("attention", what="memory", axis="tokens", threshold=1.1),
        kind="theorem",
        guards=(Bound("sum", "==", 1.0),),
        control="naive",
        control_reaches=(Bound("accuracy", ">=", 0.9),),
        breaks=(Break("no tiles", "The whole matrix at once."),),
        shortcuts=("bigrams",),
        chosen_on=(0, 1),
        deviations="CPU",
        learned=(flat("naive"),),
    )
    assert Claim.from_json(there.to_json() | {"learned": []}).learned == ()
    assert Claim.from_json(json.loads(json.dumps(there.to_json()))) == there
