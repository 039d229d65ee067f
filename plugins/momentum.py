"""Momentum: the heavy-ball method, which speeds up descent along narrow valleys.

Polyak 1964, "Some methods of speeding up the convergence of iteration methods", doi
10.1016/0041-5553(64)90137-5.

The problem. Where the curvature differs by a factor of κ between directions, gradient descent needs steps
small enough for the steepest direction. It zigzags across the valley and creeps along its floor, and the
number of steps grows with κ.

The idea. Add a fraction of the previous step to the next one. Along the floor, steps point the same way and
accumulate. Across it, they alternate and cancel. On a quadratic, with the optimal step size and momentum for
its curvatures, the number of steps grows with √κ. No method that uses only gradients is better by more than a
constant factor. Most later optimisers also average past gradients.

This file. The heavy ball is implemented as an optimiser. The experiment counts steps on quadratics of growing
κ and compares the convergence rates with the paper's formulas. The claims follow from a theorem, so the
outcome is certain. The benchmark times both methods until they converge.

Dimensions: curvatures (the eigenvalues of a quadratic, one for each of its weights).
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.sgd import sgd as torch_sgd

from readtrack.plugin import (
    Bench,
    Bound,
    Case,
    Claim,
    Draw,
    Exercise,
    Figure,
    Run,
    Try,
    Variant,
    hookimpl,
)

from .sgd import SGD, Optimizer, Vector
from .sgd.benchmark import step_cases


class Momentum(Optimizer):
    """Stores past steps as a velocity v: wₜ − wₜ₋₁ = −lr v. Scheduling `lr` thus also rescales past steps."""

    memories = ("velocity",)

    def __init__(self, weights: Iterable[Any], lr: float, momentum: float = 0.9) -> None:
        super().__init__(weights, lr=lr, momentum=momentum)

    @staticmethod
    def update(w: Vector, g: Vector, velocity: Vector, *, t: int, lr: float, momentum: float) -> None:
        """wₜ₊₁ = wₜ − lr g + momentum (wₜ − wₜ₋₁), in place."""
        velocity.mul_(momentum).add_(g)
        w.add_(velocity, alpha=-lr)


def best_descent(lowest: float, highest: float) -> float:
    """The optimal step size of gradient descent for curvatures between `lowest` and `highest`.

    Each step then multiplies the error by (κ − 1) / (κ + 1).
    """
    return 2 / (lowest + highest)


def best_heavy_ball(lowest: float, highest: float) -> tuple[float, float]:
    """The heavy ball's optimal step size and momentum, for which each step multiplies the error by
    (√κ − 1) / (√κ + 1)."""
    a, b = math.sqrt(lowest), math.sqrt(highest)
    return 4 / (a + b) ** 2, ((b - a) / (b + a)) ** 2


@hookimpl
def implementation() -> type[Optimizer]:
    return Momentum


ROOT = Claim(
    name="steps by condition number",
    seeded_as="root of kappa",
    sentence="On quadratics, the number of steps grows with the square root of the condition number for "
    "the heavy ball, and with the condition number itself for gradient descent.",
    paper=Figure(
        "Each step multiplies the heavy ball's error by (√κ − 1) / (√κ + 1), and gradient descent's error "
        "by (κ − 1) / (κ + 1).",
        where="theorem 9",
        read="secondary",
    ),
    rule=(
        Bound("gradient descent: steps grow as kappa to the power", ">=", 0.9),
        Bound("gradient descent: steps grow as kappa to the power", "<=", 1.1),
        Bound("heavy ball: steps grow as kappa to the power", ">=", 0.4),
        Bound("heavy ball: steps grow as kappa to the power", "<=", 0.6, direction=0.9),
        Bound("smallest speed-up / root of kappa", ">=", 0.4, direction=0.0, ratio=True),
    ),
    kind="theorem",
    control="gradient descent with its optimal step size, from the same initial point",
    headline=True,
    deviations="The paper proves convergence rates near a minimum. The experiment counts steps until the "
    "error is 1e-8 of the initial error. The quadratics have 50 curvatures between 1/κ and 1, with κ = "
    "100, 1,000 and 10,000.",
)

RATE = Claim(
    name="contraction per step",
    seeded_as="rate",
    sentence="Each step multiplies the heavy ball's error by (√κ − 1) / (√κ + 1).",
    paper=Figure("(√κ − 1) / (√κ + 1) = 0.9387 for κ = 1,000.", where="theorem 9", read="secondary"),
    rule=(
        Bound("contraction, measured / formula", ">=", 0.99),
        Bound("contraction, measured / formula", "<=", 1.01),
    ),
    kind="theorem",
    control="the formula",
    deviations="The contraction is measured at κ = 1,000, between relative errors of 1e-4 and 1e-12.",
)


@hookimpl
def experiment(run: Run) -> None:
    kappas = run.pick(smoke=(10.0, 30.0, 60.0), quick=(1e2, 1e3, 1e4), full=(1e2, 1e3, 1e4, 1e5))
    steps: dict[str, list[int]] = {"gradient descent": [], "heavy ball": []}
    run.phase("train")
    run.axes("steps to 1e-8", x="condition number")
    for kappa in kappas:
        for arm, counts in steps.items():
            errors = roll(run, arm, kappa, until=1e-8)
            counts.append(len(errors) - 1)
            run.metric("steps to 1e-8", counts[-1], step=int(kappa), arm=arm)
            if kappa == kappas[1]:
                for step in range(0, len(errors), max(len(errors) // 100, 1)):
                    run.metric(f"relative error, kappa {kappa:g}", errors[step], step=step, arm=arm)
    run.phase("evaluate")
    speed_ups = [gd / hb for gd, hb in zip(*steps.values(), strict=True)]
    values = {
        f"{arm}: steps grow as kappa to the power": slope(kappas, counts) for arm, counts in steps.items()
    }
    values["smallest speed-up / root of kappa"] = min(
        speed_up / math.sqrt(kappa) for speed_up, kappa in zip(speed_ups, kappas, strict=True)
    )
    for name, value in values.items():
        run.metric(name, value)
    rows = [
        (kappa, *counts, round(speed_up, 1), round(math.sqrt(kappa), 1))
        for kappa, *counts, speed_up in zip(kappas, *steps.values(), speed_ups, strict=True)
    ]
    run.table(
        "steps", ("kappa", *steps, "speed-up", "root of kappa"), rows, caption="Steps to an error of 1e-8."
    )
    run.claim(ROOT, values)
    run.claim(RATE, {"contraction, measured / formula": contraction(run, 1e3)})


def curvatures(kappa: float) -> Float[Tensor, " curvatures"]:
    return torch.logspace(-math.log10(kappa), 0, 50, dtype=torch.float64)


def optimiser_for(arm: str, kappa: float) -> Callable[[list[Tensor]], Optimizer]:
    if arm == "gradient descent":
        return partial(SGD, lr=best_descent(1 / kappa, 1.0))
    lr, momentum = best_heavy_ball(1 / kappa, 1.0)
    return partial(Momentum, lr=lr, momentum=momentum)


def roll(run: Run, arm: str, kappa: float, *, until: float) -> list[float]:
    """Relative errors ‖wₜ‖ / ‖w₀‖ on ½ Σ curvature · w², whose minimum is 0, until they reach `until`.

    Runs on the CPU in float64, because the problem is small and the errors become tiny.
    """
    curvature = curvatures(kappa)
    w = torch.randn(50, dtype=torch.float64, generator=run.generator("draws"))
    w /= w.norm()
    optimizer = optimiser_for(arm, kappa)([w])
    errors = [1.0]
    while errors[-1] > until:
        run.check_cancelled()
        w.grad = curvature * w
        optimizer.step()
        errors.append(w.norm().item())
    return errors


def slope(x: tuple[float, ...], y: list[int]) -> float:
    """The least-squares slope of log y against log x."""
    logs = torch.tensor([x, y], dtype=torch.float64).log()
    along, up = logs - logs.mean(1, keepdim=True)
    return ((along @ up) / (along @ along)).item()


def contraction(run: Run, kappa: float) -> float:
    """The heavy ball's mean contraction per step, divided by the theoretical value."""
    errors = roll(run, "heavy ball", kappa, until=1e-12)
    first = next(step for step, error in enumerate(errors) if error <= 1e-4)
    measured = (errors[-1] / errors[first]) ** (1 / (len(errors) - 1 - first))
    root = math.sqrt(kappa)
    return measured / ((root - 1) / (root + 1))


