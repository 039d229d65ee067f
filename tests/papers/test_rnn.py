"""The simple recurrent network compared with torch's, the tasks with their definitions, and the arms."""

from __future__ import annotations

import importlib
import math
import re

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from readtrack.checks.constants import digest
from readtrack.papers import rnn
from readtrack.papers.rnn import RNN, IdentityRNN, adding_problem, gradient_over_lags, unroll
from readtrack.papers.rnn.benchmark import step_by_step
from readtrack.papers.rnn.experiment import (
    ADDING_RATES,
    ALPHABET,
    NextLetter,
    ThreeLetters,
    elmans_letters,
    recurrent_weights,
    surprises,
)
from readtrack.papers.rnn.tasks import (
    LENGTH,
    Adder,
    AllAtOnce,
    Learned,
    Reader,
    adding_error,
    error_at_adding,
    reach_back,
)
from readtrack.runs.run import Run
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop

experiment_module = importlib.import_module("readtrack.papers.rnn.experiment")

NAMES = {"input.weight": "weight_ih_l0", "input.bias": "bias_ih_l0", "recurrent.weight": "weight_hh_l0"}


def as_torch(weights):
    """Our parameters with the names of `nn.RNN`, which has a second bias."""
    zeros = torch.zeros_like(weights["input.bias"])
    return {NAMES[name]: weight for name, weight in weights.items()} | {"bias_hh_l0": zeros}


def pair(inputs, hidden):
    """Our layer and torch's as functions of weights, x and state."""
    ours, theirs = RNN(inputs, hidden), nn.RNN(inputs, hidden, batch_first=True)

    def reference(weights, x, state):
        theirs.to(x.dtype)
        states, last = functional_call(theirs, as_torch(weights), (x, state[None]))
        return states, last[0]

    return lambda weights, x, state: functional_call(ours, weights, (x, state)), reference, ours


@pytest.mark.parametrize(("batch", "time"), [(3, 7), (1, 1)])
def test_the_network_matches_torchs(assert_parity, batch, time):
    ours, reference, network = pair(5, 4)
    inputs = torch.randn(batch, time, 5), torch.randn(batch, 4)
    weights = dict(network.named_parameters())
    assert_parity(ours, reference, inputs, weights=weights, atol=1e-12)


def test_half_precision_is_as_accurate_as_torchs(assert_half_precision):
    ours, reference, network = pair(16, 32)
    inputs = torch.randn(16, 20, 16), torch.randn(16, 32)
    assert_half_precision(ours, reference, inputs, weights=dict(network.named_parameters()))


def test_it_runs_under_autocast():
    network, x = RNN(5, 4), torch.randn(3, 7, 5)
    with torch.autocast("cpu", torch.bfloat16):
        states, _ = network(x)
    assert_close(states.float(), network(x)[0], rtol=0, atol=0.05)
    states.float().sum().backward()
    assert all(weight.grad.isfinite().all() for weight in network.parameters())


def test_the_state_starts_at_zero():
    network, x = RNN(5, 4), torch.randn(3, 7, 5)
    assert torch.equal(network(x)[0], network(x, torch.zeros(3, 4))[0])


def test_weights_start_uniform_as_torchs_do():
    network = RNN(50, 100)
    for weight in network.parameters():
        assert 0.095 < weight.abs().max() < 0.1
        assert weight.mean().abs() < 0.02
    assert network.recurrent.weight.std().item() == pytest.approx(0.1 / math.sqrt(3), rel=0.02)


def test_a_sequence_in_two_parts_equals_the_whole():
    network, x = RNN(5, 4).double(), torch.randn(3, 7, 5).double()
    first, last = network(x[:, :3])
    assert_close(torch.cat((first, network(x[:, 3:], last)[0]), 1), network(x)[0])


def test_one_layer_on_input_and_state_is_the_same_equation(assert_parity):
    shapes = (3, 7, 5), (3, 4), (4, 5), (4, 4), (4,)
    assert_parity(unroll, step_by_step, [torch.randn(shape) for shape in shapes])


