"""Layer normalisation compared with torch's, table 1's invariances, the recurrent network, and the arms."""

from __future__ import annotations

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import layernorm
from readtrack.papers.batchnorm import BatchNorm
from readtrack.papers.layernorm import LayerNorm, layer_norm, line_by_line, recurrent
from readtrack.papers.layernorm.experiment import network

EXPERIMENT = importlib.import_module("readtrack.papers.layernorm.experiment")  # the hook has the same name
SHAPES = [(5,), (3, 5), (2, 3, 5), (2, 1, 3, 7)]


def inputs(shape: tuple[int, ...]):
    return torch.randn(shape) * 3 + 2, torch.rand(shape[-1]) + 0.5, torch.randn(shape[-1])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_function_matches_torchs(assert_parity, shape):
    assert_parity(
        layer_norm, lambda x, weight, bias: F.layer_norm(x, x.shape[-1:], weight, bias), inputs(shape)
    )


def test_another_eps_is_used(assert_parity):
    assert_parity(
        lambda *given: layer_norm(*given, eps=0.5),
        lambda x, weight, bias: F.layer_norm(x, x.shape[-1:], weight, bias, eps=0.5),
        inputs((3, 5)),
    )


def test_the_module_matches_torchs(assert_parity):
    x, weight, bias = inputs((2, 3, 5))
    ours, theirs = LayerNorm(5, eps=1e-3).double(), nn.LayerNorm(5, eps=1e-3).double()
    assert_parity(
        lambda w, x: functional_call(ours, w, (x,)),
        lambda w, x: functional_call(theirs, w, (x,)),
        (x,),
        weights={"weight": weight, "bias": bias},
    )
    assert ours.load_state_dict(theirs.state_dict()).missing_keys == []


@pytest.mark.parametrize("shape", SHAPES)
def test_the_fast_gradient_is_the_slow_ones(assert_parity, shape):
    assert_parity(
        lambda *given: layer_norm(*given, eps=0.5),
        lambda *given: line_by_line(*given, eps=0.5),
        inputs(shape),
    )


def test_the_gradient_takes_any_strides(assert_parity):
    assert_parity(
        lambda x, *rest: layer_norm(x.mT, *rest).mT.relu(),
        lambda x, *rest: line_by_line(x.mT, *rest).mT.relu(),
        (torch.randn(2, 5, 3), torch.randn(5), torch.randn(5)),
    )


def test_first_and_second_derivatives_match_finite_differences():
    given = tuple(tensor.double().requires_grad_() for tensor in inputs((3, 5)))
    assert torch.autograd.gradcheck(layer_norm, given)
    assert torch.autograd.gradgradcheck(layer_norm, given)


def test_one_tensor_is_kept_where_autograd_keeps_three():
    def kept(call) -> int:
        x, weight, bias = (tensor.requires_grad_() for tensor in inputs((64, 8)))
        seen = {}
        with saved_tensors_hooks(lambda t: seen.setdefault(t.data_ptr(), t), lambda t: t):
            call(x, weight, bias)
        return sum(tensor.numel() == x.numel() for tensor in seen.values())

    assert kept(layer_norm) == 1
    assert kept(line_by_line) == 3


def test_half_precision_is_nearly_as_accurate_as_torchs(assert_half_precision):
    assert_half_precision(
        layer_norm, lambda x, weight, bias: F.layer_norm(x, x.shape[-1:], weight, bias), inputs((64, 256))
    )


def test_autocast_goes_through():
    linear, ours, theirs = nn.Linear(8, 64), LayerNorm(64), nn.LayerNorm(64)
    x = torch.randn(32, 8)
    found = []
    for layer in (ours, theirs):
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(linear(x))
        y.float().pow(3).sum().backward()
        found.append((y, layer.weight.grad, layer.bias.grad))
    for mine, their in zip(*found, strict=True):
        assert mine.dtype == their.dtype
        assert_close(mine, their, rtol=0.02, atol=0.02 * their.abs().max().item())


def test_equal_features_give_the_bias_and_no_nan():
    x = torch.full((2, 5), 7.0, requires_grad=True)
    weight, bias = torch.ones(5), torch.arange(5.0)
    y = layer_norm(x, weight, bias)
    assert torch.equal(y, bias.expand(2, 5))
    y.sum().backward()
    assert x.grad.isfinite().all()


def normalised(a: torch.Tensor) -> torch.Tensor:
    return layer_norm(a, torch.ones(a.shape[-1]).double(), torch.zeros(a.shape[-1]).double(), eps=0.0)


def test_table_1_the_weight_matrix_may_be_scaled_and_shifted():
    x, w = torch.randn(6, 4).double(), torch.randn(4, 5).double()
    shift = torch.randn(4, 1).double()  # the same for every unit (equation 6)
    assert_close(normalised(x @ (2.5 * w + shift)), normalised(x @ w), rtol=0, atol=1e-10)


