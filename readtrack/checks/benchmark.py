"""Checks of a plugin's benchmark: every variant is correct in every precision and under autocast."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from readtrack.bench.case import Bench, Case
from readtrack.bench.measure import run_cases
from readtrack.bench.nests import mapped, tensors
from readtrack.checks.watching import Line, executed

_CPU = torch.device("cpu")


def cases_of(module: ModuleType, dtype: torch.dtype, budget: str = "smoke") -> list[Case]:
    return list(module.benchmark(Bench(device=_CPU, dtype=dtype, budget=budget)))  # type: ignore[arg-type]


def check_cases(module: ModuleType) -> None:
    """Check that every budget declares cases with the roles that a comparison needs, each point once."""
    for budget in ("smoke", "quick", "full"):
        cases = cases_of(module, torch.float32, budget)
        assert cases, f"no cases at the {budget} budget"
        points = [(case.name, *case.axes.items()) for case in cases]
        assert len(set(points)) == len(points), f"two cases at the same point: {points}"
        for case in cases:
            roles = {variant.role for variant in case.variants}
            assert {"naive", "strong", "paper"} <= roles, f"{case.name}: has only {', '.join(sorted(roles))}"


def check_implementation(module: ModuleType, experiment: set[Line]) -> None:
    """Check that cases with an oracle run the paper's own code, or an optimiser's own `update`.

    A copy in benchmark.py would not change when the paper's code is edited.

    experiment  the lines executed by a smoke run of the experiment

    The check does not detect code whose result is discarded, or copies in a plugin of one file.
    """
    compared = [case for case in cases_of(module, torch.float64) if case.cost.keys() != {"until"}]
    with executed(module) as lines:
        _measured(compared, torch.float64)
    shown = {line for line in lines if Path(line[0]).name != "benchmark.py"}
    assert shown or not compared, (
        "no case whose results are compared runs code outside of benchmark.py, so an edit of the paper's "
        "code changes nothing there"
    )
    update = getattr(module.implementation(), "update", None)
    if is_optimizer(module.implementation()) and update is not None:
        own = _lines(update)
        reached = own & lines or own.isdisjoint(experiment)  # disjoint if another paper implements `update`
        assert reached, "no case whose results are compared runs the optimiser's own update"


def _lines(implementation: object) -> set[Line]:
    """The lines of a function, or of a class with its methods."""
    source, start = inspect.getsourcelines(inspect.unwrap(implementation))  # type: ignore[arg-type]
    file = str(inspect.getsourcefile(inspect.unwrap(implementation)))  # type: ignore[arg-type]
    return {(file, start + offset) for offset in range(len(source))}


def check_variants(module: ModuleType, dtype: torch.dtype) -> None:
    """Check that every variant is correct in `dtype`. In half precision, only the paper's variants must be
    correct, and their error must be at most twice the largest error of the others, plus one rounding.
    """
    rows = _measured(cases_of(module, dtype), dtype)
    for row in rows:
        what = f"{row['case']}, {row['variant']}, {row['mode']}, {str(dtype).removeprefix('torch.')}"
        # The plugin is not responsible for a rival that is inaccurate in half precision or does not finish.
        judged = row["role"] == "paper" or (dtype.itemsize >= 4 and row["mode"] != "until")
        assert not judged or row["skipped"] or row["ok"]["passed"], f"{what}: {row['ok'].get('reason')}"
    if dtype.itemsize < 4:
        _check_errors(rows, torch.finfo(dtype).eps)


def is_optimizer(implementation: object) -> bool:
    return isinstance(implementation, type) and issubclass(implementation, torch.optim.Optimizer)


def _measured(cases: Sequence[Case], dtype: torch.dtype) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []

    def emit(event: str, **fields: Any) -> None:
        if event == "measurement":
            rows.append(fields)

    run_cases(
        cases, device=_CPU, dtype=dtype, budget="smoke", seed=0, emit=emit, check_cancelled=lambda: None
    )
    return rows


def _check_errors(rows: list[dict[str, Any]], rounding: float) -> None:
    measured = [row for row in rows if not row["skipped"] and (row["ok"] or {}).get("max_rel") is not None]
    for row in measured:
        others = [
            other["ok"]["max_rel"]
            for other in measured
            if (other["case"], other["axes"], other["mode"]) == (row["case"], row["axes"], row["mode"])
            and other["role"] in ("naive", "strong")
        ]
        if row["role"] == "paper" and others:
            error, allowed = row["ok"]["max_rel"], 2 * max(others) + rounding
            what = f"{row['case']}, {row['variant']}, {row['mode']}"
            assert error <= allowed, f"{what}: error {error:.2g}, where the others have {max(others):.2g}"


def check_autocast(module: ModuleType) -> None:
    """Check that the paper's variants run under autocast with finite results."""
    for case in cases_of(module, torch.float32):
        for variant in case.variants:
            if (
                variant.role != "paper"
                or variant.needs
                or not {"forward", "forward+backward"} & set(case.cost)
            ):
                continue
            inputs = case.inputs(torch.Generator().manual_seed(0))
            given = mapped(torch.Tensor.clone, inputs)
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
                results = variant.call(*(variant.prepare(*given) if variant.prepare else given))
            for result in tensors(results):
                if result.is_floating_point():
                    assert result.isfinite().all(), f"{case.name}, {variant.name}: not finite under autocast"


def check_optimizer(implementation: object) -> None:
    """Check that an optimiser does not change a weight without a gradient, and that its state survives a
    checkpoint.
    """
    if not is_optimizer(implementation):
        return
    assert callable(implementation)
    torch.manual_seed(0)
    moved, left = (torch.randn(3, requires_grad=True) for _ in range(2))
    before = left.detach().clone()
    # Some optimisers choose the step size themselves.
    settings = {"lr": 0.1} if "lr" in inspect.signature(implementation).parameters else {}
    optimizer = implementation([moved, left], **settings)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = moved.square().sum()
        value.backward(retain_graph=True)  # type: ignore[no-untyped-call]  # Newton's method takes further derivatives
        return value

    optimizer.step(loss)
    assert torch.equal(left.detach(), before), "a weight without a gradient has moved"
    assert moved.grad is not None
    other = implementation([moved, left], **settings)
    other.load_state_dict(optimizer.state_dict())
    assert str(other.state_dict()) == str(optimizer.state_dict()), (
        "saving and loading a checkpoint changed the state"
    )
