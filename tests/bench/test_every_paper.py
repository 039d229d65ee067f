"""The table of `make bench`: the paper's variants against the fastest free ones, and wrong results."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from readtrack.home import Home
from readtrack.plugins.find import find
from readtrack.runs.record import Record


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("b", Path(__file__).parents[1] / "bench_every_paper.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(role: str, time: float | None, *, wrong: str = "", **fields: Any) -> dict[str, Any]:
    plain = {"case": "c", "axes": {}, "mode": "forward", "dtype": "float32", "role": role, "variant": role}
    ok = {"passed": not wrong, "reason": wrong}
    versus = {"vs_strong": 2.0, "vs_strong_ci95": [1.9, 2.1], "flags": []}
    return {
        **plain,
        **versus,
        "ok": ok,
        "t_ns": time and {"value": time, "p50": time},
        "skipped": None,
        **fields,
    }


def record(*rows: dict[str, Any]) -> Record:
    return Record(run_id="r", paper="p", measurements=list(rows))


def test_a_paper_is_set_against_the_fastest_free_variant_of_its_case(bench: ModuleType) -> None:
    rows = (row("strong", 4.0), row("naive", 3.0), row("vendor", 1.0), row("naive", 1.0, axes={"n": 2}))
    (found,) = bench.compared(record(row("paper", 2.0), *rows))
    assert (found["paper"], found["rival"], found["speed"], found["ci95"]) == (
        "p",
        "naive (naive)",
        2.0,
        [1.9, 2.1],
    )
    assert "2.00×  1.90 to 2.10" in bench.line(found)
    assert list(bench.compared(record(row("paper", None, vs_strong=None), *rows))) == []


def test_only_variants_with_wrong_results_are_wrong(bench: ModuleType) -> None:
    slow, skipped = row("paper", 9.0, vs_strong=0.01), row("vendor", None, ok=None, skipped="needs CUDA")
    assert list(bench.mistakes(record(slow, skipped))) == []
    (mistake,) = bench.mistakes(record(slow, row("strong", None, wrong="output 0 is off by 1")))
    assert mistake.endswith("strong: output 0 is off by 1")


def test_every_plugin_is_measured(bench: ModuleType) -> None:
    shipped = [one.name for one in find(Home()).values() if one.origin == "shipped"]
    assert bench.every_paper() == sorted(shipped)
