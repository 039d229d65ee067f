"""Newton's method compared with solves in float64 and with scipy's minimiser, also where the Hessian is
not positive definite.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from readtrack.papers import newton
from readtrack.papers.newton import DAMPED, Newton, newton_direction
from readtrack.papers.newton.benchmark import by_conjugate_gradients, curved
from readtrack.papers.newton.experiment import order
from readtrack.papers.newton.problems import logistic_problem, network_problem, rosenbrock_problem


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def minimise(problem, **settings) -> tuple[torch.Tensor, Newton]:
    w = nn.Parameter(problem.start.clone())
    optimizer = Newton([w], **settings)
    optimizer.step(lambda: problem.loss(w))
    return w.detach(), optimizer


@pytest.mark.parametrize("n", [1, 2, 7])
def test_the_direction_solves_the_system(n: int) -> None:
    gradient, hessian = (t.double() for t in curved(generator(), n=n))
    found = newton_direction(gradient, hessian)
    assert_close(found, -torch.linalg.inv(hessian) @ gradient, rtol=1e-12, atol=1e-14)
    assert_close(found, by_conjugate_gradients(gradient, hessian), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("hessian", [torch.diag(torch.tensor([1.0, -2.0])), torch.zeros(2, 2), -torch.eye(2)])
def test_a_hessian_that_is_not_positive_definite_still_leads_downhill(hessian: torch.Tensor) -> None:
    gradient = torch.tensor([0.5, -1.0])
    direction = newton_direction(gradient, hessian)
    assert direction.isfinite().all()
    assert direction @ gradient < 0


def test_a_hessian_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        newton_direction(torch.ones(2), torch.full((2, 2), torch.nan))


def test_a_quadratic_takes_one_step() -> None:
    gradient, hessian = (t.double() for t in curved(generator(), n=5))
    for damped in (True, False):
        w = nn.Parameter(torch.randn(5, generator=generator(1), dtype=torch.float64))
        optimizer = Newton([w], damped=damped, tolerance=1e-12)
        optimizer.step(lambda w=w: w @ hessian @ w / 2 + gradient @ w)
        assert optimizer.evaluations == 2
        assert_close(w.detach(), torch.linalg.solve(hessian, -gradient), rtol=1e-10, atol=1e-12)


def test_the_hessian_covers_all_weights_and_is_zero_for_unused_ones() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1)).double()
    unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
    x, y = torch.randn(2, 9, 3, dtype=torch.float64).unbind()
    weights = [*model.parameters(), unused]
    optimizer = Newton(weights, iterations=0)
    optimizer.step(lambda: F.mse_loss(model(x), y[:, :1]))

    def loss(w: torch.Tensor) -> torch.Tensor:
        parts = w[:-2].split([p.numel() for p in model.parameters()])
        named = {
            name: part.view_as(p) for (name, p), part in zip(model.named_parameters(), parts, strict=True)
        }
        return F.mse_loss(torch.func.functional_call(model, named, x), y[:, :1])

    flat = nn.utils.parameters_to_vector(weights).detach()
    expected = torch.autograd.functional.hessian(loss, flat)
    found = optimizer.hessian()
    assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert (found[-2:] == 0).all()


@pytest.mark.parametrize("make", [logistic_problem, lambda g: rosenbrock_problem(6, g)])
def test_the_minimiser_matches_scipys(make) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    problem = make(generator(3))
    found, optimizer = minimise(problem, iterations=60, tolerance=1e-10)

    def values(x):
        w = torch.tensor(x, requires_grad=True)
        loss = problem.loss(w)
        loss.backward()
        return loss.item(), w.grad.numpy()

    hessian = torch.func.hessian(problem.loss)
    theirs = optimize.minimize(
        values, problem.start.numpy(), jac=True, hess=lambda x: hessian(torch.tensor(x)).numpy(),
        method="trust-exact", options={"gtol": 1e-10, "maxiter": 500},
    )  # fmt: skip
    assert_close(found, torch.tensor(theirs.x), rtol=1e-7, atol=1e-8)
    assert optimizer.evaluations <= 2 * theirs.nfev


def test_the_damped_steps_fall_every_time_on_a_network() -> None:
    _, optimizer = minimise(network_problem(generator(), hidden=1), iterations=5)
    losses = [one.loss for one in optimizer.trace]
    assert len(losses) == 6
    assert all(later < before for before, later in pairwise(losses))


def test_every_call_of_the_closure_is_counted() -> None:
    problem = rosenbrock_problem(2, generator())
    w, calls = nn.Parameter(problem.start.clone()), []

    def closure() -> torch.Tensor:
        calls.append(1)
        return problem.loss(w)

    optimizer = Newton([w], iterations=30)
    before = optimizer.step(closure)
    assert before == problem.loss(problem.start)
    assert optimizer.evaluations == len(calls) == optimizer.trace[-1].evaluations
    assert len(calls) > len(optimizer.trace)  # some steps were halved
    assert_close(w.detach(), torch.ones_like(w))


def test_one_group_only_and_the_defaults() -> None:
    groups = [{"params": [nn.Parameter(torch.ones(1))]} for _ in range(2)]
    with pytest.raises(ValueError, match="one parameter group"):
        Newton(groups)
    assert Newton(groups[:1]).defaults == {"iterations": 20, "tolerance": 1e-8, "damped": True}


def test_the_order_of_known_series() -> None:
    assert order([1e-1, 1e-2, 1e-4, 1e-8, 1e-16]) == pytest.approx(2)
    assert order([0.5**k for k in range(10)]) == pytest.approx(1)


def test_the_experiment_counts_starts_that_arrive(run_experiment) -> None:
    record = run_experiment(newton)
    assert [claim["claim"]["kind"] for claim in record.claims] == ["theorem", "theorem"]
    shares = {arm: dict(curve) for arm, curve in record.curves["share that arrives"].items()}
    assert shares.keys() == {"damped", "full"}
    (values,) = [c["values"] for c in record.claims if c["claim"]["name"] == DAMPED.name]
    assert values["share that arrives, damped"] == min(shares["damped"].values())
    assert values["share that arrives, full, nearest starts"] == shares["full"][0.1]


def test_the_benchmark(check_benchmark) -> None:
    check_benchmark(newton, tolerance=1e-8)
