"""The GRU compared with loops and torch's, its own backward pass with autograd's, and the experiment's
arms.
"""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from readtrack.papers import gru, rnn
from readtrack.papers.gru import GRU, GatedRecurrentUnit, unroll, unroll_fast
from readtrack.papers.rnn.tasks import Adder

TASKS = importlib.import_module("readtrack.papers.rnn.tasks")
EXPERIMENT = importlib.import_module("readtrack.papers.gru.experiment")  # the hook has the same name


def layer_inputs(batch=3, time=7, inputs=5, hidden=4):
    generator = torch.Generator().manual_seed(0)
    return rnn.layer_inputs(generator, batch, time, inputs, hidden, gates=3)


def by_loops(x, h, w, u, b):
    """The paper's equations 5 to 8, one unit at a time."""
    hidden = h.shape[1]
    states = []
    for t in range(x.shape[1]):
        before, units = h, []
        gate = {
            (name, j): torch.sigmoid(
                x[:, t] @ w[k * hidden + j] + before @ u[k * hidden + j] + b[k * hidden + j]
            )
            for k, name in enumerate("rz")
            for j in range(hidden)
        }
        forgotten = torch.stack([gate["r", j] * before[:, j] for j in range(hidden)], 1)
        for j in range(hidden):
            row = 2 * hidden + j
            candidate = torch.tanh(x[:, t] @ w[row] + forgotten @ u[row] + b[row])
            units.append(gate["z", j] * before[:, j] + (1 - gate["z", j]) * candidate)
        h = torch.stack(units, 1)
        states.append(h)
    return torch.stack(states, 1)


@pytest.mark.parametrize("shape", [(3, 7, 5, 4), (1, 1, 2, 3)])
def test_the_equations_are_the_papers(assert_parity, shape):
    assert_parity(unroll, by_loops, layer_inputs(*shape))