def test_gradients_match_finite_differences():
    shapes = (2, 3, 2), (2, 3), (3, 2), (3, 3), (3,)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(unroll, inputs)
    assert torch.autograd.gradgradcheck(unroll, inputs)


# Elman's letters


def test_letters_are_words_in_a_row():
    ids = elmans_letters(20, 40, torch.Generator().manual_seed(0))
    vowels = {"b": "a", "d": "ii", "g": "uuu"}
    for row in ids.tolist():
        text = "".join(ALPHABET[i] for i in row)
        assert text[0] in vowels
        assert "".join(letter + vowels[letter] for letter in text if letter in vowels)[:40] == text


def test_words_of_random_length_have_one_to_three_vowels():
    ids = elmans_letters(20, 40, torch.Generator().manual_seed(0), random=True)
    found = set()
    for row in ids.tolist():
        text = "".join(ALPHABET[i] for i in row)
        words = re.findall("[bdg][aiu]*", text)
        assert "".join(words) == text
        found |= set(words[:-1])
    assert found == {c + v * n for c, v in ("ba", "di", "gu") for n in (1, 2, 3)}


def test_the_table_knows_three_letters():
    network = ThreeLetters(len(ALPHABET))
    ids = elmans_letters(2, 12, torch.Generator().manual_seed(0))
    first, second, third = ids[0, 4:7].tolist()
    assert_close(network(ids)[0, 6], network.table.weight[(first * 6 + second) * 6 + third])
    changed = ids.clone()
    changed[:, 3] = (ids[:, 3] + 1) % len(ALPHABET)
    same = (network(ids) == network(changed)).all(-1)
    assert same[:, [0, 1, 2, 6, 7, 8]].all()
    assert not same[:, 3:6].any()


def test_texts_to_learn_from_have_the_same_letters(part_of_run):
    found = experiment_module.texts(part_of_run())
    assert torch.equal(found.words.sort(1).values, found.shuffled.sort(1).values)
    assert not torch.equal(found.words, found.shuffled)
    assert found.random.shape == found.words.shape


def test_without_memory_only_the_present_letter_counts():
    ids = elmans_letters(2, 12, torch.Generator().manual_seed(0))
    for memory in (True, False):
        network = NextLetter(len(ALPHABET), 5, memory=memory)
        changed = ids.clone()
        changed[:, 3] = (ids[:, 3] + 1) % len(ALPHABET)
        same = torch.isclose(network(ids), network(changed)).all(-1)
        assert same[:, :3].all()
        assert not same[:, 3].any()
        assert same[:, 4:].all() != memory


def test_the_information_of_one_letter_matches_the_claim():
    """The best predictions from the current letter alone, by counting: 0.25 nats at vowels, ln 3 + 0.60."""
    ids = elmans_letters(200, 500, torch.Generator().manual_seed(0))
    now, after = ids[:, :-1].flatten(), ids[:, 1:].flatten()
    counts = torch.zeros(6, 6).index_put_((now, after), torch.ones(len(now)), accumulate=True)
    nats = -(counts / counts.sum(1, keepdim=True)).log()[now, after]
    vowel = after >= ALPHABET.index("a")
    assert nats[vowel].mean().item() == pytest.approx(0.25, abs=0.01)
    assert nats[~vowel].mean().item() - math.log(3) == pytest.approx(0.60, abs=0.02)


def test_the_surprise_is_measured_on_the_letters_after_the_first_word():
    ids = elmans_letters(3, 12, torch.Generator().manual_seed(0))
    network = NextLetter(len(ALPHABET), 5, memory=True)
    probabilities = network(ids[:, :-1]).softmax(-1)
    expected = -probabilities.gather(2, ids[:, 1:, None])[..., 0].log()[:, 4:]
    assert_close(surprises(network, ids), expected)


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


@pytest.mark.parametrize("largest", [0.8, 3.0])
def test_recurrent_weights_have_the_stated_singular_values(largest):
    orthogonal, random = (
        torch.linalg.svdvals(recurrent_weights(kind, largest, torch.Generator().manual_seed(0)))
        for kind in ("orthogonal", "random")
    )
    assert_close(orthogonal, torch.full_like(orthogonal, largest))
    assert random.max().item() == pytest.approx(largest)
    assert random.min() < 0.1 * largest


