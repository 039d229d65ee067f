"""Measures the noise floors of constant step sizes, and the effect of the paper's two step-size conditions.

Dimensions: repeats (independent walks, in parallel), features.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from readtrack.plugin import Bound, Claim, Figure, Run, hookimpl

from .model import SGD

FLOOR = Claim(
    name="noise floor",
    sentence="SGD with a constant step size stalls at a noise floor proportional to the step size. With a "
    "step size of 1/t, it keeps converging.",
    paper=Figure(
        "Convergence is proved for step sizes of the type 1/t, whose squares have a finite sum. The paper "
        "has no experiment.",
        where="theorem 2",
        read="secondary",
    ),
    rule=(
        Bound("floor of 0.05 / floor of 0.025", ">=", 1.5, direction=1.0, ratio=True),
        Bound("floor of 0.05 / floor of 0.025", "<=", 3.0, ratio=True),
        Bound("floor of 0.025 / floor of 0.0125", ">=", 1.5, direction=1.0, ratio=True),
        Bound("floor of 0.025 / floor of 0.0125", "<=", 3.0, ratio=True),
        Bound("end of 1/t / lowest floor", "<=", 0.1, direction=1.0, ratio=True),
    ),
    kind="theorem",
    control="constant step sizes on the same measurements",
    headline=True,
    deviations="The paper proves convergence and has no experiment. Our problem is least squares with one "
    "sample per step and 20,000 steps.",
)

TOO_FAST = Claim(
    name="step sizes with a finite sum",
    seeded_as="too fast",
    sentence="SGD with step sizes that shrink so fast that their sum is finite stops before it reaches the "
    "root.",
    paper=Figure("The paper requires that the sum of the step sizes is infinite.", read="secondary"),
    rule=(Bound("end of 1/t² / end of 1/t", ">=", 10.0, direction=1.0, ratio=True),),
    kind="theorem",
    control="a step size of 1/t on the same measurements, with the same initial step size",
    deviations="The paper proves convergence and has no experiment. Our problem is least squares with one "
    "sample per step and 20,000 steps. Both runs start with a step size of 1/20.",
)

SCHEDULES: dict[str, Callable[[int], float]] = {
    "0.05": lambda t: 0.05,
    "0.025": lambda t: 0.025,
    "0.0125": lambda t: 0.0125,
    "1/t": lambda t: 1 / (20 + t),
    "1/t²": lambda t: 20 / (20 + t) ** 2,
}


@hookimpl
def experiment(run: Run) -> None:
    run.headline("excess loss")
    end = walk(run, steps=run.pick(smoke=200, quick=20_000, full=100_000))
    floors = [end[arm] for arm in ("0.05", "0.025", "0.0125")]
    values = {
        "floor of 0.05 / floor of 0.025": floors[0] / floors[1],
        "floor of 0.025 / floor of 0.0125": floors[1] / floors[2],
        "end of 1/t / lowest floor": end["1/t"] / min(floors),
    }
    run.claim(FLOOR, values)
    run.claim(TOO_FAST, {"end of 1/t² / end of 1/t": end["1/t²"] / end["1/t"]})


def walk(run: Run, *, steps: int) -> dict[str, float]:
    """Run least squares on single samples. Every schedule gets the same samples.

    Return each schedule's excess loss, averaged over all repeats and the last quarter of the steps.
    """
    rows, features, repeats = 2000, 10, 16
    generator = run.generator("samples")
    # Float64, because the last digits of LAPACK's results depend on the memory address of a matrix.
    x = torch.randn(rows, features, generator=generator).double()
    y = x @ torch.randn(features, 1, generator=generator).double() + torch.randn(rows, 1, generator=generator)
    root, curvature = torch.linalg.lstsq(x, y).solution.mT, x.mT @ x / rows
    x, y, root, curvature = (matrix.to(run.device, run.dtype) for matrix in (x, y, root, curvature))

    def excess_loss(w: Float[Tensor, "repeats features"]) -> float:
        off = w - root
        return (off @ curvature * off).sum(-1).mean().item() / 2

    walks = {arm: nn.Parameter(torch.zeros(repeats, features).to(x)) for arm in SCHEDULES}
    optimizer = SGD([{"params": [w], "arm": arm} for arm, w in walks.items()], lr=0.0)
    ends: dict[str, list[float]] = {arm: [] for arm in SCHEDULES}
    run.phase("train")
    for step in run.steps(steps):
        sample = torch.randint(rows, (repeats,), generator=generator).to(run.device)
        measured, target = x[sample], y[sample]
        for group in optimizer.param_groups:
            w = group["params"][0]
            group["lr"] = SCHEDULES[group["arm"]](step)
            residual = (w.detach() * measured).sum(-1, keepdim=True) - target
            w.grad = residual * measured
        optimizer.step()
        if step % 100 == 99:
            for arm, w in walks.items():
                excess = excess_loss(w.detach())
                run.metric("excess loss", excess, step=step + 1, arm=arm)
                if step >= 0.75 * steps:
                    ends[arm].append(excess)
    end = {arm: sum(values) / len(values) for arm, values in ends.items()}
    for arm, excess in end.items():
        run.metric("excess loss, last quarter", excess, arm=arm)
    return end
