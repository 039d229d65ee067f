"""RMSNorm compared with torch's and Llama's, table 1's invariances, and the arms."""

from __future__ import annotations

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import rmsnorm
from readtrack.papers.rmsnorm import RMSNorm, line_by_line, rms_norm

EXPERIMENT = importlib.import_module("readtrack.papers.rmsnorm.experiment")  # the hook has the same name
SHAPES = [(5,), (3, 5), (2, 3, 5), (2, 1, 3, 7)]


def inputs(shape: tuple[int, ...]):
    return torch.randn(shape) * 3 + 2, torch.rand(shape[-1]) + 0.5


@pytest.mark.parametrize("eps", [1e-6, 0.5])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_function_matches_torchs(assert_parity, shape, eps):
    assert_parity(
        lambda *given: rms_norm(*given, eps=eps),
        lambda x, weight: F.rms_norm(x, x.shape[-1:], weight, eps),
        inputs(shape),
    )


@pytest.mark.parametrize("share", [1.0, 0.4])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_fast_gradient_is_the_slow_ones(assert_parity, shape, share):
    assert_parity(
        lambda *given: rms_norm(*given, eps=0.5, share=share),
        lambda *given: line_by_line(*given, eps=0.5, share=share),
        inputs(shape),
    )


def test_the_module_matches_torchs(assert_parity):
    x, weight = inputs((2, 3, 5))
    ours, theirs = RMSNorm(5, eps=1e-3).double(), nn.RMSNorm(5, eps=1e-3).double()
    assert_parity(
        lambda w, x: functional_call(ours, w, (x,)),
        lambda w, x: functional_call(theirs, w, (x,)),
        (x,),
        weights={"weight": weight},
    )
    assert ours.load_state_dict(theirs.state_dict()).missing_keys == []


def test_the_module_matches_llamas():
    """The reference always computes in single precision."""
    llama = pytest.importorskip("transformers.models.llama.modeling_llama", reason="needs transformers")
    x, weight = inputs((2, 3, 7))
    theirs = llama.LlamaRMSNorm(7, eps=1e-6)
    theirs.weight.data = weight
    assert_close(rms_norm(x, weight), theirs(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("share", "seen"), [(1 / 16, 1), (0.5, 4), (0.6, 5), (1.0, 8)])
def test_a_share_of_the_features_represents_all(assert_parity, share, seen):
    assert_parity(
        lambda *given: rms_norm(*given, share=share),
        lambda x, weight: x / (x[..., :seen].pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weight,
        inputs((3, 8)),
    )


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_first_and_second_derivatives_match_finite_differences(share):
    given = tuple(tensor.double().requires_grad_() for tensor in inputs((3, 5)))
    assert torch.autograd.gradcheck(lambda *given: rms_norm(*given, share=share), given)
    assert torch.autograd.gradgradcheck(lambda *given: rms_norm(*given, share=share), given)


def test_one_tensor_is_kept_where_autograd_keeps_three():
    def kept(call) -> int:
        x, weight = (tensor.requires_grad_() for tensor in inputs((64, 8)))
        seen = {}
        with saved_tensors_hooks(lambda t: seen.setdefault(t.data_ptr(), t), lambda t: t):
            call(x, weight)
        return sum(tensor.numel() == x.numel() for tensor in seen.values())

    assert kept(rms_norm) == 1
    assert kept(line_by_line) > 1


def test_the_gradient_takes_any_strides(assert_parity):
    assert_parity(
        lambda x, weight: rms_norm(x.mT, weight).mT.relu(),
        lambda x, weight: line_by_line(x.mT, weight).mT.relu(),
        (torch.randn(2, 5, 3), torch.randn(5)),
    )


def test_zeros_give_zeros_and_no_nan():
    x = torch.zeros(2, 5, requires_grad=True)
    y = rms_norm(x, torch.ones(5))
    y.sum().backward()
    assert not y.any()
    assert x.grad.isfinite().all()


def test_half_precision_is_nearly_as_accurate_as_torchs(assert_half_precision):
    assert_half_precision(
        rms_norm, lambda x, weight: F.rms_norm(x, x.shape[-1:], weight, 1e-6), inputs((64, 256))
    )


def test_autocast_goes_through():
    linear, ours, theirs = nn.Linear(8, 64), RMSNorm(64), nn.RMSNorm(64, eps=1e-6)
    x = torch.randn(32, 8)
    found = []
    for layer in (ours, theirs):
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(linear(x))
        y.float().pow(3).sum().backward()
        found.append((y.float(), layer.weight.grad))
    for mine, their in zip(*found, strict=True):
        assert_close(mine, their, rtol=0.02, atol=0.02 * their.abs().max().item())


def test_table_1_the_weight_matrix_may_be_scaled_but_a_single_weight_vector_may_not():
    x, w, gain = torch.randn(6, 4).double(), torch.randn(4, 5).double(), torch.ones(5).double()
    one_unit = w.clone()
    one_unit[:, 2] *= 10
    before = rms_norm(x @ w, gain, eps=0.0)
    assert_close(rms_norm(x @ (2.5 * w), gain, eps=0.0), before, rtol=0, atol=1e-12)
    assert (rms_norm(x @ one_unit, gain, eps=0.0) - before).abs().max() > 0.1


def test_parameters_are_one_a_feature():
    with torch.device("meta"):
        assert sum(p.numel() for p in RMSNorm(768).parameters()) == 768


# Experiment and benchmark


def test_the_experiment_runs(run_experiment):
    record = run_experiment(rmsnorm)
    assert [claim["verdict"] for claim in record.claims] == ["held", "not judged"]
    (table,) = record.artifacts
    assert table["name"] == "invariances"
    arms = ("RMSNorm", "centring alone", "neither", "layer norm", "orthogonal, neither")
    loss = {arm: record.values["recurrent loss", arm] for arm in arms}
    gain = {arm: loss["neither"] - loss[arm] for arm in arms}
    assert list(record.claims[-1]["values"].values()) == pytest.approx(
        [
            gain["RMSNorm"] / gain["layer norm"],
            gain["centring alone"] / gain["layer norm"],
            gain["layer norm"],
            loss["orthogonal, neither"],
        ],
        rel=1e-3,
    )
    assert digest(EXPERIMENT) == "a121df9b0508"


def test_one_feature_represents_all():
    x = torch.randn(3, 8)
    assert_close(EXPERIMENT.one_feature(8)(x), x / x[:, :1].abs(), rtol=1e-3, atol=1e-3)


def test_every_variant_is_right(check_benchmark):
    alone, instead, network = check_benchmark(rmsnorm)
    assert alone.cost["forward"].bytes == instead.cost["forward"].bytes == 2 * 4 * 8 * 4
    assert network.name == "a recurrent network"


def test_the_claim_on_time_names_cells_of_the_quick_benchmark():
    from readtrack.plugin import Bench

    cases = list(rmsnorm.benchmark(Bench(device=torch.device("cpu"), dtype=torch.float32, budget="quick")))
    for bound in rmsnorm.TIME.timed:
        (case,) = (
            case for case in cases if case.name == bound.case and bound.axes.items() <= case.axes.items()
        )
        assert bound.mode in case.cost
        (naive,) = (variant for variant in case.variants if variant.role == "naive")
        assert naive.name == "layer norm"