# The adding problem


@pytest.mark.parametrize(("length", "window"), [(5, None), (50, None), (50, 5), (20, 20)])
def test_the_answer_is_the_sum_of_the_two_marked_values(length, window):
    x, y = adding_problem(300, length, torch.Generator().manual_seed(0), window=window)
    values, marks = x.unbind(-1)
    window = window or length
    assert torch.equal(marks.sum(1), torch.full((300,), 2.0))
    assert torch.equal(marks[:, length - window :][:, : window // 2].sum(1), torch.ones(300))
    assert torch.equal(marks.any(0), torch.arange(length) >= length - window)
    assert_close((values * marks).sum(1), y)
    assert 0 <= values.min() <= values.max() <= 1


def test_always_answering_one_has_an_error_of_a_sixth():
    _, y = adding_problem(100_000, 10, torch.Generator().manual_seed(0))
    assert (y - 1).square().mean().item() == pytest.approx(1 / 6, rel=0.02)


def test_the_answer_is_read_from_the_last_state():
    adder, x = Adder(RNN, 8), torch.randn(3, 6, 2)
    states, last = adder.recurrent(x)
    assert_close(adder(x), last @ adder.readout.weight[0] + adder.readout.bias)
    assert not torch.allclose(adder(x), states[:, 0] @ adder.readout.weight[0] + adder.readout.bias)


def test_it_is_trained_at_a_rate_that_falls_to_nothing(run_experiment, monkeypatch):
    steps = []

    def descend(run, loss, optimizer, *, step, metric, arm, clip=0.0, **_):
        weights = sum(weight.numel() for weight in optimizer.param_groups[0]["params"])
        steps.append((optimizer.param_groups[0]["lr"], clip, weights))
        optimizer.step()

    monkeypatch.setattr(Run, "descend", descend)
    run_experiment(rnn)
    first, second = [one for one in steps if one[1]][:2]
    size = 32 * (2 + 32 + 1) + 33  # 32 units, and the readout
    assert first == (ADDING_RATES[0], 1.0, size)
    assert second == (ADDING_RATES[0] / 2, 1.0, size)


def test_the_identity_network_matches_torchs_with_rectified_units(assert_parity):
    ours, theirs = IdentityRNN(5, 4), nn.RNN(5, 4, batch_first=True, nonlinearity="relu").double()

    def reference(weights, x, state):
        states, last = functional_call(theirs, as_torch(weights), (x, state[None]))
        return states, last[0]

    assert_parity(
        lambda weights, x, state: functional_call(ours, weights, (x, state)),
        reference,
        (torch.randn(3, 7, 5), torch.randn(3, 4)),
        weights=dict(ours.named_parameters()),
    )


def test_the_identity_network_starts_by_keeping_its_state():
    network = IdentityRNN(2, 3)
    assert torch.equal(network.recurrent.weight, torch.eye(3))
    assert not network.input.bias.any()
    state = torch.rand(1, 3)
    assert torch.equal(network(torch.zeros(1, 50, 2), state)[1], state)
    x = torch.randn(2, 4, 2)
    assert torch.equal(network(x)[0], network(x, torch.zeros(2, 3))[0])


def test_the_perceptron_sees_every_element_but_no_order():
    """Moving an element to another position, with its weights, changes nothing; every element counts."""
    network, x = Adder(AllAtOnce, 8), torch.randn(3, LENGTH, 2, requires_grad=True)
    out = network(x)
    out.sum().backward()
    assert (x.grad.abs().sum((0, 2)) > 0).all()
    order = torch.randperm(LENGTH)
    first = network.recurrent.layers[0].weight
    first.data = first.data.view(-1, LENGTH, 2)[:, order].flatten(1)
    assert_close(network(x[:, order]), out)
    assert [weight.shape for weight in network.recurrent.parameters()][::2] == [(32, 100), (8, 32)]


def test_the_perceptron_replaces_both_networks(part_of_run, monkeypatch):
    run, given = part_of_run(), {}
    monkeypatch.setattr(run, "compare", lambda claim, **parts: given.update(parts))
    experiment_module.add(run)
    rival = given["breaks"]["all elements at once"]
    for name, arm in given["arms"].items():
        assert arm.make == Reader(RNN, rival[name].make.window)
        assert rival[name].make.recurrent is AllAtOnce


@pytest.mark.parametrize(("error", "learned"), [(0.0099, 1.0), (0.01, 0.0)])
def test_learned_means_a_judged_error_under_a_hundredth(part_of_run, monkeypatch, error, learned):
    monkeypatch.setattr(Learned, "error", lambda self, run, part: error if part == "judge" else 0.0)
    at = Trial(Workshop(part_of_run()), Work(arm="RNN"), arm="RNN")
    found = Sweep(Learned(Adder(RNN, 4), None), 0.1, {})
    assert error_at_adding(at, found) == {"error": error, "learned": learned}


def test_the_error_is_measured_on_new_sequences_with_marks_in_the_window(part_of_run):
    class Asked(Adder):
        def forward(self, x):
            seen.append(x)
            return torch.zeros(len(x))

    run, seen = part_of_run(), []
    error = adding_error(run, Asked(RNN, 4), "judge", length=9, window=4)
    assert seen[0].shape == (10, 9, 2)
    assert not seen[0][:, :5, 1].any()
    assert error == pytest.approx((seen[0].prod(2).sum(1) ** 2).mean().item())
    adding_error(run, Asked(RNN, 4), "choose", length=9, window=4)
    assert not torch.equal(*seen)


def test_an_arm_is_trained_chosen_and_judged_with_its_own_marks(part_of_run):
    class Recorded(RNN):
        def forward(self, x, state=None):
            seen.append(x[..., 1])
            return super().forward(x, state)

    seen, at = [], Trial(Workshop(part_of_run()), Work(arm="near"), arm="near")
    score, found = reach_back(at, Reader(Recorded, window=6), 0.01, steps=2)
    assert score == found.error(at.run, "choose")
    found.error(at.run, "judge")
    assert [len(marks) for marks in seen] == [32, 32, 10, 10, 10, 10]
    for marks in seen:
        assert not marks[:, : LENGTH - 6].any()
        assert (marks.sum(1) == 2).all()


# Experiment and benchmark


def values(record, claim):
    return next(one["values"] for one in record.claims if one["claim"]["name"] == claim.name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_experiment_runs(run_experiment, dtype):
    record = run_experiment(rnn, dtype=dtype)
    arms = {name.partition(", rate")[0] for name in record.curves["surprise while learning"]}
    assert arms == {"with memory", "without memory"}
    arms = {name.partition(", rate")[0] for name in record.curves["error at adding"]}
    assert arms == {"marks in the last five", "marks anywhere"}
    assert record.curves["slope over largest singular value"].keys() == {
        "orthogonal",
        "random",
        "its log10, the bound",
    }
    assert [artifact["name"] for artifact in record.artifacts] == ["letters"]
    verdicts = {claim["claim"]["name"]: claim["verdict"] for claim in record.claims}
    assert verdicts["bound on the gradient"] == "held"


def test_the_set_up_is_the_stated_one():
    assert digest(experiment_module) == "0e2e80a901f3"


def test_every_variant_is_right(check_benchmark):
    assert len(check_benchmark(rnn)) == 1


def test_the_stated_cost_matches_torchs_count():
    generator = torch.Generator().manual_seed(0)
    inputs = rnn.layer_inputs(generator, 3, 6, 5, 4, gates=1)
    inputs = [tensor.requires_grad_() for tensor in inputs]
    stated = rnn.cost(3, 6, 5, 4, gates=1, itemsize=4)
    with FlopCounterMode(display=False) as counter:
        out = unroll(*inputs)
        assert counter.get_total_flops() == stated["forward"].flops
        out.sum().backward()
    assert counter.get_total_flops() == stated["forward+backward"].flops
