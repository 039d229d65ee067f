"""REINFORCE compared with sums over every action and every episode, and the cart with a second
implementation.
"""

from __future__ import annotations

import importlib
import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.claims import AtLeast
from readtrack.papers import reinforce as module
from readtrack.papers.reinforce import (
    episodes,
    exact_gradient,
    model,
    push,
    reinforce,
    rewards_to_come,
    upright,
)
from readtrack.plugin import Sweep, Trial
from readtrack.runs.trial import Work, Workshop

its = importlib.import_module("readtrack.papers.reinforce.experiment")


@pytest.mark.parametrize("shape", [(7, 3), (2, 5, 4), (1, 2)])
def test_the_loss_matches_torchs_categorical(assert_parity, shape):
    action = torch.randint(shape[-1], shape[:-1])
    assert_parity(
        lambda logits, reward: reinforce(logits, action, reward, 0.7),
        lambda logits, reward: (
            -torch.distributions.Categorical(logits=logits).log_prob(action) * (reward - 0.7)
        ),
        (torch.randn(shape), torch.randn(shape[:-1])),
    )


@pytest.mark.parametrize("baseline", [0.0, 3.0, -11.5])
def test_theorem_1_over_all_actions(baseline):
    logits, reward = torch.randn(2, 5, dtype=torch.float64)
    leaf = logits.clone().requires_grad_()
    (leaf.softmax(-1) @ reward).backward()
    assert_close(exact_gradient(logits, reward), leaf.grad)
    each = logits.expand(5, 5).clone().requires_grad_()
    reinforce(each, torch.arange(5), reward, baseline).sum().backward()
    assert_close(-logits.softmax(-1) @ each.grad, leaf.grad)


def test_rewards_to_come_are_unbiased_over_all_episodes():
    """Two steps in a world of three states, with each episode weighted by its probability."""
    table = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    reward = torch.randn(3, 2, dtype=torch.float64)
    expected, estimate = torch.zeros((), dtype=torch.float64), torch.zeros_like(table)
    for first, second in itertools.product(range(2), repeat=2):
        states, actions = torch.tensor([0, 1 + first]), torch.tensor([first, second])
        probability = table.log_softmax(-1)[states, actions].sum().exp()
        rewards = reward[states, actions]
        expected = expected + probability * rewards.sum()
        loss = reinforce(table[states], actions, rewards_to_come(rewards[:, None])[:, 0]).sum()
        estimate -= probability.detach() * torch.autograd.grad(loss, table)[0]
    assert_close(estimate, torch.autograd.grad(expected, table)[0])


def literal(state: Tensor, action: int) -> list[float]:
    """The equations of motion: two linear equations in the two accelerations, solved by Cramer's rule.

    (M + m) x'' + m l cos t'' = F + m l t'^2 sin;  cos x'' + 4/3 l t'' = g sin.
    """
    x, v, t, w = state.tolist()
    heavy, light, half = 1.0, 0.1, 0.5
    a, b = heavy + light, light * half * math.cos(t)
    c, d = math.cos(t), 4 / 3 * half
    right = (10.0 if action else -10.0) + light * half * w**2 * math.sin(t), 9.8 * math.sin(t)
    determinant = a * d - b * c
    x2 = (right[0] * d - b * right[1]) / determinant
    t2 = (a * right[1] - c * right[0]) / determinant
    return [x + 0.02 * v, v + 0.02 * x2, t + 0.02 * w, w + 0.02 * t2]


