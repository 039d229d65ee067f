"""SGD compared with torch's, the base class of its family, and the family's test problems."""

from __future__ import annotations

import inspect
import math
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from readtrack import data
from readtrack.papers import rmsprop, sgd
from readtrack.papers.adam import Adam
from readtrack.papers.adamw import SGDW, AdamW
from readtrack.papers.momentum import Momentum
from readtrack.papers.rmsprop import RMSProp
from readtrack.papers.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from readtrack.papers.sgd import SGD, trials
from readtrack.papers.sgd.benchmark import until_case
from readtrack.papers.sgd.experiment import SCHEDULES
from readtrack.plugin import Bench, Run, Trial
from readtrack.runs.events import EventWriter
from readtrack.runs.trial import Work, Workshop


def test_every_step_matches_torchs(assert_same_walk):
    assert_same_walk(partial(SGD, lr=0.03), partial(torch.optim.SGD, lr=0.03), rtol=0, atol=1e-12)


def test_steps_may_shrink(assert_same_walk):
    assert_same_walk(
        partial(SGD, lr=0.5),
        partial(torch.optim.SGD, lr=0.5),
        schedule=lambda t: 1 / (1 + t),
        rtol=0,
        atol=1e-12,
    )


def test_a_scheduler_of_torchs_makes_them_shrink():
    w = torch.zeros(1, requires_grad=True)
    optimizer = SGD([w], lr=0.5)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (1 + t))
    places = []
    for _ in range(4):
        w.grad = -torch.ones(1)
        optimizer.step()
        scheduler.step()
        places.append(w.item())
    assert places == pytest.approx([0.5, 0.75, 0.75 + 1 / 6, 0.75 + 1 / 6 + 1 / 8])


def test_the_1_over_t_walk_is_the_running_mean():
    """Robbins and Monro's own example: with step sizes 1/t, the root of E[w − x] is the mean of x."""
    samples = torch.randn(50, dtype=torch.float64)
    w = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = SGD([w], lr=1.0)
    for t, x in enumerate(samples, 1):
        optimizer.param_groups[0]["lr"] = 1 / t
        w.grad = w.detach() - x
        optimizer.step()
        assert_close(w.detach(), samples[:t].mean(), rtol=0, atol=1e-14)


# The base class

FAMILY = {
    "SGD": partial(SGD, lr=0.1),
    "momentum": partial(Momentum, lr=0.1),
    "RMSProp": partial(RMSProp, lr=0.1),
    "Adam": partial(Adam, lr=0.1),
    "SGDW": partial(SGDW, lr=0.1),
    "AdamW": partial(AdamW, lr=0.1),
    "Schedule-Free SGD": partial(ScheduleFreeSGD, lr=0.1, warmup=5),
    "Schedule-Free AdamW": partial(ScheduleFreeAdamW, lr=0.1, warmup=5),
}
family = pytest.mark.parametrize("make", FAMILY.values(), ids=FAMILY.keys())


def test_steps_are_counted_for_each_weight():
    early, late, never = (torch.ones(2, requires_grad=True) for _ in range(3))
    optimizer = SGD([early, late, never], lr=0.5)
    early.grad = torch.ones(2)
    optimizer.step()
    late.grad = torch.ones(2)
    optimizer.step()
    assert [optimizer.state[w].get("t") for w in (early, late, never)] == [2, 1, None]
    assert [w[0].item() for w in (early, late, never)] == [0.0, 0.5, 1.0]


@family
def test_a_weight_walks_as_if_it_were_alone(make):
    """Its steps do not depend on other weights, with late and missing gradients and a weight of another
    shape.
    """
    gradients = torch.randn(30, 4, dtype=torch.float64)
    ends = []
    for beside in (False, True):
        w = torch.ones(4, dtype=torch.float64, requires_grad=True)
        other = torch.ones(3, dtype=torch.float64, requires_grad=True)
        optimizer = make([other, w] if beside else [w])
        for step, gradient in enumerate(gradients):
            if beside:  # it began earlier, and steps while the first has no gradient
                for _ in range(1 if step else 7):
                    other.grad, w.grad = torch.ones_like(other), None
                    optimizer.step()
            other.grad = torch.ones_like(other) if step % 3 else None
            w.grad = gradient.clone()
            optimizer.step()
        ends.append(w.detach())
    assert_close(*ends, rtol=0, atol=1e-14)


@family
def test_a_closure_is_called_with_gradients_on_and_its_value_returned(make):
    w = torch.ones(2, requires_grad=True)
    optimizer = make([w])

    def closure():
        optimizer.zero_grad()
        loss = (3 * w).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 6.0
    assert w.grad.tolist() == [3.0, 3.0]
    assert (w < 1).all()
    assert optimizer.step() is None


