"""Flags of a measured row, its closeness to the limit, and its ratio to the rival."""

from typing import Any

import pytest
import torch

from readtrack.bench import ceilings, measure
from readtrack.bench.case import Case, Cost, Variant
from readtrack.bench.measurement import MeasurementContext, VariantResult, measurement_event
from readtrack.bench.stats import summarise

CPU = torch.device("cpu")
Row = dict[str, Any]


def made_row(
    value: float,
    *,
    ceiling: float = 50.0,
    strong: float = 1e6,
    naive: float = 1e9,
    rounds: tuple[list[float], list[float]] | None = None,
    **fields: Any,
) -> Row:
    """The row of a paper's variant that takes `value` ns, with a ceiling of `ceiling` ns.

    rounds  medians of its rounds and of the strong variant's, instead of a single one
    """
    ours, theirs = rounds or ([value], [strong])

    def result(role: Any, medians: list[float], **more: Any) -> VariantResult:
        samples = [[median] * 8 for median in medians]
        timing = summarise(samples, number=1, stop="ci")
        check = measure.correctness.Check(True, (0.0, 0.0))
        return VariantResult(Variant(name=role, role=role, call=torch.matmul), check, timing, samples, **more)

    where = MeasurementContext(
        case=Case(
            name="a product",
            axes={},
            inputs=lambda generator: (torch.randn(2, 2, generator=generator),) * 2,
            variants=[Variant(name="paper", role="paper", call=torch.matmul)],
            cost={"forward": Cost(ceiling, 0.0)},
        ),
        mode="forward",
        dtype="float32",
        device="cpu",
        device_id="a",
        env_id="b",
        round_number=5,
        rounds=5,
        threads=1,
        input_sets=2,
        touched=1.0,
        cold=False,
        ceilings=ceilings.Ceilings(
            device="cpu",
            device_name="x",
            torch="2",
            threads=1,
            at="2026-01-01T00:00:00+00:00",
            flops={"float32": 1e9},
            copy=1.0,
            read=1.0,
            cache_copy=1.0,
            cache_read=1.0,
            bandwidth=[[1.0, 1.0], [2.0, 1.0]],
            in_place=[[1.0, 1.0], [2.0, 1.0]],
            launch_ns=0.1,
        ),
        quality=None,
        lock_wait_s=0.0,
    )
    paper = result("paper", ours, **fields)
    return measurement_event(
        paper, [paper, result("strong", theirs, **fields), result("naive", [naive])], where
    )


@pytest.mark.parametrize(
    ("value", "fields", "flags", "record"),
    [
        (100.0, {"strong": 90.0}, [], True),
        (48.0, {"strong": 90.0}, [], True),
        (47.0, {"strong": 90.0}, ["over-ceiling"], False),
        (100.0, {"strong": 999.0}, [], True),
        (100.0, {"strong": 1001.0}, ["review"], False),
        (100.0, {"strong": 90.0, "faults_per_call": 101.0}, ["page-faults"], True),
    ],
)
def test_flags(value: float, fields: dict[str, Any], flags: list[str], record: bool) -> None:
    found = made_row(value, **fields)
    assert found["flags"] == flags
    assert found["record"] is record
    assert found["pct_ceiling"] == pytest.approx(5_000 / value)


@pytest.mark.parametrize(
    ("value", "strong", "expected"),
    [(50.0, 100.0, 1.0), (100.0, 100.0, 0.5), (150.0, 100.0, 1 / 3), (49.0, 100.0, 1.0), (60.0, 50.0, None)],
)
def test_closeness_is_half_at_the_rival_and_one_at_the_limit(
    value: float, strong: float, expected: float | None
) -> None:
    found = made_row(value, strong=strong)["closeness"]
    assert found == (None if expected is None else pytest.approx(expected))


def versus(ours: list[float], theirs: list[float], **fields: Any) -> Row:
    """A row with these medians per round."""
    found = made_row(100.0, rounds=(ours, theirs), **fields)
    return {name: found[f"vs_strong{name}"] for name in ("", "_ci95", "_sure")}


def test_the_ratio_matches_the_shown_times() -> None:
    found = versus([100.0, 101.0, 99.0, 100.0, 400.0], [200.0, 202.0, 198.0, 200.0, 800.0])
    assert found[""] == 2.0
    # A round that was slow for both variants does not affect their ratio.
    assert found["_ci95"][1] - found["_ci95"][0] < 0.01
    assert found["_sure"]


def test_an_interval_that_holds_one_is_not_sure() -> None:
    found = versus([100.0, 110.0, 95.0, 100.0, 105.0], [104.0, 100.0, 108.0, 103.0, 101.0])
    assert found["_ci95"][0] < 1 < found["_ci95"][1]
    assert not found["_sure"]


def test_a_contended_row_has_the_ratio_of_its_minima_and_no_interval() -> None:
    found = versus([100.0, 101.0, 99.0], [200.0, 206.0, 198.0], flags=["contended"])
    assert found == {"": 198.0 / 99.0, "_ci95": None, "_sure": False}


def test_a_naive_variant_that_beats_the_strong_one_is_the_rival() -> None:
    found = made_row(100.0, strong=200.0, naive=150.0)
    assert (found["vs_naive"], found["vs_strong"]) == (1.5, 1.5)
    assert found["closeness"] == pytest.approx(1 / (1 + 50 / 100))
