"""The performance profile over all papers, with made-up measurements."""

from types import SimpleNamespace
from typing import Any

import pytest

from readtrack.bench.profile import share, standings


def row(speed: float | None, **fields: Any) -> dict[str, Any]:
    return {
        "case": "attention",
        "axes": {"tokens": 64},
        "variant": "ours",
        "role": "paper",
        "mode": "forward",
        "dtype": "float32",
        "vs_strong": speed,
        "closeness": 0.4,
        "flags": [],
        **fields,
    }


def run(paper: str, *measurements: dict[str, Any]) -> Any:
    return SimpleNamespace(paper=paper, measurements=measurements)


def test_each_case_counts_once_with_the_papers_fastest_variant() -> None:
    found = standings(
        [
            run(
                "a",
                row(0.5),
                row(0.9, variant="kernel"),
                row(2.0, axes={"tokens": 128}),
                row(3.0, role="strong"),
            ),
            run("b", row(0.7), row(0.8, mode="forward+backward", flags=["contended"])),
        ]
    )
    assert [(one.paper, one.variant, one.speed) for one in found] == [
        ("a", "kernel", 0.9),
        ("a", "ours", 2.0),
        ("b", "ours", 0.7),
        ("b", "ours", 0.8),
    ]
    assert [one.contended for one in found] == [False, False, False, True]
    assert [share(found, p) for p in (0.5, 0.7, 0.8, 1.0, 2.0, 2.1)] == [1.0, 1.0, 0.75, 0.25, 0.25, 0.0]


def test_rows_without_rival_or_time_and_rows_to_review_do_not_count() -> None:
    rows = row(None), row(0.0), row(12.0, flags=["review"]), row(1.0, role="paper compiled")
    assert standings([run("a", *rows)]) == []
    with pytest.raises(ValueError, match="no case"):
        share([], 1.0)