def test_table_1_a_single_case_may_be_scaled_but_a_single_weight_vector_may_not():
    x, w = torch.randn(6, 4).double(), torch.randn(4, 5).double()
    one_case, one_unit = x.clone(), w.clone()
    one_case[2] *= 10
    one_unit[:, 2] *= 10
    assert_close(normalised(one_case @ w), normalised(x @ w), rtol=0, atol=1e-10)
    assert (normalised(x @ one_unit) - normalised(x @ w)).abs().max() > 0.1


def test_other_examples_have_no_influence_not_even_in_the_gradient():
    x, weight, bias = inputs((6, 5))
    changed = x.clone()
    changed[1:] = 100.0
    results = []
    for batch in (x, changed):
        batch.requires_grad_()
        y = layer_norm(batch, weight, bias)
        y[0].pow(2).sum().backward()
        results.append((y[0], batch.grad[0]))
        assert not batch.grad[1:].any()
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_training_and_use_are_the_same():
    layer, x = LayerNorm(5), torch.randn(3, 5)
    assert torch.equal(layer.train()(x), layer.eval()(x))


def test_parameters_are_two_a_feature():
    with torch.device("meta"):
        assert sum(p.numel() for p in LayerNorm(768).parameters()) == 1536


# The recurrent network


def test_the_recurrent_network_is_equation_4s(assert_parity):
    net = recurrent.Recurrent(LayerNorm, width=6).double()

    def reference(w: dict[str, Tensor], x: Tensor) -> Tensor:
        h = torch.zeros(x.shape[0], 6, dtype=x.dtype)
        for t in range(x.shape[1]):
            a = h @ w["from_state.weight"].T + x[:, t] @ w["from_input.weight"].T
            mu, sigma = a.mean(1, keepdim=True), (a.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
            h = torch.tanh(w["norm.weight"] / sigma * (a - mu) + w["norm.bias"])
        return h @ w["readout.weight"].T + w["readout.bias"]

    assert_parity(
        lambda w, x: functional_call(net, w, (x,)),
        reference,
        (torch.randn(3, 5, recurrent.INPUTS),),
        weights=dict(net.named_parameters()),
    )


def test_the_recurrent_weights_start_orthogonal_times_the_scale():
    for scale in (1.0, 4.0):
        w = recurrent.Recurrent(recurrent.Bias, scale=scale).from_state.weight
        assert_close(w @ w.T, scale**2 * torch.eye(64), rtol=0, atol=1e-4)
    wide = recurrent.Recurrent(recurrent.Bias, width=4096 // 4).from_input.weight
    assert wide.std().item() == pytest.approx(0.5, rel=0.1)


def test_the_control_has_a_bias_and_centring_takes_the_mean_off_alone():
    x = torch.randn(3, 8)
    for layer, expected in ((recurrent.Bias(8), x), (recurrent.Centring(8), x - x.mean(1, keepdim=True))):
        assert_close(layer(x), expected)
        nn.init.ones_(layer.bias)
        assert_close(layer(x), expected + 1)


def test_digits_are_read_from_the_top_four_pixels_at_a_time():
    assert recurrent.STEPS * recurrent.INPUTS == 64


# Experiment and benchmark


def test_the_experiment_runs(run_experiment):
    record = run_experiment(layernorm)
    rows = {f"{norm}@{size}" for norm in ("layer norm", "batch norm") for size in (32, 4)}
    assert record.curves["loss at rate 0.1"].keys() == rows
    curve = record.curves["loss over examples in a batch"]
    assert [step for step, _ in curve["batch norm"]] == [32, 4]
    assert [claim["verdict"] for claim in record.claims] == ["held", "held", "not judged", "not judged"]
    (table,) = record.artifacts
    assert table["name"] == "invariances"
    loss = {(norm, step): value for norm, points in curve.items() for step, value in points}
    batches, state = (claim["values"] for claim in record.claims[2:])
    assert list(batches.values()) == pytest.approx(
        [
            loss["batch norm", 4] / loss["layer norm", 4],
            loss["layer norm", 4] / loss["layer norm", 32],
            loss["batch norm", 32],
        ]
    )
    loss = {arm: record.values["recurrent loss", arm] for arm in ("with", "without", "orthogonal, without")}
    assert list(state.values()) == pytest.approx(
        [loss["without"] / loss["with"], loss["orthogonal, without"]]
    )
    assert (digest(EXPERIMENT), digest(recurrent)) == ("aeecab102395", "b84ddda7da5e")


def test_figure_6s_network_has_two_hidden_layers_in_both_arms():
    for norm in (LayerNorm, BatchNorm):
        assert [type(layer) for layer in network(norm)] == [nn.Linear, norm, nn.ReLU] * 2 + [nn.Linear]


def test_two_examples_are_signs_to_batch_normalisation():
    y = BatchNorm(200)(torch.randn(2, 200))
    assert ((y.abs() - 1).abs() < 0.01).float().mean() > 0.95


def test_every_variant_is_right(check_benchmark):
    (case,) = check_benchmark(layernorm)
    assert case.cost["forward"].bytes == 2 * 4 * 8 * 4  # 4 × 8 numbers of 4 bytes, read and written
