"""Bounds on benchmark results, with made-up measurements."""

import json
import math
import subprocess
import sys
from typing import Any

import pytest

from readtrack.bench.judge import Growth, Speedup, from_json, judge, judge_runs


def row(role: str, times: list[float], **fields: Any) -> dict[str, Any]:
    """A measurement with these medians per round."""
    value = sorted(times)[len(times) // 2] if times else None
    return {
        "case": "attention",
        "axes": {"tokens": 1024, "causal": True},
        "variant": f"the {role} one",
        "role": role,
        "mode": "forward",
        "t_ns": {"value": value, "medians": times} if times else None,
        "mem": {"peak_bytes": 1000},
        "flags": [],
        **fields,
    }


NAIVE = row("naive", [200.0, 202.0, 198.0, 201.0, 199.0])
STRONG = row("strong", [90.0, 91.0, 89.0, 90.0, 90.0])
COMPILED = row("compiled", [80.0, 81.0, 79.0, 80.0, 80.0])
PAPER = row("paper", [100.0, 101.0, 99.0, 100.0, 100.0])
MEASURED = [NAIVE, STRONG, COMPILED, PAPER]


def faster(threshold: float, over: str = "naive", **fields: Any) -> Speedup:
    return Speedup("attention", over=over, threshold=threshold, **fields)


def test_a_speedup_is_the_ratio_of_the_times_with_the_visits_interval() -> None:
    found = judge(faster(1.5), MEASURED)
    assert found.value == 2.0
    assert 1.9 < found.low < 2.0 < found.high < 2.1
    assert found.obstacle == ""


@pytest.mark.parametrize(
    ("threshold", "said"), [(1.5, "held"), (1.99, "not judged"), (2.0, "not judged"), (2.1, "missed")]
)
def test_only_a_whole_interval_decides(threshold: float, said: str) -> None:
    bound = faster(threshold)
    spread = [{**PAPER, "t_ns": {"value": 100.0, "medians": [101.0, 99.0, 100.0, 102.0, 98.0]}}, NAIVE]
    assert judge(bound, spread).verdict(bound) == said


def test_runs_are_judged_by_how_far_they_lie_apart() -> None:
    def run(factor: float) -> list[dict[str, Any]]:
        return [row("naive", [200.0 * factor] * 5), row("paper", [100.0] * 5)]

    found = judge_runs(faster(1.5), [run(1.0), run(1.1), run(1 / 1.1)])
    assert found.value == pytest.approx(2.0)
    # Student's t for two degrees of freedom is 4.303.
    reach = math.exp(4.303 * math.log(1.1) / math.sqrt(3))
    assert (found.low, found.high) == (pytest.approx(2 / reach, rel=1e-3), pytest.approx(2 * reach, rel=1e-3))
    assert judge_runs(faster(1.5), [run(1.0)] * 2).obstacle == "2 of 3 benchmarks have run"
    assert judge_runs(faster(1.5), []).obstacle == "not measured"
    contended = [row("naive", [200.0] * 5), row("paper", [100.0] * 5, flags=["contended"])]
    assert judge_runs(faster(1.5), [run(1.0), contended, run(1.0)]).obstacle == "contended"
    slopes = [[along(10, 1.0), along(20, factor)] for factor in (2.0, 2.1, 1.9)]
    exponent = judge_runs(grows(1.5), slopes)
    assert exponent.low < 0.9 < exponent.value < 1.1 < exponent.high


def test_strong_means_the_fastest_of_strong_and_compiled() -> None:
    assert judge(faster(1.0, "strong"), MEASURED).value == 0.8
    assert judge(faster(1.0, "the strong one"), MEASURED).value == 0.9
    assert judge(faster(1.0, "naive", of="strong"), MEASURED).value == 2.5


def test_a_naive_variant_that_beats_the_strong_one_is_the_rival() -> None:
    quick = row("naive", [50.0, 51.0, 49.0, 50.0, 50.0])
    assert judge(faster(1.0, "strong"), [quick, STRONG, PAPER]).value == 0.5
    assert judge(faster(1.0, "strong"), [quick, PAPER]).obstacle == "there is no 'strong'"


@pytest.mark.parametrize(
    ("measurements", "obstacle"),
    [
        ([], "not measured"),
        ([PAPER], "there is no 'naive'"),
        ([PAPER, row("naive", [], skipped="needs CUDA")], "the naive one: needs CUDA"),
        ([NAIVE, row("paper", [], ok={"passed": False, "reason": "off by 2"})], "the paper one: off by 2"),
        ([PAPER, {**NAIVE, "flags": ["contended"]}], "contended"),
        ([{**PAPER, "flags": ["over-ceiling"]}, NAIVE], "over-ceiling"),
        ([PAPER, row("naive", [200.0])], "too few rounds"),
        ([*MEASURED, row("paper", [1.0], axes={"tokens": 2})], "several points"),
    ],
)
def test_claims_that_cannot_be_judged_give_the_reason(measurements: list[Any], obstacle: str) -> None:
    bound = faster(1.5)
    found = judge(bound, measurements)
    assert obstacle in found.obstacle
    assert found.verdict(bound) == "not judged"


def test_axes_name_a_point() -> None:
    other = [
        {**NAIVE, "axes": {"tokens": 2, "causal": True}},
        {**PAPER, "axes": {"tokens": 2, "causal": True}},
    ]
    assert judge(faster(1.5, axes={"tokens": 1024}), [*MEASURED, *other]).value == 2.0
    assert judge(faster(1.5, axes={"tokens": 7}), MEASURED).obstacle == "not measured"
    assert judge(faster(1.5, mode="forward+backward"), MEASURED).obstacle == "not measured"


def along(tokens: int, factor: float, **fields: Any) -> dict[str, Any]:
    times = [factor * shift for shift in (1.0, 1.01, 0.99, 1.005, 0.995)]
    return row("paper", times, axes={"tokens": tokens}, mem={"peak_bytes": 64 * tokens}, **fields)


QUADRATIC = [along(n, n**2) for n in (100, 200, 400)]


def grows(threshold: float, what: Any = "time", **fields: Any) -> Growth:
    return Growth("attention", what=what, axis="tokens", threshold=threshold, **fields)


def test_growth_is_the_slope_on_logarithmic_scales() -> None:
    time, memory = judge(grows(1.1), QUADRATIC), judge(grows(1.1, "memory"), QUADRATIC)
    assert time.value == pytest.approx(2.0)
    # A round that affects all sizes alike does not change the slope.
    assert time.high - time.low < 1e-9
    assert (memory.value, memory.low, memory.high) == (pytest.approx(1.0),) * 3
    assert time.verdict(grows(1.1)) == "missed"
    assert memory.verdict(grows(1.1)) == "held"


def test_contention_spoils_time_and_not_memory() -> None:
    contended = [{**m, "flags": ["contended"]} for m in QUADRATIC]
    assert judge(grows(1.1), contended).obstacle == "contended"
    assert judge(grows(1.1, "memory"), contended).obstacle == ""


@pytest.mark.parametrize(
    ("bound", "measurements", "obstacle"),
    [
        (grows(1.0), QUADRATIC[:1], "a single point along tokens"),
        (grows(1.0), MEASURED, "a single point"),
        (
            grows(1.0),
            [*QUADRATIC, along(100, 1.0) | {"axes": {"tokens": 100, "heads": 2}}],
            "several points at",
        ),
        (Growth("attention", what="time", axis="causal", threshold=1), MEASURED, "not a numeric axis"),
        (Growth("attention", what="time", axis="width", threshold=1), MEASURED, "not a numeric axis"),
        (grows(1.0, "memory"), [{**m, "mem": None} for m in QUADRATIC], "memory was not measured"),
    ],
)
def test_growth_names_the_missing_part(bound: Growth, measurements: list[Any], obstacle: str) -> None:
    found = judge(bound, measurements)
    assert obstacle in found.obstacle
    assert math.isnan(found.value)


@pytest.mark.parametrize(
    "bound", [faster(1.07, axes={"tokens": 4096}), grows(1.1, "memory", of="the paper one", op="<")]
)
def test_bounds_survive_the_way_through_a_file(bound: Speedup | Growth) -> None:
    assert from_json(json.loads(json.dumps(bound.to_json()))) == bound
    hash(bound)


def test_bounds_read_as_one_line_and_name_their_metric() -> None:
    bound = faster(1.07, axes={"tokens": 4096})
    assert str(bound) == "speed of paper over naive, attention, tokens 4096, forward ≥ 1.07"
    assert str(grows(1.1)) == "growth of paper's time with tokens, attention, forward ≤ 1.1"
    assert len({b.metric for b in (bound, faster(1.07), grows(1.1), grows(1.1, "memory"))}) == 4
    assert bound.holds(bound.value({bound.metric: 1.2}))
    assert not bound.holds(bound.value({}))


def test_claims_can_be_judged_without_torch() -> None:
    code = "import sys, readtrack.bench.judge; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
