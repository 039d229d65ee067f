"""Measures the order of convergence, and how often starts at growing distances from the minimum converge.

Dimensions: n (weights of a logistic regression, 65).
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from readtrack.plugin import Bound, Claim, Figure, Run, hookimpl

from .model import Newton
from .problems import Problem, logistic_problem

ORDER = Claim(
    name="order of convergence",
    sentence="Close to the minimum, each step of Newton's method squares the error, and each step of "
    "gradient descent multiplies it by a constant.",
    paper=Figure(
        "Near the minimum, the error is at most a constant times the square of the previous error.",
        where="Boyd and Vandenberghe, section 9.5",
        read="secondary",
    ),
    kind="theorem",
    rule=(
        Bound("order, Newton", ">=", 1.8),
        Bound("order, Newton", "<=", 2.2),
        Bound("order, gradient descent", ">=", 0.9),
        Bound("order, gradient descent", "<=", 1.1),
    ),
    control="gradient descent with the step size 1 / (largest curvature) on the same function",
    headline=True,
    deviations="The functions are logistic regressions on three pairs of digits, in float64. The order is "
    "log(c / b) / log(b / a), where a, b and c are the last three gradient norms above 1e-13.",
)

DAMPED = Claim(
    name="share of starts that converge",
    seeded_as="share of starts that arrive",
    sentence="Newton's method converges from every start if steps are halved until the function value "
    "decreases. Full steps, shown for comparison, diverge far from the minimum.",
    paper=Figure(
        "Damped steps converge from every start on a strongly convex function.",
        where="Boyd and Vandenberghe, section 9.5",
        read="secondary",
    ),
    rule=(Bound("share that arrives, damped", ">=", 0.95),),
    kind="theorem",
    guards=(Bound("share that arrives, full, nearest starts", ">=", 0.9),),
    control="full steps from the same starts",
    deviations="The function is a logistic regression on two digits. Starts are sampled around zero with a "
    "standard deviation of 0.1 to 3. A start converges if 30 steps reach a gradient norm of 1e-8.",
    history=(
        (
            'Until November 2026 this claim was counted as measured, and the verdict was "reproduced" '
            "(5 of 5 seeds). It quotes the theorem that damped steps converge on a strongly convex function, "
            "so it is a theorem now."
        ),
    ),
)


@hookimpl
def experiment(run: Run) -> None:
    run.headline("correct digits")
    if run.wants(ORDER):
        count_digits(run)
    if run.wants(DAMPED):
        start_far_out(run)


def order(gradients: list[float]) -> float:
    """The order of convergence, log(e₂ / e₁) / log(e₁ / e₀), from the last gradient norms above 1e-13."""
    a, b, c = [e for e in gradients if e > 1e-13][-3:]
    return math.log(c / b) / math.log(b / a)


def count_digits(run: Run) -> None:
    generator = run.generator("digits")
    orders: dict[str, list[float]] = {"Newton": [], "gradient descent": []}
    rows: list[tuple[object, ...]] = []
    for pair in range(run.pick(smoke=1, quick=3, full=5)):
        problem = logistic_problem(generator)
        walks = {"Newton": newton_walk(problem), "gradient descent": gradient_walk(problem)}
        minimum = walks["Newton"][0][-1]
        for arm, (places, gradients) in walks.items():
            orders[arm].append(order(gradients))
            errors = [((x - minimum).norm() / minimum.norm()).item() for x in places]
            digits = [max(-math.log10(max(error, 1e-16)), 0.0) for error in errors]
            rows.append(
                (problem.name, arm, *(round(digit, 1) for digit in digits[1:9]), *[""] * (9 - len(digits)))
            )
            if pair == 0:
                for step, digit in enumerate(digits[:20]):
                    run.metric("correct digits", digit, step=step, arm=arm)
    columns = ("digits", "method", *(f"step {step}" for step in range(1, 9)))
    caption = "Number of correct decimal digits of the weights after each step."
    run.table("correct digits", columns, rows, caption=caption)
    values = {f"order, {arm}": sum(found) / len(found) for arm, found in orders.items()}
    for name, value in values.items():
        run.metric(name, value)
    run.claim(ORDER, values)


def newton_walk(problem: Problem) -> tuple[list[Tensor], list[float]]:
    """All iterates of a minimisation and the gradient norm at each."""
    w = nn.Parameter(problem.start.clone())
    optimizer = Newton([w], iterations=1, tolerance=0.0)
    places, gradients = [], []
    for _ in range(10):
        places.append(w.detach().clone())
        optimizer.step(lambda: problem.loss(w))
        gradients.append(optimizer.trace[0].gradient)
        if gradients[-1] < 1e-13:
            break
    return places, gradients


def gradient_walk(problem: Problem, steps: int = 200) -> tuple[list[Tensor], list[float]]:
    w = nn.Parameter(problem.start.clone())
    closure = problem.closure(w)
    curvature = torch.linalg.eigvalsh(torch.func.hessian(problem.loss)(problem.start))[-1]
    optimizer = torch.optim.SGD([w], lr=(1 / curvature).item())
    places, gradients = [], []
    for _ in range(steps):
        places.append(w.detach().clone())
        optimizer.step(closure)
        gradients.append(w.grad.norm().item())
    return places, gradients


def start_far_out(run: Run) -> None:
    arms = {"damped": partial(Newton, damped=True), "full": partial(Newton, damped=False)}
    generator = run.generator("starts")
    problem = logistic_problem(generator)
    starts = run.pick(smoke=1, quick=10, full=40)
    distances = run.pick(smoke=(0.1, 3.0), quick=(0.1, 0.3, 1.0, 3.0), full=(0.1, 0.3, 1.0, 3.0, 10.0))
    arrived: dict[str, dict[float, float]] = {arm: {} for arm in arms}
    run.axes("share that arrives", x="standard deviation of the start")
    for distance in distances:
        draws = distance * torch.randn(starts, len(problem.start), generator=generator, dtype=torch.float64)
        for arm, make in arms.items():
            run.check_cancelled()
            share = sum(arrives(make, problem, start) for start in draws) / starts
            arrived[arm][distance] = share
            run.metric("share that arrives", share, step=distance, arm=arm)
    near, far = distances[0], distances[-1]
    values = {
        "share that arrives, damped": min(arrived["damped"].values()),
        "share that arrives, full, nearest starts": arrived["full"][near],
    }
    run.metric("share that arrives, full, furthest starts", arrived["full"][far])
    for name, value in values.items():
        run.metric(name, value)
    run.claim(DAMPED, values)


def arrives(make: partial[Newton], problem: Problem, start: Tensor) -> bool:
    w = nn.Parameter(start.clone())
    optimizer = make([w], iterations=30, tolerance=1e-8)
    optimizer.step(lambda: problem.loss(w))
    return optimizer.trace[-1].gradient <= 1e-8