@family
def test_a_setting_of_a_group_takes_the_place_of_the_default(make):
    moved, still = (torch.ones(2, requires_grad=True) for _ in range(2))
    optimizer = make([{"params": [moved]}])
    optimizer.add_param_group({"params": [still], "lr": 0.0})
    for w in (moved, still):
        w.grad = torch.ones(2)
    optimizer.step()
    assert (moved < 1).all()
    assert still.tolist() == [1.0, 1.0]


@family
def test_without_gradients_there_is_no_step(make):
    w = torch.ones(2, requires_grad=True)
    optimizer = make([w])
    optimizer.step()
    assert w.tolist() == [1.0, 1.0]
    assert not optimizer.state[w]


# One vector


def same_storage(tensors):
    return len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 1


@family
def test_weights_gradients_and_memories_are_views_of_one_vector_each(make):
    weights = [torch.randn(shape, requires_grad=True) for shape in ((2, 3), (4,), ())]
    values = [w.detach().clone() for w in weights]
    optimizer = make(weights)
    for _ in range(2):
        for w in weights:
            w.grad = torch.ones_like(w)
        optimizer.step()
        assert same_storage(weights)
        assert same_storage([w.grad for w in weights])
        for name in optimizer.memories:
            assert same_storage([optimizer.state[w][name] for w in weights])
    assert [w.shape for w in weights] == [value.shape for value in values]
    assert all((w != value).all() for w, value in zip(weights, values, strict=True))


def test_gradients_that_stay_in_place_are_not_copied(monkeypatch):
    model = nn.Linear(3, 2)
    optimizer = Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    monkeypatch.setattr(torch, "_foreach_copy_", None)
    for _ in range(3):
        optimizer.zero_grad(set_to_none=False)
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    assert model.weight.grad.tolist() == [[1.0] * 3] * 2


