"""Charts as text: positions of lines and labels, for any series of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readtrack.present.chart import (
    Series,
    decimated,
    draw,
    letter,
    reach_of_most,
    wants_log,
    wants_log_x,
)
from readtrack.tui.widgets.curves import legend


def drawn(*series: Series, width: int = 40, height: int = 10, **scales: bool) -> list[str]:
    return ["".join(text for text, _ in row) for row in draw(series, width, height, **scales)]


def test_charts_as_text(golden: Callable[[str, str], None]) -> None:
    fall = Series("paper", [(x, 2 * math.exp(-x / 40) + 0.1) for x in range(0, 201, 5)])
    slow = Series("control", [(x, 2 * math.exp(-x / 90) + 0.3 * (x % 10 == 0)) for x in range(0, 201, 5)])
    sizes = Series("naive", [(n, n * n / 1e4) for n in (128, 256, 512, 1024)])
    charts = [
        drawn(fall, width=60, height=12),
        drawn(fall, slow, width=60, height=12),
        drawn(fall, slow, width=60, height=12, log_y=True),
        drawn(sizes, width=60, height=12, log_x=True, log_y=True),
    ]
    golden("charts", "\n\n".join("\n".join(chart) for chart in charts))


def test_two_arms_carry_their_letters_at_the_end() -> None:
    rows = drawn(
        Series("paper", [(0, 2.0), (100, 0.5)]), Series("control", [(0, 2.0), (100, 1.5)]), width=40, height=8
    )
    ends = {row[-1]: index for index, row in enumerate(rows) if row[-1:] in "ab" and row[-1:].strip()}
    assert ends["b"] < ends["a"]  # the control ends higher


def test_arms_that_end_together_are_distinguished() -> None:
    same = [(0, 1.0), (10, 2.0)]
    rows = drawn(*(Series(name, same) for name in "xyz"), height=8)
    assert sorted(row[-1] for row in rows if row[-1] in "abc") == ["a", "b", "c"]


def test_a_single_point_is_a_cross() -> None:
    line, point = Series("line", [(0, 0.0), (10, 0.0)]), Series("point", [(5, 1.0)])
    top = draw([line, point], 40, 10)[0]
    drawn_there = "".join(text for text, index in top if index == 1).strip()
    assert "⠀" < drawn_there[0] <= "⣿"
    assert len(drawn_there.split()[0]) >= 2  # a dot alone is one cell


def test_settings_are_drawn_in_their_order() -> None:
    tried = [(2.0, 0.0), (4.0, 1.0), (8.0, 0.0), (1.0, 1.0)]  # the last one beyond the edge of the grid
    assert list(decimated(tried, 40)) == sorted(tried)
    assert drawn(Series("loss", decimated(tried, 40))) == drawn(Series("loss", sorted(tried)))


def test_one_diverged_value_does_not_flatten_the_others() -> None:
    values = [(float(step), float(step % 10)) for step in range(100)]
    assert reach_of_most([Series("loss", values)]) is None
    assert reach_of_most([Series("loss", [(0.0, 1.0), (1.0, 1e9)])]) is None  # too few
    diverged = Series("loss", [*values, (100.0, 1e9)])
    reach = reach_of_most([diverged])
    assert reach is not None
    assert reach[0] == 0
    assert 9 <= reach[1] <= 18
    rows = ["".join(text for text, _ in row) for row in draw([diverged], 40, 12, reach=reach)]
    assert sum(any("⠀" < character <= "⣿" for character in row) for row in rows) >= 5
    assert any("⠀" < character <= "⣿" for character in rows[0])  # the outlier is at the edge


def test_each_cell_belongs_to_the_series_that_drew_it() -> None:
    low, high = Series("low", [(0, 0.0), (9, 0.0)]), Series("high", [(0, 1.0), (9, 1.0)])
    rows = draw([low, high], 30, 8)
    owners = [{index for text, index in row if index is not None} for row in rows]
    assert owners[0] == {1}
    assert owners[5] == {0}


def test_a_spike_survives_any_thinning() -> None:
    points = [(float(step), 0.0) for step in range(20_000)]
    points[12_345] = (12_345.0, 1.0)
    top = drawn(Series("loss", points), width=40, height=8)[0]
    assert any("⠀" < character <= "⣿" for character in top)


def test_a_long_series_keeps_ends_extremes_and_gaps() -> None:
    points = [(step, math.sin(step / 999)) for step in range(100_000)]
    points[50_000] = (50_000, 7.0)
    points[70_000] = (70_000, math.nan)
    points[80_000:] = [(step, math.inf) for step in range(80_000, 100_000)]
    kept = decimated(points, 200)
    assert len(kept) < 1100
    assert [x for x, _ in kept] == sorted(x for x, _ in kept)
    assert kept[0] == points[0]
    assert (50_000, 7.0) in kept
    assert any(math.isnan(y) for _, y in kept)
    assert all(math.isinf(y) for x, y in kept if x > 80_000)


def test_a_gap_stays_open() -> None:
    points = [(x, math.nan if 3 < x < 7 else 1.0) for x in range(11)]
    line = next(row for row in drawn(Series("loss", points), width=40, height=5) if max(row) > "⠀")
    middle = line[len(line) // 2 - 2 : len(line) // 2 + 4]
    assert middle.strip() == ""


def test_a_logarithmic_axis_has_round_decades_and_leaves_out_nonpositive_values() -> None:
    points = [(0, 0.0), (1, 1000.0), (2, 10.0), (3, 0.1)]
    rows = drawn(Series("loss", points), height=12, log_y=True)
    labels = [row.split("┤")[0].strip() for row in rows if "┤" in row]
    assert labels == ["1000", "100", "10", "1", "0.1"]
    assert drawn(Series("loss", [(0, -1.0)]), log_y=True) == ["no positive value yet"]


def test_a_handful_of_sizes_is_labelled_as_it_is() -> None:
    sizes = [512, 1024, 2048, 4096]
    last = drawn(Series("time", [(n, n * n) for n in sizes]), width=60, log_x=True)[-1]
    assert last.split() == ["512", "1024", "2048", "4096"]


def test_large_steps_are_written_shortly() -> None:
    last = drawn(Series("loss", [(x, 1.0) for x in range(0, 2_000_000, 1000)]), width=70)[-1]
    assert last.split() == ["0", "500k", "1M", "1.5M"]


def test_an_empty_chart_shows_a_message() -> None:
    assert drawn() == drawn(Series("loss", [])) == drawn(Series("loss", [(0, math.nan)])) == ["no points yet"]


def test_when_a_linear_axis_would_hide_values() -> None:
    assert wants_log([Series("loss", [(0, 1e-6), (1, 1.0)])])
    assert not wants_log([Series("loss", [(0, 0.5), (1, 1.0)])])
    assert not wants_log([Series("loss", [(0, -1.0), (1, 1e6)])])
    assert not wants_log([])


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([1, 4, 16, 64, 256], True),
        ([256, 64, 16, 4, 1, 1], True),
        ([512, 1024, 2048, 4096], True),
        ([1e-4, 3e-4, 1e-3, 1e-2], True),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9], False),
        ([0, 1, 4, 16, 64], False),
        ([-4, 1, 16], False),
        ([1, 2, 4], False),
        ([1, 1000], False),
        ([1, 10, math.inf], False),
        (range(0, 1000, 10), False),
        ([], False),
    ],
)
def test_points_that_are_spread_by_factors(places: list[float], expected: bool) -> None:
    assert wants_log_x([Series("time", [(x, 1.0) for x in places])]) == expected


def test_each_of_the_sizes_has_its_label() -> None:
    series = [Series("time", [(n, n) for n in (1, 4, 16, 64, 256)])]
    last = drawn(*series, width=40, log_x=wants_log_x(series))[-1]
    assert last.split() == ["1", "4", "16", "64", "256"]


def test_labels_stay_at_their_ticks() -> None:
    xs = [3.675, 7.351, 10.83, 10.93, 11.14, 11.42, 14.7, 24.5]
    line, labels = drawn(Series("mAP", [(x, x) for x in xs]), width=50, log_x=True)[-2:]
    assert labels.split() == ["3.675", "7.351", "10.83", "14.7", "24.5"]
    assert line.count("┬") == 5


def test_a_single_step_is_labelled() -> None:
    assert drawn(Series("loss", [(2, 0.5)]))[-1].split() == ["2"]


def test_letters_start_again_after_z() -> None:
    assert [letter(index) for index in (0, 25, 26)] == ["a", "z", "a"]


values = st.floats(allow_nan=True, allow_infinity=True, width=64)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 10**9), values), max_size=30), max_size=4),
    st.integers(1, 90),
    st.integers(1, 30),
    st.booleans(),
    st.booleans(),
)
def test_no_numbers_break_it(
    lines: list[list[tuple[int, float]]], width: int, height: int, log_x: bool, log_y: bool
) -> None:
    series = [Series(str(index), sorted(points, key=lambda p: p[0])) for index, points in enumerate(lines)]
    rows = draw(series, width, height, log_x=log_x, log_y=log_y)
    assert len(rows) == 1 or len(rows) == max(1, height - 2) + 2
    if len(rows) > 1 and width >= 30:
        assert max(sum(len(text) for text, _ in row) for row in rows) <= width


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e308, -1e308, 5e-324])
def test_one_value_alone_still_has_an_axis(value: float) -> None:
    rows = drawn(Series("loss", [(0, value)]), width=40, height=8)
    assert sum("┤" in row for row in rows) >= 2


@pytest.mark.parametrize(
    ("name", "x", "places", "said"),
    [
        ("loss", "", (0, 10, 20), "loss  last 0.7"),
        ("nats over steps, at the best rate", "", (1, 10, 100), "last 0.7"),
        ("accuracy over rate", "", (0.01, 0.1, 1), "0.5 to 0.9"),
        ("answers", "regions", (1, 2, 3), "0.5 to 0.9"),
        ("accuracy", "", (1, 8, 64), "0.5 to 0.9"),
    ],
)
def test_only_a_course_in_time_ends_with_its_last_value(
    name: str, x: str, places: tuple[float, ...], said: str
) -> None:
    points = list(zip(places, (0.5, 0.9, 0.7), strict=True))
    (line,) = legend([Series(name, points)], 80, name, x)
    assert line.content.plain.endswith(said)
    assert ("last" in line.content.plain) == ("last" in said)


def test_a_curve_without_numbers_is_reported() -> None:
    (line,) = legend([Series("a", [(0.1, math.nan)])], 80, "accuracy over rate")
    assert line.content.plain.endswith("a  nan")
