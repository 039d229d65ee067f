"""Null runs of a benchmark time the control under both names."""

from __future__ import annotations

import pytest
import torch

from readtrack.bench.case import Case, Cost, Variant
from readtrack.bench.judge import Speedup
from readtrack.bench.null import null_case
from readtrack.claims import Claim, Figure
from readtrack.verdicts import judge_null_times

CALLS = {name: (lambda x, by=by: x * by) for by, name in enumerate(["loop", "fused", "ours", "Mamba"])}
CASE = Case(
    name="step",
    axes={},
    inputs=lambda generator: (torch.ones(1),),
    variants=[
        Variant(name="loop", role="naive", call=CALLS["loop"]),
        Variant(name="fused", role="strong", call=CALLS["fused"]),
        Variant(name="rare", role="strong", call=CALLS["fused"], needs="needs CUDA"),
        Variant(name="ours", role="paper", call=CALLS["ours"]),
        Variant(name="Mamba", role="paper", call=CALLS["Mamba"]),
    ],
    cost={"forward": Cost(flops=1, bytes=1)},
)


def made(bound: Speedup) -> dict[str, tuple[str, object]]:
    return {one.name: (one.role, one.call) for one in null_case(CASE, [bound]).variants if not one.needs}


def test_the_strong_variant_also_takes_the_papers_role() -> None:
    found = made(Speedup("step", over="strong", threshold=2.0))
    assert found.keys() == {"loop", "fused", "fused, again", "loop, again"}
    assert found["fused, again"] == ("paper", CALLS["fused"])
    assert found["loop, again"] == ("paper", CALLS["loop"])


def test_a_variant_that_the_bound_names_is_replaced_under_its_name() -> None:
    found = made(Speedup("step", of="Mamba", over="strong", threshold=2.0))
    assert found["Mamba"] == ("paper", CALLS["fused"])
    assert found["ours"] == ("paper", CALLS["ours"])


def test_other_cases_stay() -> None:
    assert null_case(CASE, [Speedup("other", over="strong", threshold=2.0)]) == CASE


def measured(ratio: float) -> list[dict[str, object]]:
    def row(name: str, role: str, time: float) -> dict[str, object]:
        value = {"value": time, "medians": [time] * 3}
        return {"case": "step", "mode": "forward", "axes": {}, "variant": name, "role": role, "t_ns": value}

    return [row("fused", "strong", 100.0 * ratio), row("fused, again", "paper", 100.0)]


@pytest.mark.parametrize(
    ("threshold", "ratios", "verdict"),
    [
        (1.5, [1.0, 1.01, 0.99], "not reproduced"),
        (1.01, [1.2, 1.21, 1.19], "reproduced"),  # the timing itself is biased
        (0.9, [1.0, 1.01, 0.99], "inconclusive"),  # equal times satisfy it, neither is significantly faster
    ],
)
def test_equal_times_must_not_satisfy_the_claim(threshold, ratios, verdict) -> None:
    bound = Speedup("step", over="strong", threshold=threshold)
    claim = Claim(name="fast", sentence="It is.", paper=Figure(""), rule=(bound,))
    judged = judge_null_times("p", claim, [1, 2, 3, 4, 5], [measured(ratio) for ratio in ratios])
    assert judged is not None
    assert (judged.verdict, judged.null_kind) == (verdict, "times")
