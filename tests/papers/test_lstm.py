"""The LSTM compared with torch's, its own backward pass with autograd's, and the experiment's arms."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from readtrack.papers import lstm, rnn
from readtrack.papers.lstm import LSTM, LongShortTermMemory, unroll, unroll_fast
from readtrack.papers.lstm.experiment import SHUT

TASKS = importlib.import_module("readtrack.papers.rnn.tasks")
EXPERIMENT = importlib.import_module("readtrack.papers.lstm.experiment")  # the hook has the same name
NAMES = {"input.weight": "weight_ih_l0", "input.bias": "bias_ih_l0", "recurrent.weight": "weight_hh_l0"}


def as_torch(weights):
    """Our parameters with the names of `nn.LSTM`, in the same order of gates; it has a second bias."""
    zeros = torch.zeros_like(weights["input.bias"])
    return {NAMES[name]: weight for name, weight in weights.items()} | {"bias_hh_l0": zeros}


def pair(inputs, hidden):
    """Our layer and torch's as functions of weights, x, state and cell."""
    ours, theirs = LSTM(inputs, hidden), nn.LSTM(inputs, hidden, batch_first=True)

    def mine(weights, x, h, c):
        states, last = functional_call(ours, weights, (x, (h, c)))
        return states, *last

    def reference(weights, x, h, c):
        theirs.to(x.dtype)
        states, last = functional_call(theirs, as_torch(weights), (x, (h[None], c[None])))
        return states, *(tensor[0] for tensor in last)

    return mine, reference, ours


def layer_inputs(batch=3, time=7, inputs=5, hidden=4):
    return lstm.with_cell(
        torch.Generator().manual_seed(0), batch=batch, time=time, inputs=inputs, hidden=hidden
    )


@pytest.mark.parametrize(("batch", "time"), [(3, 7), (1, 1)])
def test_the_layer_matches_torchs(assert_parity, batch, time):
    mine, reference, layer = pair(5, 4)
    inputs = torch.randn(batch, time, 5), torch.randn(batch, 4), torch.randn(batch, 4)
    assert_parity(mine, reference, inputs, weights=dict(layer.named_parameters()), atol=1e-12)


def test_half_precision_is_as_accurate_as_torchs(assert_half_precision):
    mine, reference, layer = pair(16, 32)
    inputs = torch.randn(16, 20, 16), torch.randn(16, 32), torch.randn(16, 32)
    assert_half_precision(mine, reference, inputs, weights=dict(layer.named_parameters()))


def test_it_runs_under_autocast():
    layer, x = LSTM(5, 4), torch.randn(3, 7, 5)
    with torch.autocast("cpu", torch.bfloat16):
        states, _ = layer(x)
        again, _ = layer(x.bfloat16())
    assert_close(states, layer(x)[0])
    assert_close(again, states, rtol=0, atol=0.05)
    states.sum().backward()
    assert all(weight.grad.isfinite().all() for weight in layer.parameters())


def test_the_written_out_backward_pass_matches_autograds(assert_parity):
    assert_parity(unroll_fast, unroll, layer_inputs())


def test_both_backward_passes_match_finite_differences():
    inputs = [tensor.double().requires_grad_() for tensor in layer_inputs(2, 3, 2, 3)]
    inputs[0] = inputs[0].detach().transpose(0, 1).requires_grad_()
    assert torch.autograd.gradcheck(LongShortTermMemory.apply, inputs)
    assert torch.autograd.gradgradcheck(LongShortTermMemory.apply, inputs)


def test_a_second_gradient_for_some_of_the_weights():
    x, h, c, *weights = (tensor.double() for tensor in layer_inputs())
    weights = [weight.requires_grad_() for weight in weights]
    for unrolled in (unroll, unroll_fast):
        found = torch.autograd.grad(unrolled(x, h, c, *weights)[0].sum(), weights, create_graph=True)
        weights[0].grad = None
        sum(gradient.square().sum() for gradient in found).backward(inputs=weights[:1])
        if unrolled is unroll:
            expected = weights[0].grad
    assert_close(weights[0].grad, expected)


