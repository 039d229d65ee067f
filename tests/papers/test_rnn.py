"""The simple recurrent network against torch's, the tasks against their definitions, the rules."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from readtrack.papers import rnn
from readtrack.papers.rnn import RNN, adding_problem, elmans_letters, gradient_over_lags, step_by_step, unroll

NAMES = {"input.weight": "weight_ih_l0", "input.bias": "bias_ih_l0", "recurrent.weight": "weight_hh_l0"}


def as_torch(weights):
    """Our parameters under `nn.RNN`'s names; it has a second bias, beside the state."""
    zeros = torch.zeros_like(weights["input.bias"])
    return {NAMES[name]: weight for name, weight in weights.items()} | {"bias_hh_l0": zeros}


@pytest.mark.parametrize(("batch", "time"), [(3, 7), (1, 1)])
def test_the_network_is_torchs(assert_parity, batch, time):
    ours, theirs = RNN(5, 4).double(), nn.RNN(5, 4, batch_first=True).double()

    def reference(weights, x, state):
        states, last = functional_call(theirs, as_torch(weights), (x, state[None]))
        return states, last[0]

    assert_parity(
        lambda weights, x, state: functional_call(ours, weights, (x, state)),
        reference,
        (torch.randn(batch, time, 5), torch.randn(batch, 4)),
        weights=dict(ours.named_parameters()),
        atol=1e-12,
    )


def test_the_state_starts_at_zero():
    network, x = RNN(5, 4), torch.randn(3, 7, 5)
    assert torch.equal(network(x)[0], network(x, torch.zeros(3, 4))[0])


def test_a_sequence_in_two_parts_is_the_sequence():
    network, x = RNN(5, 4).double(), torch.randn(3, 7, 5).double()
    first, last = network(x[:, :3])
    assert_close(torch.cat((first, network(x[:, 3:], last)[0]), 1), network(x)[0])


def test_one_layer_on_input_and_state_is_the_same_equation(assert_parity):
    shapes = (3, 7, 5), (3, 4), (4, 5), (4, 4), (4,)
    assert_parity(unroll, step_by_step, [torch.randn(shape) for shape in shapes])


def test_gradients_are_those_of_finite_differences():
    shapes = (2, 3, 2), (2, 3), (3, 2), (3, 3), (3,)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(unroll, inputs)


# Elman's letters


def test_letters_are_words_in_a_row():
    ids, alphabet = elmans_letters(20, 40, torch.Generator().manual_seed(0))
    vowels = {"b": "a", "d": "ii", "g": "uuu"}
    for row in ids.tolist():
        text = "".join(alphabet[i] for i in row)
        assert len(text) == 40
        words = [word for consonant in "bdg" for word in text.split(consonant)]
        assert text[0] in vowels
        rebuilt = "".join(letter + vowels[letter] for letter in text if letter in vowels)[:40]
        assert rebuilt == text, words


def test_without_memory_only_the_present_letter_counts():
    ids, alphabet = elmans_letters(2, 12, torch.Generator().manual_seed(0))
    for memory in (True, False):
        network = rnn.NextLetter(len(alphabet), 5, memory=memory)
        changed = ids.clone()
        changed[:, 3] = (ids[:, 3] + 1) % len(alphabet)
        same = torch.isclose(network(ids), network(changed)).all(-1)
        assert same[:, :3].all()
        assert not same[:, 3].any()
        assert same[:, 4:].all() != memory


# Gradients over lags


def test_the_gradient_over_lags_is_a_product_of_jacobians():
    network, x = RNN(3, 4).double(), torch.randn(1, 6, 3, dtype=torch.float64)
    states = network(x)[0][0]
    projection = torch.randn(1, 4, generator=torch.Generator().manual_seed(5)).double()[0]
    found = gradient_over_lags(network, x, torch.Generator().manual_seed(5))
    row = projection * (1 - states[-1] ** 2)
    for lag in range(6):
        assert_close(found[lag], (row @ network.input.weight).norm())
        row = row @ network.recurrent.weight
        if lag < 5:
            row = row * (1 - states[-2 - lag] ** 2)


def test_the_gradient_keeps_to_pascanus_bound():
    """Section 2.1: with singular values of at most s the gradient over k steps shrinks at least like s^k."""
    network, x = RNN(3, 16).double(), torch.randn(2, 40, 3, dtype=torch.float64)
    with torch.no_grad():
        network.recurrent.weight.copy_(0.8 * torch.linalg.qr(torch.randn(16, 16).double())[0])
    gradients = gradient_over_lags(network, x, torch.Generator().manual_seed(0))
    bound = gradients.new_tensor([0.8**k for k in range(40)])
    weights = torch.linalg.matrix_norm(network.input.weight, 2)
    projection = torch.randn(2, 16, generator=torch.Generator().manual_seed(0)).norm()
    assert (gradients <= bound * weights * projection).all()


# The adding problem


@pytest.mark.parametrize("length", [5, 50])
def test_the_answer_is_the_sum_of_the_two_marked_values(length):
    x, y = adding_problem(200, length, torch.Generator().manual_seed(0))
    values, marks = x.unbind(-1)
    assert torch.equal(marks.sum(1), torch.full((200,), 2.0))
    assert torch.equal(marks[:, : length // 2].sum(1), torch.ones(200))
    assert_close((values * marks).sum(1), y)
    assert 0 <= values.min() <= values.max() <= 1


def test_to_answer_one_always_is_an_error_of_a_sixth():
    _, y = adding_problem(100_000, 10, torch.Generator().manual_seed(0))
    assert (y - 1).square().mean().item() == pytest.approx(1 / 6, rel=0.02)


# Experiment and benchmark


def test_the_experiment_runs(run_experiment):
    record = run_experiment(rnn)
    assert record.curves["surprise while learning"].keys() == {"with memory", "without"}
    assert record.curves["error at adding"].keys() == {"length 5", "length 50"}
    assert len(record.curves["log10 of gradient over lag"]["usual weights"]) == 21
    assert [artifact["name"] for artifact in record.artifacts] == ["letters"]


def test_the_rules_can_fail():
    assert rnn.LONG_LAGS.judge({"error at length 5": 0.16, "error at length 50": 0.16}) == "not reproduced"
    assert rnn.LONG_LAGS.judge({"error at length 5": 0.001, "error at length 50": 0.01}) == "not reproduced"
    names = [bound.metric for bound in rnn.STRUCTURE.rule]
    assert rnn.STRUCTURE.judge(dict(zip(names, (0.5, 1.1, 1.0), strict=True))) == "weak"
    names = [bound.metric for bound in rnn.GRADIENTS.rule]
    assert rnn.GRADIENTS.judge(dict(zip(names, (-1.0, 3.0, 0.99), strict=True))) == "not reproduced"


def test_every_variant_is_right(check_benchmark):
    assert len(check_benchmark(rnn)) == 1


def test_the_stated_cost_is_what_torch_counts():
    generator = torch.Generator().manual_seed(0)
    inputs = rnn.layer_inputs(generator, 3, 6, 5, 4, gates=1)
    inputs = [tensor.requires_grad_() for tensor in inputs]
    stated = rnn.cost(3, 6, 5, 4, gates=1, itemsize=4)
    with FlopCounterMode(display=False) as counter:
        out = unroll(*inputs)
        assert counter.get_total_flops() == stated["forward"].flops
        out.sum().backward()
    assert counter.get_total_flops() == stated["forward+backward"].flops