def test_with_the_reset_gate_after_the_matrix_it_matches_torchs(assert_parity):
    theirs = nn.GRU(5, 4, batch_first=True).double()

    def reference(x, h, w, u, b):
        weights = dict(zip(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"), (w, u, b), strict=True))
        return functional_call(theirs, weights | {"bias_hh_l0": torch.zeros_like(b)}, (x, h[None]))[0]

    assert_parity(lambda *given: unroll(*given, reset_after=True), reference, layer_inputs())


def test_the_written_out_backward_pass_matches_autograds(assert_parity):
    assert_parity(lambda *given: unroll_fast(*given)[0], unroll, layer_inputs())


def test_both_backward_passes_match_finite_differences():
    inputs = [tensor.double().requires_grad_() for tensor in layer_inputs(2, 3, 2, 3)]
    inputs[0] = inputs[0].detach().transpose(0, 1).requires_grad_()

    def states(*given):
        return GatedRecurrentUnit.apply(*given)[0]

    assert torch.autograd.gradcheck(states, inputs)
    assert torch.autograd.gradgradcheck(states, inputs)


def test_half_precision_is_as_accurate_as_the_equations(assert_half_precision):
    assert_half_precision(
        lambda *given: unroll_fast(*given)[0],
        unroll,
        layer_inputs(16, 20, 16, 32),
        dtypes=(torch.bfloat16,),
    )


def test_it_runs_under_autocast():
    layer, x = GRU(5, 4), torch.randn(3, 7, 5)
    with torch.autocast("cpu", torch.bfloat16):
        states, _ = layer(x)
    assert_close(states, layer(x)[0])
    states.sum().backward()
    assert all(weight.grad.isfinite().all() for weight in layer.parameters())


def test_a_sequence_in_two_parts_equals_the_whole():
    layer, x = GRU(5, 4).double(), torch.randn(3, 7, 5).double()
    first, last = layer(x[:, :3])
    assert_close(torch.cat((first, layer(x[:, 3:], last)[0]), 1), layer(x)[0])
    assert torch.equal(layer(x)[0], layer(x, torch.zeros(3, 4).double())[0])


def test_an_update_gate_at_1_keeps_the_state_and_its_gradient():
    layer = GRU(2, 3).double()
    with torch.no_grad():
        layer.input.bias[3:6] = 50.0
    h = torch.randn(1, 3, dtype=torch.float64, requires_grad=True)
    x = torch.randn(1, 300, 2).double()
    _, last = layer(x, h)
    assert_close(last, h)
    assert_close(torch.autograd.grad(last.sum(), h)[0], torch.ones(1, 3).double())
    assert (layer.with_updates(x, h)[1] > 0.999).all()


def test_weights_start_uniform():
    layer = GRU(50, 100)
    for weight in layer.parameters():
        assert 0.09 < weight.abs().max() <= 0.1
        assert weight.mean().abs() < 0.02


# Experiment and benchmark


def readers_of(run_experiment, monkeypatch, **options):
    """Layer and window of each arm. Nothing is trained, and the error is the learning rate."""
    kinds = {}

    def noted(at, name, layer, *, rate, length, steps, window):
        assert length == 50
        network = Adder(layer, 3)
        kinds[name.rpartition(", rate")[0]] = type(network.recurrent), window
        at.run.metric("error at adding", rate, step=0, arm=name)
        return network

    monkeypatch.setattr(TASKS, "learn_to_add", noted)
    record = run_experiment(gru, **options)
    return kinds, record


NEAR = {"RNN, marks in the last five": (rnn.RNN, 5)}


def test_the_arms_and_their_null_run(run_experiment, monkeypatch):
    kinds, record = readers_of(run_experiment, monkeypatch)
    assert kinds == {"GRU": (GRU, None), "RNN": (rnn.RNN, None)} | NEAR
    assert record.claims[0]["verdict"] == "held"
    assert record.claims[1]["values"]["runs with an error under 0.01, GRU"] == 0.0
    kinds, _ = readers_of(run_experiment, monkeypatch, null=True)
    assert kinds == {"GRU": (rnn.RNN, None), "RNN": (rnn.RNN, None)} | NEAR


@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        ("blind update gates", EXPERIMENT.BlindUpdate),
        ("no update gate", EXPERIMENT.NoUpdate),
        ("rectified units, identity start", rnn.IdentityRNN),
    ],
)
def test_breaks_replace_the_gru_alone(run_experiment, monkeypatch, broken, kind):
    kinds, _ = readers_of(run_experiment, monkeypatch, broken=broken)
    assert kinds == {"GRU": (kind, None), "RNN": (rnn.RNN, None)} | NEAR


def test_the_broken_layer_keeps_nothing():
    layer, x = EXPERIMENT.NoUpdate(2, 3), torch.randn(2, 6, 2)
    assert not layer.with_updates(x, torch.randn(2, 3))[1].any()


def test_a_blind_update_gate_is_the_same_at_every_step():
    layer, x, h = EXPERIMENT.BlindUpdate(2, 3), torch.randn(2, 6, 2), torch.randn(2, 3)
    states, updates = layer.with_updates(x, h)
    assert_close(updates, layer.input.bias[3:6].sigmoid().expand(2, 6, 3))
    plain = GRU(2, 3)
    plain.load_state_dict(layer.state_dict())
    for weight in (plain.input.weight, plain.recurrent.weight):
        weight.data[3:6] = 0
    assert_close(states, plain(x, h)[0])
    layer(x)[0].sum().backward()
    assert layer.input.bias.grad[3:6].all()


def test_the_experiment_runs(run_experiment):
    record = run_experiment(gru)
    gates = record.curves["what update gates let in"]
    assert sum(value for _, value in gates["marks"]) == 2
    assert all(0 <= value <= 1 for _, value in gates["gates"])


def test_every_variant_is_right(check_benchmark):
    assert len(check_benchmark(gru)) == 2


def test_the_stated_cost_matches_torchs_count():
    stated = rnn.cost(3, 6, 5, 4, gates=3, itemsize=4)
    with FlopCounterMode(display=False) as counter:
        unroll(*layer_inputs(3, 6, 5, 4))
    assert counter.get_total_flops() == stated["forward"].flops