def test_only_the_cell_may_have_a_gradient():
    inputs = [tensor.double().requires_grad_() for tensor in layer_inputs()]
    for fast, slow in zip(
        torch.autograd.grad(unroll_fast(*inputs)[1].sum(), inputs),
        torch.autograd.grad(unroll(*inputs)[1].sum(), inputs),
        strict=True,
    ):
        assert_close(fast, slow)


def test_state_and_cell_start_at_zero():
    layer, x = LSTM(5, 4), torch.randn(3, 7, 5)
    assert torch.equal(layer(x)[0], layer(x, (torch.zeros(3, 4), torch.zeros(3, 4)))[0])


def test_a_sequence_in_two_parts_equals_the_whole():
    layer, x = LSTM(5, 4).double(), torch.randn(3, 7, 5).double()
    first, last = layer(x[:, :3])
    assert_close(torch.cat((first, layer(x[:, 3:], last)[0]), 1), layer(x)[0])


def test_with_the_forget_gate_at_1_and_no_input_the_cell_is_unchanged():
    layer = LSTM(2, 3).double()
    with torch.no_grad():
        for weight in layer.parameters():
            weight.zero_()
        layer.input.bias.copy_(torch.tensor([-50.0, 50.0, 0.0, 0.0]).repeat_interleave(3))
    c = torch.randn(1, 3, dtype=torch.float64, requires_grad=True)
    _, (_, last) = layer(torch.randn(1, 500, 2).double(), (torch.zeros(1, 3).double(), c))
    assert_close(last, c)
    assert_close(torch.autograd.grad(last.sum(), c)[0], torch.ones(1, 3).double())


@pytest.mark.parametrize(("settings", "added"), [({}, 1.0), ({"forget_bias": 1.5}, 1.5)])
def test_weights_start_uniform_and_the_forget_gate_by_its_bias(settings, added):
    layer = LSTM(50, 100, **settings)
    bias = layer.input.bias.detach().unflatten(0, (4, 100)) - torch.tensor([0, added, 0, 0])[:, None]
    for weight in (layer.input.weight, layer.recurrent.weight, bias):
        assert 0.09 < weight.abs().max() <= 0.1 + 1e-6
    for gate in bias:
        assert gate.mean().abs() < 0.02


def test_it_has_four_times_the_parameters_of_a_simple_network():
    sizes = [sum(weight.numel() for weight in layer(5, 7).parameters()) for layer in (LSTM, rnn.RNN)]
    assert sizes[0] == 4 * sizes[1]


# Experiment and benchmark