def one_tensor_at_a_time(weights: list[Tensor], gradients: list[Tensor], velocities: list[Tensor]) -> None:
    for w, g, v in zip(weights, gradients, velocities, strict=True):
        v.copy_(0.9 * v + g)
        w -= 0.01 * v


def torch_fused(
    weights: list[Tensor], gradients: list[Tensor], velocities: list[Tensor], _: list[Tensor]
) -> None:
    plain = {"weight_decay": 0, "dampening": 0, "nesterov": False, "maximize": False}
    torch_sgd(weights, gradients, velocities, lr=0.01, momentum=0.9, fused=True, **plain)


def descend_to(
    target: float, make: Callable[[list[Tensor]], torch.optim.Optimizer], limit: int
) -> Callable[..., dict[str, int]]:
    """A function that runs until the quadratic's relative error reaches `target`, or for `limit` steps."""

    def call(start: Tensor, curvature: Tensor) -> dict[str, int]:
        w = start.clone()
        optimizer, aim = make([w]), target * start.norm()
        for step in range(1, limit + 1):
            w.grad = curvature * w
            optimizer.step()
            if step % 10 == 0 and w.norm() <= aim:
                return {"reached": True, "steps": step}
        return {"reached": False, "steps": limit}

    return call


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    yield from step_cases(
        bench,
        "momentum step",
        naive=one_tensor_at_a_time,
        strong=torch_fused,
        ours=partial(Momentum.update, t=10, lr=0.01, momentum=0.9),
        memories=1,
        flops=4,
        traffic=5,
    )

    for kappa in bench.pick(smoke=(10.0,), quick=(1e2, 1e3), full=(1e2, 1e3, 1e4)):
        lr, momentum = best_heavy_ball(1 / kappa, 1.0)
        torchs = partial(torch.optim.SGD, lr=lr, momentum=momentum, foreach=True)
        makers = {
            ("gradient descent", "naive"): optimiser_for("gradient descent", kappa),
            ("torch SGD", "strong"): torchs,
            ("heavy ball", "paper"): optimiser_for("heavy ball", kappa),
        }
        yield Case(
            name="quadratic to 1e-4",
            axes={"kappa": kappa},
            inputs=partial(quadratic, kappa=kappa),
            variants=[
                Variant(name=name, role=role, call=descend_to(1e-4, make, 10 * round(kappa)))
                for (name, role), make in makers.items()
            ],
            cost={"until": None},
        )


