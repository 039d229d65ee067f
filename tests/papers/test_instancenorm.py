"""Instance normalisation compared with torch's, the parts of stylisation with loops, and the arms."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.papers import instancenorm
from readtrack.papers.batchnorm import BatchNorm
from readtrack.papers.instancenorm import InstanceNorm, instance_norm, line_by_line, stylisation

EXPERIMENT = importlib.import_module("readtrack.papers.instancenorm.experiment")  # the hook has the same name
SHAPES = [(3, 5, 6), (3, 5, 4, 7), (1, 2, 2, 1)]


def called(layer: nn.Module):
    return lambda weights, x: functional_call(layer, weights, (x,))


@pytest.mark.parametrize("shape", SHAPES)
def test_it_matches_torchs(assert_parity, shape):
    kind = nn.InstanceNorm1d if len(shape) == 3 else nn.InstanceNorm2d
    weights = {"weight": torch.rand(shape[1]) + 0.5, "bias": torch.randn(shape[1])}
    ours, theirs = InstanceNorm(shape[1]).double(), kind(shape[1], affine=True).double()
    assert ours.eps == theirs.eps
    assert_parity(called(ours), called(theirs), (torch.randn(shape) * 3 + 2,), weights=weights)
    groups = nn.GroupNorm(shape[1], shape[1]).double()
    assert_parity(called(ours), called(groups), (torch.randn(shape) * 3 + 2,), weights=weights)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_fast_gradient_is_the_slow_ones(assert_parity, shape):
    assert_parity(
        lambda *given: instance_norm(*given, eps=0.5),
        lambda *given: line_by_line(*given, eps=0.5),
        (torch.randn(shape) * 3 + 2, torch.rand(shape[1]), torch.randn(shape[1])),
    )


def test_half_precision_is_as_accurate_as_torchs(assert_half_precision):
    features = torch.rand(16) + 0.5, torch.randn(16)
    assert_half_precision(
        lambda x, weight, bias: instance_norm(x, weight, bias, eps=1e-5),
        lambda x, weight, bias: torch.nn.functional.instance_norm(x, weight=weight, bias=bias),
        (torch.randn(4, 16, 8, 8) * 3 + 2, *features),
        dtypes=(torch.bfloat16,),
    )


def test_state_can_be_exchanged_with_torchs():
    ours = InstanceNorm(5)
    ours.load_state_dict(nn.InstanceNorm2d(5, affine=True).state_dict())
    assert torch.equal(ours.weight, torch.ones(5))
    assert not ours.bias.any()


def test_use_is_training_and_a_single_position_is_refused():
    layer, x = InstanceNorm(3), torch.randn(2, 3, 4, 4)
    trained = layer(x)
    assert torch.equal(layer.eval()(x), trained)
    assert torch.equal(layer(x[1:]), trained[1:])
    with pytest.raises(ValueError, match="single position"):
        layer(x[:, :, :1, :1])


# Stylisation


def test_contrast_leaves_the_mean_colour_and_scales_the_rest():
    pictures = torch.rand(2, 3, 4, 4)
    less = stylisation.with_contrast(pictures, torch.tensor([0.2, 1.0]))
    assert_close(less.mean((2, 3)), pictures.mean((2, 3)))
    assert_close(less.std((2, 3)), pictures.std((2, 3)) * torch.tensor([[0.2], [1.0]]))


def test_the_gram_matrix_matches_loops():
    features = torch.randn(2, 3, 4, 5)
    found = stylisation.gram(features)
    for b in range(2):
        for i in range(3):
            for j in range(3):
                assert_close(found[b, i, j], (features[b, i] * features[b, j]).mean())


def test_the_style_itself_has_no_style_loss_and_the_content_itself_no_content_loss():
    style, content = torch.rand(1, 3, 16, 16), torch.rand(2, 3, 16, 16)
    loss = stylisation.PerceptualLoss(style, standardise=True)
    assert loss.parts(style, content[:1])[0].item() == pytest.approx(0.0, abs=1e-10)
    assert_close(loss.parts(content, content)[1], torch.zeros(2))
    weaker = stylisation.with_contrast(content, torch.tensor([0.5, 0.5]))
    lost = loss.parts(weaker, content)[1]
    assert (lost < loss.parts(content.flip(3), content)[1] / 2).all()
    assert not any(weight.requires_grad for weight in loss.parameters())
    parts = loss.parts(weaker, content)
    assert_close(loss(weaker, content), parts[0] + 0.5 * parts[1])


def test_the_generator_keeps_the_size_and_normalises_every_layer_but_the_last():
    norms: list[int] = []

    def noted(features: int) -> nn.Module:
        norms.append(features)
        return nn.Identity()

    drawn = stylisation.generator(noted)(torch.rand(2, 3, 8, 12))
    assert drawn.shape == (2, 3, 8, 12)
    assert norms == [12, 24, 24, 24, 12]
    assert ((drawn >= 0) & (drawn <= 1)).all()


def test_content_as_it_is_loses_by_its_contrast():
    style, content = torch.rand(1, 3, 16, 16), torch.rand(2, 3, 16, 16)
    plain = stylisation.PerceptualLoss(style, standardise=False)
    assert_close(plain.parts(content, content)[1], torch.zeros(2))
    seen, wanted = (plain.filters(pictures).coarse for pictures in (content / 2, content))
    expected = [(s - w).norm() ** 2 / w.norm() ** 2 for s, w in zip(seen, wanted, strict=True)]
    assert_close(plain.parts(content / 2, content)[1], torch.stack(expected))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "norm"),
    [
        ({}, InstanceNorm),
        ({"null": True}, BatchNorm),
        ({"broken": "whole batch"}, BatchNorm),
        ({"broken": "all channels at once"}, nn.GroupNorm),
        ({"broken": "the input alone"}, BatchNorm),
    ],
)
def test_the_arms_their_null_run_and_their_breaks(run_experiment, monkeypatch, options, norm):
    made = {}
    train = EXPERIMENT.train

    def noted(suffix, at, recipe, rate):
        score, network = train(suffix, at, recipe, rate)
        made[at.name, suffix] = network
        return score, network

    monkeypatch.setattr(EXPERIMENT, "train", noted)
    run_experiment(instancenorm, **options)
    assert len(made) == 4
    for (arm, _), network in made.items():
        layers = {type(layer) for layer in network.modules() if hasattr(layer, "eps")}
        assert layers == {norm if arm == "instance norm" else BatchNorm}
        alone = options.get("broken") == "the input alone" and arm == "instance norm"
        assert isinstance(network[0], EXPERIMENT.Standardise) == alone


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(instancenorm)] == ["instance norm"]
