"""A claim is decided by numbers alone, and it can fail."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readtrack.claims import Bound, Claim, judge

DROP = Bound("accuracy drop", "<=", 0.03, direction=0.10)
GAIN = Bound("speed-up", ">=", 2.0, direction=1.0)
NAN = math.nan


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
def test_each_operator_means_what_it_says(op, below, at, above):
    bound = Bound("loss", op, 1.5)
    assert (bound.holds(1.0), bound.holds(1.5), bound.holds(2.0)) == (below, at, above)
    assert not bound.holds(NAN)


@pytest.mark.parametrize(
    ("drop", "gain", "verdict"),
    [
        (0.02, 2.5, "reproduced"),
        (0.03, 2.0, "reproduced"),
        (0.05, 2.5, "weak"),
        (0.05, 1.2, "weak"),
        (0.02, 0.9, "not reproduced"),
        (0.20, 2.5, "not reproduced"),
        (NAN, 2.5, "not reproduced"),
        (0.02, NAN, "not reproduced"),
        (0.02, math.inf, "reproduced"),
        (math.inf, 2.5, "not reproduced"),
    ],
)
def test_the_verdict_follows_from_the_numbers(drop, gain, verdict):
    assert judge((DROP, GAIN), {"accuracy drop": drop, "speed-up": gain}) == verdict


def test_a_missing_metric_is_no_evidence():
    assert judge((DROP, GAIN), {"accuracy drop": 0.01}) == "not reproduced"


def test_without_a_direction_there_is_no_half_measure():
    assert judge((Bound("loss", "<", 1.0),), {"loss": 1.001}) == "not reproduced"


def test_an_exact_claim_holds_or_does_not():
    rule = (Bound("largest difference", "<=", 1e-6, direction=1.0),)
    assert judge(rule, {"largest difference": 1e-7}, exact=True) == "exact"
    assert judge(rule, {"largest difference": 1e-3}, exact=True) == "not reproduced"
    assert judge(rule, {"largest difference": 1e-3}) == "weak"


RANK = {"not reproduced": 0, "weak": 1, "reproduced": 2}


@given(
    threshold=st.floats(-10, 10),
    margin=st.floats(0, 5),
    values=st.tuples(st.floats(-20, 20), st.floats(-20, 20)),
    op=st.sampled_from([">=", ">", "<=", "<"]),
)
def test_better_numbers_never_make_a_worse_verdict(threshold, margin, values, op):
    up = op in (">=", ">")
    bound = Bound("m", op, threshold, direction=threshold - margin if up else threshold + margin)
    worse, better = sorted(values, reverse=not up)
    assert RANK[judge((bound,), {"m": worse})] <= RANK[judge((bound,), {"m": better})]


def test_a_bound_reads_as_a_formula():
    assert str(DROP) == "accuracy drop ≤ 0.03"
    assert str(Bound("rank", "==", 4)) == "rank = 4"
    assert str(Bound("gap", ">", 0.123456)) == "gap > 0.1235"


def test_a_claim_comes_back_from_json_as_it_went():
    claim = Claim(
        name="faster",
        sentence="Exact attention in less time.",
        paper="3x, Figure 1",
        rule=(DROP, GAIN),
        seeds=5,
        every_seed=True,
        control="naive",
        deviations="CPU",
    )
    assert Claim.from_json(json.loads(json.dumps(claim.to_json()))) == claim
    assert claim.judge({"accuracy drop": 0.0, "speed-up": 3.0}) == "reproduced"
