"""Group normalisation compared with torch's and its two limits, ghost batches with separate batches, and
the arms.
"""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import groupnorm
from readtrack.papers.batchnorm import BatchNorm
from readtrack.papers.groupnorm import GhostBatchNorm, GroupNorm, group_norm, line_by_line
from readtrack.papers.instancenorm import InstanceNorm
from readtrack.papers.layernorm import LayerNorm

EXPERIMENT = importlib.import_module("readtrack.papers.groupnorm.experiment")  # the hook has the same name
SHAPES = [((3, 6), 2), ((3, 6, 5), 3), ((2, 6, 3, 7), 2), ((2, 6, 3, 7), 1), ((2, 6, 3, 7), 6)]


def called(layer: nn.Module):
    return lambda weights, x: functional_call(layer, weights, (x,))


@pytest.mark.parametrize(("shape", "groups"), SHAPES)
def test_it_matches_torchs(assert_parity, shape, groups):
    weights = {"weight": torch.rand(6) + 0.5, "bias": torch.randn(6)}
    ours, theirs = GroupNorm(groups, 6).double(), nn.GroupNorm(groups, 6).double()
    assert ours.eps == theirs.eps
    assert_parity(called(ours), called(theirs), (torch.randn(shape) * 3 + 2,), weights=weights)


@pytest.mark.parametrize(("shape", "groups"), SHAPES)
def test_the_fast_gradient_is_the_slow_ones(assert_parity, shape, groups):
    assert_parity(
        lambda x, weight, bias: group_norm(x, groups, weight, bias, eps=0.5),
        lambda x, weight, bias: line_by_line(x, groups, weight, bias, eps=0.5),
        (torch.randn(shape) * 3 + 2, torch.rand(6), torch.randn(6)),
    )


def test_half_precision_is_as_accurate_as_torchs(assert_half_precision):
    assert_half_precision(
        lambda x, weight, bias: group_norm(x, 4, weight, bias, eps=1e-5),
        lambda x, weight, bias: torch.nn.functional.group_norm(x, 4, weight, bias),
        (torch.randn(4, 16, 8, 8) * 3 + 2, torch.rand(16) + 0.5, torch.randn(16)),
        dtypes=(torch.bfloat16,),
    )


def test_its_limits_are_layer_and_instance_normalisation():
    x = torch.randn(3, 6, 4, 5).double()
    layer = LayerNorm(6 * 4 * 5).double()
    assert_close(GroupNorm(1, 6).double()(x), layer(x.flatten(1)).view_as(x))
    assert_close(GroupNorm(6, 6).double()(x), InstanceNorm(6).double()(x))


def test_state_can_be_exchanged_with_torchs_and_groups_must_divide():
    ours = GroupNorm(2, 6)
    ours.load_state_dict(nn.GroupNorm(2, 6).state_dict())
    assert torch.equal(ours.weight, torch.ones(6))
    assert not ours.bias.any()
    with pytest.raises(ValueError, match="split"):
        GroupNorm(4, 6)
    with pytest.raises(ValueError, match="split"):
        group_norm(torch.randn(2, 6), 4, torch.ones(6), torch.zeros(6), eps=1e-5)


def test_a_ghost_is_a_separate_batch():
    layer, plain = GhostBatchNorm(5, examples=4).double(), BatchNorm(5, momentum=1.0).double()
    for norm in (layer, plain):
        norm.weight.data.copy_(torch.arange(5) + 1.0)
        norm.bias.data.copy_(torch.arange(5) - 2.0)
    x = torch.randn(12, 5, 3, 2).double() * 3 + 1
    apart, means, variances = [], [], []
    for piece in x.split(4):
        apart.append(plain(piece))
        means.append(plain.running_mean.clone())
        variances.append(plain.running_var.clone())
    assert_close(layer(x), torch.cat(apart))
    assert_close(layer.running_mean, 0.1 * torch.stack(means).mean(0))
    assert_close(layer.running_var, 0.9 + 0.1 * torch.stack(variances).mean(0))
    whole, reference = GhostBatchNorm(5, examples=12).double(), BatchNorm(5).double()
    assert_close(whole(x), reference(x))
    assert_close(whole.eval()(x), reference.eval()(x))
    assert_close(whole.running_var, reference.running_var)


def test_the_near_miss_subtracts_the_mean_and_divides_by_nothing():
    x = torch.randn(2, 8, 3, 3)
    assert_close(EXPERIMENT._NoDivision(1, 8)(x), x - x.mean((1, 2, 3), keepdim=True))
    apart = EXPERIMENT.undivided(8)(x).unflatten(1, (4, 2))
    assert_close(apart.mean((2, 3, 4)), torch.zeros(len(x), 4), atol=1e-6, rtol=0)


def test_all_examples_are_normalised_by_the_first_two():
    layer, x = EXPERIMENT._OfTwo(3), torch.randn(8, 3, 4, 4) * 3 + 1
    two = BatchNorm(3)
    assert_close(layer(x)[:2], two(x[:2]))
    mean, std = x[:2].mean((0, 2, 3)), x[:2].var((0, 2, 3), correction=0).add(layer.eps).sqrt()
    assert_close(layer(x), (x - mean[:, None, None]) / std[:, None, None])
    layer, two = EXPERIMENT._OfTwo(3), BatchNorm(3)
    layer(x), two(x[:2])
    assert_close(layer.eval()(x), two.eval()(x))


def test_the_widest_layers_have_the_papers_32_groups():
    assert EXPERIMENT.grouped(64).groups == 32


def test_the_experiment_runs(run_experiment):
    record = run_experiment(groupnorm)
    assert record.claims[0]["verdict"] == "held"
    curve = record.curves["loss over examples in a statistic"]
    assert curve.keys() == {"batch norm", "group norm"}
    assert [step for step, _ in curve["batch norm"]] == [2, 8, 32]
    assert len({loss for _, loss in curve["group norm"]}) == 1
    losses = {arm: record.values["loss on images", arm] for arm in ("over 32", "over 2", "groups")}
    judged = [next(iter(claim["values"].values())) for claim in record.claims[1:]]
    assert judged == pytest.approx(
        [losses["over 32"] / losses["over 2"], losses["groups"] / losses["over 2"]], rel=1e-4
    )
    assert digest(EXPERIMENT) == "1982057adecc"


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(groupnorm)] == ["group norm"]