@family
def test_weights_that_other_code_has_changed_are_kept(make):
    """Another optimiser had moved the weights, and `load_state_dict` restored other memories."""
    w, alone = (torch.ones(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    beside, mine, reference = torch.ones(2, dtype=torch.float64, requires_grad=True), make([w]), make([alone])
    thief = SGD([beside, w], lr=0.0)
    for step in range(6):
        w.grad, alone.grad, beside.grad = torch.full_like(w, step), torch.full_like(w, step), beside.detach()
        thief.step()
        if step == 3:
            mine.load_state_dict(deepcopy(mine.state_dict()))
        mine.step()
        reference.step()
        assert torch.equal(w, alone)


def test_a_copy_and_a_weight_of_another_precision_walk_alike():
    single, double = torch.ones(2, requires_grad=True), torch.ones(2, dtype=torch.float64, requires_grad=True)
    optimizer = Adam([single, double], lr=0.1)
    for _ in range(3):
        single.grad, double.grad = torch.ones_like(single), torch.ones_like(double)
        optimizer.step()
    assert_close(single.double(), double)
    copied = deepcopy(optimizer)
    [one, _] = copied.param_groups[0]["params"]
    one.grad = torch.ones(2)
    copied.step()
    single.grad, double.grad = torch.ones(2), None
    optimizer.step()
    assert torch.equal(one, single)


def test_a_step_between_forward_and_backward_is_noticed():
    """It raises an error, as torch's optimisers do, because a tensor needed by backward has changed."""
    w = torch.ones(2, requires_grad=True)
    optimizer = SGD([w], lr=0.1)
    loss = w.square().sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_complex_weights_are_refused():
    w = torch.ones(2, dtype=torch.complex64, requires_grad=True)
    w.grad = torch.ones_like(w)
    with pytest.raises(TypeError, match="view_as_real"):
        Adam([w]).step()


@pytest.mark.parametrize("make", [partial(Adam, lr=0.1), partial(AdamW, lr=0.1)])
def test_an_update_compiles_once_for_all_steps_and_rates(make):
    """The first step and a second graph for all others; a schedule does not trigger recompilation."""
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    torch._dynamo.reset()
    walks = []
    for through in (lambda update: update, partial(torch.compile, backend=backend)):
        w = torch.ones(3, dtype=torch.float64, requires_grad=True)
        optimizer = make([w])
        optimizer.update = through(inspect.unwrap(optimizer.update))  # without the tests' type checks
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        for step in range(6):
            w.grad = torch.tensor([1.0, -2.0, step], dtype=torch.float64)
            optimizer.step()
            scheduler.step()
        walks.append(w.detach())
    assert_close(*walks)
    assert 1 <= len(compiled) <= 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("ours", "reference"),
    [
        (partial(SGD, lr=0.03), partial(torch.optim.SGD, lr=0.03)),
        (partial(Momentum, lr=0.03), partial(torch.optim.SGD, lr=0.03, momentum=0.9)),
        (partial(RMSProp, lr=0.03, eps=1e-3), partial(torch.optim.RMSprop, lr=0.03, alpha=0.9, eps=1e-3)),
        (partial(Adam, lr=0.03, eps=1e-3), partial(torch.optim.Adam, lr=0.03, eps=1e-3)),
        (partial(AdamW, lr=0.03, eps=1e-3), partial(torch.optim.AdamW, lr=0.03, eps=1e-3)),
    ],
    ids=["SGD", "momentum", "RMSProp", "Adam", "AdamW"],
)
def test_in_half_precision_ten_steps_err_by_no_more_than_twice_torchs(ours, reference, dtype):
    first = torch.randn(4000, dtype=dtype)
    gradients = torch.randn(10, 4000, dtype=dtype)

    def walk(make, to):
        w = first.to(to).requires_grad_()
        optimizer = make([w])
        for gradient in gradients:
            w.grad = gradient.to(to)
            optimizer.step()
        return w.detach().double()

    exact = walk(reference, torch.float64)
    ours_off, their_off = ((walk(make, dtype) - exact).abs().max() for make in (ours, reference))
    assert ours_off <= 2 * their_off


# Test problems


@pytest.fixture
def run(tmp_path):
    def make(seed=0):
        (tmp_path / str(seed)).mkdir()
        return Run(
            folder=tmp_path / str(seed),
            events=EventWriter(tmp_path / str(seed)),
            device=torch.device("cpu"),
            dtype=torch.float32,
            seed=seed,
            budget="smoke",
            settings={},
        )

    return make


def few_digits(**settings):
    images, labels = data.digits()
    return trials.Problem("digits", trials.perceptron, images.flatten(1), labels, **settings)


def test_the_digits_are_parted_by_the_seed(run):
    (one, _), (choose, _), (judge, _) = trials.digits(run(1))
    assert [len(one), len(choose), len(judge)] == [1079, 359, 359]
    assert not torch.equal(one, trials.digits(run(2))[0][0])


def test_pixels_scales_spread_over_three_powers_of_ten():
    scales = trials.pixel_scales(torch.Generator().manual_seed(0)).log10()
    assert -1.5 <= scales.min() < -1.2
    assert 1.2 < scales.max() <= 1.5


def test_training_descends(run):
    problem, model = few_digits(), trials.start(run(), trials.perceptron)
    draw = torch.Generator().manual_seed(0)
    curve = list(
        trials.train(model, SGD(model.parameters(), lr=0.3), problem, steps=range(100), generator=draw)
    )
    assert sum(curve[-10:]) < 0.7 * sum(curve[:10])


def test_the_penalty_matches_torchs_weight_decay():
    """torch's `weight_decay` of SGD adds λw to the gradient, which is the gradient of λ/2 ‖w‖²."""
    ends = []
    for penalty, decay in ((0.1, 0.0), (0.0, 0.1)):
        torch.manual_seed(0)
        model = trials.perceptron().double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3, weight_decay=decay)
        images, labels = data.digits()
        problem = trials.Problem("d", trials.perceptron, images.flatten(1).double(), labels, penalty=penalty)
        draw = torch.Generator().manual_seed(0)
        list(trials.train(model, optimizer, problem, steps=range(5), generator=draw))
        ends.append([w.detach() for w in model.parameters()])
    for mine, theirs in zip(*ends, strict=True):
        assert_close(mine, theirs, rtol=0, atol=1e-14)


def test_without_a_batch_every_row_counts():
    model = trials.perceptron()
    problem = few_digits(batch=0)
    loss = problem.loss(model, torch.Generator())
    assert_close(loss, cross_entropy(model(problem.inputs), problem.targets))


def test_prose_continues(run):
    before, after, count = trials.prose(run())
    assert before.shape == (len(after), 8)
    assert torch.equal(before[1:8, -1], after[:7])
    assert count > after.max()
    assert trials.NextCharacter(count)(before[:3]).shape == (3, count)


def test_the_seed_and_the_draw_decide_the_first_weights(run):
    first = run()
    one, same, other, another = (
        trials.start(of, trials.perceptron, draw)[0].weight
        for of, draw in ((first, "weights"), (first, "weights"), (first, "weights 2"), (run(1), "weights"))
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one, another)