def quadratic(generator: torch.Generator, *, kappa: float) -> tuple[Tensor, Tensor]:
    """An initial point, and the curvatures."""
    return torch.randn(50, generator=generator), curvatures(kappa).float()


# Exercises
def of_balls(draw: Draw) -> Iterator[Try]:
    yield Try("at rest", draw(2), draw(2), 0 * draw(2), t=1, lr=0.1, momentum=0.9)
    yield Try("rolling", draw(3), draw(3), draw(3), t=2, lr=0.1, momentum=0.8)
    yield Try("no momentum", draw(2), draw(2), draw(2), t=5, lr=0.3, momentum=0.0)


def of_valleys(draw: Draw) -> Iterator[Try]:
    for lowest, highest in ((1.0, 4.0), (0.1, 10.0), (2.0, 2.0)):
        yield Try(f"curvatures from {lowest:g} to {highest:g}", lowest, highest)


EXERCISES = (
    Exercise(
        name="heavy ball",
        of="Momentum.update",
        task="Update the velocity, then the weights, in place.",
        hints=(
            "The velocity becomes momentum · velocity + g.",
            "w ← w - lr · velocity, with the new velocity.",
        ),
        tries=of_balls,
    ),
    Exercise(
        name="best settings",
        of="best_heavy_ball",
        task="Return the optimal step size and momentum for curvatures between two values.",
        hints=(
            "With a and b as the square roots of the two curvatures, the step size is 4 / (a + b)².",
            "The momentum is ((b - a) / (b + a))².",
        ),
        tries=of_valleys,
    ),
)
