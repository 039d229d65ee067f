"""The paper's variants under torch.compile, if there is a compiler."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from readtrack.bench import compiled
from readtrack.bench.case import Case, Cost, Variant
from readtrack.bench.compiled import with_compiled
from readtrack.bench.measure import run_cases

CPU = torch.device("cpu")
Row = dict[str, Any]

needs_compiler = pytest.mark.skipif(bool(compiled.missing(CPU)), reason=compiled.missing(CPU))


def many_passes(x: Tensor) -> Tensor:
    return ((x * 2).sin() * 3).cos().exp().sum(-1)


def case_of(call: Any = many_passes, **fields: Any) -> Case:
    return Case(
        **{
            "name": "passes",
            "axes": {"rows": 64},
            "inputs": lambda generator: (torch.randn(64, 256, generator=generator),),
            "variants": (
                Variant(name="naive", role="naive", call=many_passes),
                Variant(name="ours", role="paper", call=call),
            ),
            "cost": {"forward": Cost.elementwise(64 * 256, itemsize=4, flops=5)["forward"]},
            **fields,
        }
    )


def rows_of(*cases: Case) -> list[Row]:
    rows: list[Row] = []
    run_cases(
        [with_compiled(case, CPU) for case in cases],
        device=CPU,
        dtype=torch.float32,
        budget="smoke",
        seed=0,
        emit=lambda event, **fields: rows.append(fields) if event == "measurement" else None,
        check_cancelled=lambda: None,
    )
    return rows


@pytest.mark.slow
@needs_compiler
def test_the_papers_lines_are_compiled_for_each_size_and_are_right() -> None:
    other = case_of(axes={"rows": 9}, inputs=lambda generator: (torch.randn(9, 256, generator=generator),))
    rows = rows_of(case_of(), other)
    assert [(row["variant"], row["role"]) for row in rows[:3]] == [
        ("naive", "naive"),
        ("ours", "paper"),
        ("ours, compiled", "paper compiled"),
    ]
    for row in (rows[2], rows[5]):
        assert row["ok"]["passed"], row["ok"]
        assert row["t_ns"] is not None
        assert row["first_call_s"] > 20 * rows[1]["first_call_s"]
    # The paper's own compiled code does not count as a rival.
    assert [row["vs_strong"] for row in rows] == [None] * 6


@pytest.mark.slow
@needs_compiler
def test_a_module_is_compiled_with_its_weights() -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4))

    def written_out(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        hidden = torch.tanh(x @ weights["0.weight"].mT + weights["0.bias"])
        return hidden @ weights["2.weight"].mT + weights["2.bias"]

    case = Case.of_module(
        make,
        name="layers",
        axes={"rows": 8},
        inputs=lambda generator: (torch.randn(8, 16, generator=generator),),
        variants=(
            Variant(name="written out", role="naive", call=written_out),
            Variant.of_module(make, name="module", role="paper"),
        ),
        cost={"forward+backward": None},
    )
    rows = rows_of(case)
    assert rows[2]["ok"]["passed"], rows[2]
    assert rows[2]["t_ns"] is not None


def test_variants_that_do_not_compile_are_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*inputs: Any) -> Any:
        raise RuntimeError("no lowering for this")

    monkeypatch.setattr(compiled, "missing", lambda device: "")
    monkeypatch.setattr(compiled, "_compile", lambda call: fails)
    rows = rows_of(case_of())
    assert rows[1]["t_ns"] is not None
    assert rows[2]["skipped"] == "does not compile: RuntimeError: no lowering for this"
    assert (rows[2]["t_ns"], rows[2]["ok"]) == (None, None)


@needs_compiler
def test_variants_that_run_eagerly_are_not_called_compiled() -> None:
    rows = rows_of(case_of(torch.compiler.disable(many_passes)))
    assert rows[2]["skipped"] == "does not compile: no part of it becomes a graph"


def test_without_a_compiler_it_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    assert rows_of(case_of())[2]["skipped"] == "needs a C++ compiler"


def test_a_variant_that_is_skipped_is_not_compiled_either() -> None:
    missing = Variant(name="ours", role="paper", call=many_passes, needs="needs CUDA")
    case = with_compiled(case_of(variants=(missing,)), CPU)
    assert [variant.needs for variant in case.variants] == ["needs CUDA"] * 2


def test_a_goal_or_a_carried_state_is_not_compiled() -> None:
    case = case_of(cost={"until": None})
    assert with_compiled(case, CPU) is case
