from dataclasses import dataclass, field
from typing import Any

import pytest

from readtrack.bench.compare import compare, resolution, verdict


@dataclass
class Recorded:
    """The part of a run's record that `compare` needs."""

    paper: str = "flashattention"
    measurements: list[dict[str, Any]] = field(default_factory=list)


def measurement(p50: float = 100.0, half: float = 0.5, **fields: Any) -> dict[str, Any]:
    """A measurement of 100 ns per call with an interval of ± half a per cent."""
    ci = [p50 * (1 - half / 100), p50 * (1 + half / 100)]
    return {
        "case": "attention",
        "axes": {"tokens": 1024},
        "variant": "tiled",
        "role": "paper",
        "mode": "forward",
        "dtype": "float32",
        "device_id": "aaaa",
        "settings": {"threads": 4},
        "t_ns": {"p50": p50, "min": 0.95 * p50, "ci95": ci, "value": p50},
        "flags": [],
        "skipped": None,
        "ok": {"passed": True},
        "pct_ceiling": 60.0,
        "vs_naive": 2.0,
        "vs_strong": 0.9,
        **fields,
    }


def pair(a: dict[str, Any], b: dict[str, Any]) -> Any:
    [found] = compare(Recorded(measurements=[a]), Recorded(measurements=[b]))
    return found


@pytest.mark.parametrize(
    ("b", "half", "expected"),
    [
        (100.0, 0.5, "SAME"),
        (101.0, 0.5, "SAME"),
        (99.0, 0.5, "SAME"),
        (103.0, 0.5, "SLOWER"),
        (97.0, 0.5, "FASTER"),
        (150.0, 5.0, "SLOWER"),
        (50.0, 5.0, "FASTER"),
        # Outside the dead band, but the intervals allow no change.
        (103.0, 3.0, "UNCLEAR"),
        (97.0, 3.0, "UNCLEAR"),
        # Inside the dead band, but the intervals extend beyond it.
        (100.0, 3.0, "UNCLEAR"),
        (101.5, 0.6, "UNCLEAR"),
        # Significantly different, but by less than anyone cares about.
        (101.5, 0.1, "SAME"),
        (98.5, 0.1, "SAME"),
    ],
)
def test_the_verdict(b: float, half: float, expected: str) -> None:
    one, other = measurement(100.0, half), measurement(b, half)
    found = pair(one, other)
    assert found.verdict == expected
    assert found.ratio == pytest.approx(b / 100)
    assert found.ratio_ci95[0] < found.ratio < found.ratio_ci95[1]
    # With a and b swapped, the verdict is the opposite.
    opposite = {"FASTER": "SLOWER", "SLOWER": "FASTER"}
    assert pair(other, one).verdict == opposite.get(expected, expected)


def test_the_dead_band_is_a_parameter() -> None:
    assert verdict(100, (99.9, 100.1), 104, (103.9, 104.1), band=0.05) == "SAME"


@pytest.mark.parametrize(
    ("drifts", "band", "expected"),
    [
        (([0.001, 0.002], [0.003]), 0.02, "SLOWER"),
        (([0.01, 0.01, 0.9], [0.002]), 0.04, "SAME"),  # the noisier run counts, one noisy variant does not
        (([0.025], [0.01]), 0.10, "SAME"),
        (([None], [0.2]), 0.80, "UNCLEAR"),  # a band of 80 % is too wide for SAME
        (([], []), 0.02, "SLOWER"),
    ],
)
def test_the_dead_band_is_as_wide_as_the_machine_is_restless(
    drifts: tuple[list[float | None], ...], band: float, expected: str
) -> None:
    def run(time: float, found: list[float | None]) -> Recorded:
        rows = [measurement(time, variant="first")] + [measurement(variant=str(i)) for i in range(len(found))]
        for row, drift in zip(rows[1:], found, strict=True):
            row["t_ns"]["drift"] = drift
        return Recorded(measurements=[*rows, measurement(variant="failed", t_ns=None)])

    a, b = run(100.0, drifts[0]), run(103.0, drifts[1])
    assert resolution(a, b) == pytest.approx(band)
    assert compare(a, b)[0].verdict == expected


def test_a_contended_run_is_unclear_and_shows_the_minimum() -> None:
    found = pair(measurement(), measurement(200.0, flags=["contended"]))
    assert found.verdict == "UNCLEAR"
    assert found.ratio == pytest.approx(2.0)
    assert found.note == "contended in b"


def test_too_few_samples_are_unclear() -> None:
    times = {"p50": 300.0, "min": 290.0, "ci95": None, "value": 300.0}
    found = pair(measurement(), measurement(t_ns=times))
    assert (found.verdict, found.ratio, found.ratio_ci95) == ("UNCLEAR", 3.0, None)


@pytest.mark.parametrize(
    ("other", "note"),
    [
        ({"device_id": "bbbb"}, "different devices"),
        ({"settings": {"threads": 1}}, "different threads: 4 and 1"),
        ({"t_ns": None, "ok": {"passed": False, "reason": "off by 3"}}, "b: off by 3"),
        ({"t_ns": None, "skipped": "needs triton"}, "b: needs triton"),
    ],
)
def test_times_that_must_not_be_compared_have_no_verdict(other: dict[str, Any], note: str) -> None:
    found = pair(measurement(), measurement(**other))
    assert found.verdict is None
    assert found.ratio is None
    assert note in found.note


def test_across_devices_the_shares_stand_side_by_side() -> None:
    found = pair(measurement(), measurement(9.0, device_id="bbbb", pct_ceiling=75.0, vs_strong=0.8))
    shown = found.to_json()
    assert (shown["a"]["pct_ceiling"], shown["b"]["pct_ceiling"]) == (60.0, 75.0)
    assert (shown["a"]["vs_strong"], shown["b"]["vs_strong"]) == (0.9, 0.8)


def test_every_measurement_of_either_run_has_a_line() -> None:
    a = Recorded(measurements=[measurement(), measurement(variant="naive")])
    b = Recorded(measurements=[measurement(axes={"tokens": 2048}), measurement(variant="naive")])
    found = compare(a, b)
    assert [(c.variant, c.axes["tokens"], c.verdict, c.note) for c in found] == [
        ("tiled", 1024, None, "only in a"),
        ("naive", 1024, "SAME", ""),
        ("tiled", 2048, None, "only in b"),
    ]


def test_runs_of_two_papers_are_not_compared() -> None:
    with pytest.raises(ValueError, match="two papers: flashattention and rope"):
        compare(Recorded(), Recorded(paper="rope"))
