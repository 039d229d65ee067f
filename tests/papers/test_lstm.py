"""The LSTM against torch's, its own backward pass against autograd's, and the experiment's rules."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from readtrack.papers import lstm, rnn
from readtrack.papers.lstm import LSTM, LongShortTermMemory, torch_order, unroll, unroll_fast

NAMES = {"input.weight": "weight_ih_l0", "input.bias": "bias_ih_l0", "recurrent.weight": "weight_hh_l0"}


def as_torch(weights):
    """Our parameters under `nn.LSTM`'s names and in its order of gates; it has a second bias."""
    zeros = torch.zeros_like(weights["input.bias"])
    return {NAMES[name]: torch_order(weight) for name, weight in weights.items()} | {"bias_hh_l0": zeros}


def layer_inputs(batch=3, time=7, inputs=5, hidden=4):
    return lstm.with_cell(
        torch.Generator().manual_seed(0), batch=batch, time=time, inputs=inputs, hidden=hidden
    )


@pytest.mark.parametrize(("batch", "time"), [(3, 7), (1, 1)])
def test_the_layer_is_torchs(assert_parity, batch, time):
    ours, theirs = LSTM(5, 4).double(), nn.LSTM(5, 4, batch_first=True).double()

    def mine(weights, x, state, cell):
        states, last = functional_call(ours, weights, (x, (state, cell)))
        return states, *last

    def reference(weights, x, state, cell):
        states, last = functional_call(theirs, as_torch(weights), (x, (state[None], cell[None])))
        return states, *(tensor[0] for tensor in last)

    inputs = torch.randn(batch, time, 5), torch.randn(batch, 4), torch.randn(batch, 4)
    assert_parity(mine, reference, inputs, weights=dict(ours.named_parameters()), atol=1e-12)


def test_the_written_out_backward_pass_is_autograds(assert_parity):
    assert_parity(unroll_fast, unroll, layer_inputs())


def test_the_backward_pass_is_that_of_finite_differences():
    inputs = [tensor.double().requires_grad_() for tensor in layer_inputs(2, 3, 2, 3)]
    inputs[0] = inputs[0].detach().transpose(0, 1).requires_grad_()
    assert torch.autograd.gradcheck(LongShortTermMemory.apply, inputs)


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


def test_a_sequence_in_two_parts_is_the_sequence():
    layer, x = LSTM(5, 4).double(), torch.randn(3, 7, 5).double()
    first, last = layer(x[:, :3])
    assert_close(torch.cat((first, layer(x[:, 3:], last)[0]), 1), layer(x)[0])


def test_with_open_gates_the_cell_keeps_what_it_has():
    """The constant error carousel: nothing forgotten, nothing written, and a gradient of one."""
    layer = LSTM(2, 3).double()
    with torch.no_grad():
        for weight in layer.parameters():
            weight.zero_()
        layer.input.bias.copy_(torch.tensor([-50.0, 50.0, 0.0, 0.0]).repeat_interleave(3))
    cell = torch.randn(1, 3, dtype=torch.float64, requires_grad=True)
    _, (_, last) = layer(torch.randn(1, 500, 2).double(), (torch.zeros(1, 3).double(), cell))
    assert_close(last, cell)
    assert_close(torch.autograd.grad(last.sum(), cell)[0], torch.ones(1, 3).double())


def test_the_forget_gate_starts_open_by_its_bias():
    torch.manual_seed(0)
    without = LSTM(5, 4, forget_bias=0.0).input.bias.detach()
    torch.manual_seed(0)
    difference = LSTM(5, 4, forget_bias=1.5).input.bias.detach() - without
    assert_close(difference.unflatten(0, (4, 4)), torch.tensor([0, 1.5, 0, 0])[:, None].expand(4, 4))


def test_it_has_four_times_the_parameters_of_a_simple_network():
    sizes = [sum(weight.numel() for weight in layer(5, 7).parameters()) for layer in (LSTM, rnn.RNN)]
    assert sizes[0] == 4 * sizes[1]


# Experiment and benchmark


def test_the_experiment_runs(run_experiment):
    record = run_experiment(lstm)
    assert record.curves["error at adding"].keys() == {"LSTM", "RNN"}
    assert record.curves["log10 of gradient over lag"].keys() == {"LSTM", "RNN"}


def test_the_rules_can_fail():
    assert lstm.LONG_LAGS.judge({"error, LSTM": 0.166, "error, RNN": 0.166}) == "not reproduced"
    assert lstm.LONG_LAGS.judge({"error, LSTM": 0.05, "error, RNN": 0.166}) == "weak"
    names = [bound.metric for bound in lstm.CAROUSEL.rule]
    assert lstm.CAROUSEL.judge(dict(zip(names, (-23.0, -23.0), strict=True))) == "not reproduced"


def test_every_variant_is_right(check_benchmark):
    assert len(check_benchmark(lstm)) == 1


def test_the_stated_cost_is_what_torch_counts():
    inputs = [tensor.requires_grad_() for tensor in layer_inputs(3, 6, 5, 4)]
    stated = rnn.cost(3, 6, 5, 4, gates=4, itemsize=4)
    with FlopCounterMode(display=False) as counter:
        out, _ = unroll(*inputs)
        assert counter.get_total_flops() == stated["forward"].flops
        out.sum().backward()
    assert counter.get_total_flops() == stated["forward+backward"].flops