def test_the_cart_moves_as_its_equations_say():
    state, action = torch.randn(50, 4, dtype=torch.float64), torch.randint(2, (50,))
    exact = [literal(s, a) for s, a in zip(state, action.tolist(), strict=True)]
    assert_close(push(state, action), torch.tensor(exact, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_a_pole_is_down_at_its_limits():
    state = torch.tensor([[0.0, 9, 0, 9], [2.5, 0, 0, 0], [-2.5, 0, 0, 0], [0, 0, 0.22, 0], [0, 0, -0.2, 0]])
    assert upright(state).tolist() == [True, False, False, False, True]


def test_an_episode_ends_when_its_pole_is_down():
    states, _actions, up = episodes(model.Policies(2), 2, 4, 200, torch.Generator().manual_seed(0))
    assert (up[1:] <= up[:-1]).all()
    assert upright(states)[up.bool()].all()
    assert_close(rewards_to_come(up)[0], up.sum(0))


def test_networks_side_by_side_are_perceptrons_that_start_as_torchs():
    networks, state = model.Policies(3), torch.randn(3, 5, 4)
    for index in range(3):
        hidden = torch.tanh(state[index] @ networks.hidden[index] + networks.hidden_bias[index, 0])
        assert_close(networks(state)[index], hidden @ networks.output[index] + networks.output_bias[index, 0])
    many = model.Policies(200)
    assert 0.499 < many.hidden.max() <= 0.5
    assert 0.176 < many.output.max() <= 32**-0.5


def test_the_baseline_leaves_the_own_episode_out():
    to_come = torch.tensor([[[3.0, 1.0, 2.0]], [[2.0, 0.0, 1.0]]])
    assert_close(model.of_the_others(to_come), torch.tensor([[[1.5, 2.5, 2.0]], [[0.5, 1.5, 1.0]]]))
    assert_close(model.of_whole_episodes(to_come), torch.tensor([[[1.5, 2.5, 2.0]]] * 2))
    changed = to_come.clone()
    changed[..., 0] = 99.0
    assert_close(model.of_the_others(changed)[..., 0], model.of_the_others(to_come)[..., 0])


def test_the_control_is_credited_with_the_returns_of_others():
    reward = torch.tensor([[[1.0] * 6], [[1.0] * 3 + [0.0] * 3]])
    to_come = rewards_to_come(reward)
    shuffled = model.another(reward, torch.Generator().manual_seed(0))
    assert sorted(shuffled[0, 0].tolist()) == sorted(to_come[0, 0].tolist())
    assert not torch.equal(shuffled, to_come)
    assert_close(shuffled[0] - shuffled[1], torch.ones(1, 6))  # episodes stay complete
    assert torch.equal(model.own(reward, torch.Generator()), to_come)
    assert torch.equal(model.one_step(reward, torch.Generator()), reward)
    assert_close(model.discounted(reward, torch.Generator())[0, 0], torch.tensor([1.97] * 3 + [1.0] * 3))
    assert not model.nothing(to_come).any()


def test_a_policy_plays_the_action_that_it_prefers():
    network = its.Linear(torch.tensor([[[0.0], [0.0], [1e9], [0.0]]]))
    states, actions, _ = episodes(network, 1, 4, 20, torch.Generator().manual_seed(0))
    assert torch.equal(actions, (states[..., 2] > 0).long())


def test_steps_after_the_fall_are_not_trained_on(part_of_run, monkeypatch):
    """The logits after a fall do not affect the loss."""
    states, actions = torch.randn(3, 1, 2, 4), torch.randint(2, (3, 1, 2))
    up = torch.tensor([[[1.0, 1.0]], [[1.0, 0.0]], [[1.0, 0.0]]])
    monkeypatch.setattr(its, "NETWORKS", 1)
    monkeypatch.setattr(its, "episodes", lambda *_: (states, actions, up))
    seen: list[Tensor] = []

    def watched(logits, *rest):
        logits.retain_grad()
        seen.append(logits)
        return reinforce(logits, *rest)

    monkeypatch.setattr(its, "reinforce", watched)
    its.descend(Trial(Workshop(part_of_run()), Work(arm="own rewards"), arm="own rewards"), 0.03)
    assert len(seen) == 2
    for logits in seen:
        assert not logits.grad[1:, :, 1].any()
        assert logits.grad[1:, :, 0].any()


def test_a_pole_is_balanced_when_five_updates_average_180_steps():
    assert its.arrival([200.0, 0.0]) == 1
    assert its.arrival([0.0] + [200.0] * 9) == 6
    assert its.arrival([179.0] * 60) == math.inf


@pytest.mark.parametrize(
    ("arrived", "updates"), [((8.0, 2.0), 4.0), ((8.0, math.inf), AtLeast(math.sqrt(480)))]
)
def test_updates_are_a_geometric_mean_and_a_lower_limit_where_one_never_arrived(
    part_of_run, monkeypatch, arrived, updates
):
    monkeypatch.setattr(its, "NETWORKS", 2)
    at = Trial(Workshop(part_of_run()), Work(arm="with baseline"), arm="with baseline")
    found = its.updates_and_steps_up(at, Sweep(its.Played(arrived, 60, model.Policies(2)), 0.1, {}))
    assert found["steps balanced"].shape == (2 * 4,)
    if isinstance(updates, AtLeast):
        assert isinstance(found["updates"], AtLeast)
        assert found["updates"].value == pytest.approx(updates.value)
    else:
        assert found["updates"] == pytest.approx(updates)


def test_the_set_up_is_the_stated_one():
    assert digest(its) == "5a2d194b3828"


def test_the_experiment_runs(run_experiment):
    unreached = "updates, without baseline / with baseline"
    record = run_experiment(module, unreached=[unreached])
    curves = record.curves["steps balanced at rate 0.03"]
    assert curves.keys() == {"own rewards", "another's rewards", "with baseline", "without baseline"}
    # The same networks play the same first episodes.
    assert len({curve[0] for curve in curves.values()}) == 1
    assert curves["own rewards"] == curves["with baseline"]


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(module)] == ["policy gradient", "pole balanced"]