def values(record, claim):
    return next(one["values"] for one in record.claims if one["claim"]["name"] == claim.name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_experiment_runs(run_experiment, dtype):
    record = run_experiment(lstm, dtype=dtype)
    assert {name.rpartition(", rate")[0] for name in record.curves["error at adding"]} == {
        "LSTM",
        "RNN",
        "RNN, marks in the last five",
    }
    verdicts = {claim["claim"]["name"]: claim["verdict"] for claim in record.claims}
    assert verdicts["constant error carousel"] == verdicts["gradient over lags"] == "held"


def test_before_any_training_each_layer_has_the_gradient_of_its_kind(run_experiment):
    """Each arm is the layer in its name."""
    record = run_experiment(lstm)
    grown = {arm: value for (name, arm), value in record.values.items() if name.startswith("log10 of growth")}
    assert grown["forget gate at 1"] > 0
    assert -9 < grown["forget bias 1"] < -4
    assert -3 < grown["rectified units that start at the identity"] < 0
    assert grown["RNN"] < -18
    flow = values(record, lstm.FLOW)
    difference = flow["log10 of growth over 100 steps, forget gate at 1 / RNN"]
    assert difference == grown["forget gate at 1"] - grown["RNN"]
    assert flow["log10 of growth over 100 steps, forget bias 1"] == grown["forget bias 1"]


def readers_of(run_experiment, monkeypatch, **options):
    """Layer and window of each arm. Nothing is trained, and the error is the learning rate."""
    found = {}

    def noted(at, name, layer, *, rate, length, steps, window):
        assert length == 50
        found[name.rpartition(", rate")[0]] = layer(2, 3), window
        at.run.metric("error at adding", rate, step=0, arm=name)
        return rate

    monkeypatch.setattr(TASKS, "learn_to_add", noted)
    monkeypatch.setattr(TASKS, "adding_error", lambda run, network, part, **_: network)
    record = run_experiment(lstm, **options)
    kinds = {arm: (type(layer), window) for arm, (layer, window) in found.items()}
    return kinds, found["LSTM"][0], record


NEAR = {"RNN, marks in the last five": (rnn.RNN, 5)}


def test_the_arms_and_their_null_run(run_experiment, monkeypatch):
    kinds, layer, record = readers_of(run_experiment, monkeypatch)
    assert kinds == {"LSTM": (LSTM, None), "RNN": (rnn.RNN, None)} | NEAR
    assert 0.7 < layer.input.bias[3:6].mean() < 1.3
    lags = values(record, lstm.LONG_LAGS)
    # The lowest learning rate is best, so the grid is extended by one value, twice.
    assert lags["error at its best rate, RNN"] == pytest.approx(0.002 / 9, rel=0.01)
    assert lags["runs with an error under 0.01, LSTM"] == 1
    kinds, _, _ = readers_of(run_experiment, monkeypatch, null=True)
    assert kinds == {"LSTM": (rnn.RNN, None), "RNN": (rnn.RNN, None)} | NEAR


@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        ("leaky cells", EXPERIMENT.LeakyLSTM),
        ("no memory", LSTM),
        ("rectified units, identity start", rnn.IdentityRNN),
    ],
)
def test_breaks_replace_the_lstm_alone(run_experiment, monkeypatch, broken, kind):
    kinds, layer, _ = readers_of(run_experiment, monkeypatch, broken=broken)
    assert kinds == {"LSTM": (kind, None), "RNN": (rnn.RNN, None)} | NEAR
    if kind is LSTM:
        assert (layer.input.bias[3:6] < -900).all()


def test_a_leaky_cell_loses_half_at_each_step():
    layer, x = EXPERIMENT.LeakyLSTM(2, 3), torch.randn(2, 5, 2)
    plain = LSTM(2, 3)
    plain.load_state_dict(layer.state_dict())
    for weight in (plain.input.weight, plain.recurrent.weight, plain.input.bias):
        weight.data[3:6] = 0  # a forget gate of 1/2
    assert_close(layer(x), plain(x))
    last = torch.randn(2, 3), torch.randn(2, 3)
    assert_close(layer(x, last), plain(x, last))
    assert not torch.allclose(layer(x, last)[0], layer(x)[0])
    layer(x)[0].sum().backward()
    for weight in layer.parameters():
        assert not weight.grad[3:6].any()
        assert weight.grad[:3].any()


def test_with_its_forget_gates_shut_a_cell_keeps_nothing():
    layer, x = LSTM(2, 3, forget_bias=SHUT), torch.randn(1, 5, 2)
    c = torch.randn(1, 3, requires_grad=True)
    _, (_, last) = layer(x, (torch.zeros(1, 3), c))
    assert torch.equal(torch.autograd.grad(last.sum(), c)[0], torch.zeros(1, 3))


def test_every_variant_is_right(check_benchmark):
    assert len(check_benchmark(lstm)) == 1


def test_the_stated_cost_matches_torchs_count():
    inputs = [tensor.requires_grad_() for tensor in layer_inputs(3, 6, 5, 4)]
    stated = rnn.cost(3, 6, 5, 4, gates=4, itemsize=4)
    with FlopCounterMode(display=False) as counter:
        out, _ = unroll(*inputs)
        assert counter.get_total_flops() == stated["forward"].flops
        out.sum().backward()
    assert counter.get_total_flops() == stated["forward+backward"].flops