def racing(run, again=False, lr=0.1, steps=20):
    at = Trial(Workshop(run, {None: few_digits()}), Work(arm="arm"), arm="arm")
    at.again = again
    at.start()
    return trials.race(at, SGD, lr, steps=steps), at


def test_reported_numbers_use_other_weights_and_batches_than_the_choice(run):
    """All arms and all learning rates see the same batches."""
    of_one = run()
    (score, losses), at = racing(of_one)
    assert score == trials.late(losses)
    assert len(losses) == at.work.updates == 20
    (_, same), _ = racing(of_one)
    assert same == losses
    (_, other), _ = racing(of_one, again=True)
    assert not set(other) & set(losses)
    (_, untouched), _ = racing(of_one, lr=0.0)
    assert untouched[0] == losses[0]


def test_an_arm_that_takes_no_step_has_a_loss(run):
    (score, losses), _ = racing(run(), steps=0)
    assert losses == [score]
    assert 2 < score < 2.7


def test_the_end_loss_is_the_last_quarters_mean():
    assert trials.late([9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 1.0, 2.0]) == 1.5
    assert trials.late([3.0]) == 3.0
    assert math.isnan(trials.late([1.0, math.inf]))


def test_the_cosine_falls_from_one_to_zero_after_its_warmup():
    shares = [trials.cosine(t, 100, warmup=20) for t in range(100)]
    assert shares[0] == pytest.approx(1 / 20)
    assert shares[50] == pytest.approx(0.5)
    assert max(shares) < 1
    assert shares[-1] == pytest.approx((1 + math.cos(math.pi * 0.99)) / 2)
    assert trials.cosine(0, 100) == 1


def test_training_that_misses_its_target_is_reported():
    bench = Bench(device=torch.device("cpu"), dtype=torch.float32, budget="smoke")
    makers = {("slow", "naive"): (partial(SGD, lr=1e-6), 64), ("fast", "paper"): (partial(SGD, lr=0.5), 64)}
    case = until_case(bench, makers, target=1.5, limit=100)
    slow, fast = (variant.call(*case.inputs(torch.Generator().manual_seed(0))) for variant in case.variants)
    assert slow == {"reached": False, "steps": 100}
    assert fast["reached"]
    assert 10 <= fast["steps"] < 100


# Experiment and benchmark


def test_the_experiment_runs(run_experiment):
    record = run_experiment(sgd)
    assert record.curves["excess loss"].keys() == SCHEDULES.keys()
    assert [claim["claim"]["kind"] for claim in record.claims] == ["theorem", "theorem"]


def test_a_seed_decides_the_whole_run(run_experiment):
    first, other = run_experiment(sgd, seed=1), run_experiment(sgd, seed=2)
    assert first.curves["excess loss"] != other.curves["excess loss"]


@pytest.mark.parametrize("paper", [sgd, rmsprop], ids=lambda paper: paper.__name__)
def test_the_experiments_compute_in_the_requested_precision(run_experiment, paper):
    """In double precision, losses occur that single precision cannot represent."""
    curves = run_experiment(paper, dtype=torch.float64).curves.values()
    losses = [loss for arms in curves for curve in arms.values() for _, loss in curve]
    assert torch.tensor(losses, dtype=torch.float64).float().tolist() != losses


def test_the_schedules_match_the_conditions():
    """A sum diverges if ten times as many terms add at least as much again as the first terms. This holds
    for constant steps (and their squares), for 1/t (but not its squares), and not for 1/t².
    """
    diverges = {"0.05": (True, True), "0.025": (True, True), "0.0125": (True, True)}
    diverges |= {"1/t": (True, False), "1/t²": (False, False)}
    for name, schedule in SCHEDULES.items():
        for power, expected in zip((1, 2), diverges[name], strict=True):
            steps = [schedule(t) ** power for t in range(100_000)]
            assert (sum(steps[10_000:]) > 0.3 * sum(steps[:10_000])) == expected
    assert SCHEDULES["1/t"](0) == SCHEDULES["1/t²"](0) == 0.05


def test_every_variant_is_right(check_benchmark):
    assert len(check_benchmark(sgd)) == 2


def test_the_shared_network_is_pinned():
    assert [tuple(w.shape) for w in trials.perceptron().parameters()] == [(64, 64), (64,), (10, 64), (10,)]
    assert isinstance(trials.perceptron()[1], nn.ReLU)
    assert len(trials.RATES) == 8
    assert trials.RATES[0] == pytest.approx(1e-3)
    assert trials.RATES[-1] == pytest.approx(10**0.5)
