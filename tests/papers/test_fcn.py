"""Bilinear upsampling compared with torch's, FCN on VGG written out, the ceiling of coarse scores, and the
arms.
"""

from __future__ import annotations

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import fcn
from readtrack.papers.fcn import FCN, SmallFCN, bilinear, upsample
from readtrack.papers.fcn.model import LearnedUpsampling, middle_of
from readtrack.papers.fcn.task import Labelled
from readtrack.plugin import Sweep, Trial
from readtrack.runs.trial import Work, Workshop
from readtrack.scores import mean_iou

experiment_module = importlib.import_module("readtrack.papers.fcn.experiment")


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_upsampling_is_interpolation_away_from_the_border(assert_parity, factor):
    def inner(x):
        return x[:, :, factor:-factor, factor:-factor]

    assert_parity(
        lambda x: inner(upsample(x, factor)),
        lambda x: inner(F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)),
        (torch.randn(2, 3, 5, 4),),
    )


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
def test_a_constant_stays_one_inside(factor):
    large = upsample(torch.ones(1, 2, 5, 6), factor)
    assert large.shape[:2] == (1, 2)
    inside = large[:, :, factor : 4 * factor, factor : 5 * factor]
    assert_close(inside, torch.ones_like(inside))


def test_the_filter_of_a_factor_of_two():
    assert (4 * bilinear(2)[0]).tolist() == [0.25, 0.75, 0.75, 0.25]
    assert bilinear(3).shape == (5, 5)
    assert_close(bilinear(8), bilinear(8).T)


def test_upsampling_in_half_precision(assert_half_precision):
    assert_half_precision(
        lambda x: upsample(x, 4)[:, :, 4:-4, 4:-4],
        lambda x: F.interpolate(x, scale_factor=4, mode="bilinear")[:, :, 4:-4, 4:-4],
        (torch.randn(2, 5, 12, 12),),
    )


@pytest.mark.parametrize(("stride", "parameters"), [(32, 134_346_581), (16, 134_364_410), (8, 134_376_863)])
def test_sizes(stride, parameters):
    with torch.device("meta"):
        network = FCN(stride)
        assert network(torch.empty(2, 3, 67, 130)).shape == (2, 21, 67, 130)
    assert sum(w.numel() for w in network.parameters()) == parameters
    assert list(network.skips) == ["pool4", "pool3"][: {32: 0, 16: 1, 8: 2}[stride]]


class Tiny(FCN):
    """FCN with fewer channels, so that it can be computed here."""

    def __init__(self, stride: int) -> None:
        nn.Module.__init__(self)
        layers, maps = [], 3
        for width in (2, 3, 4, 5, 4):
            layers += [nn.Conv2d(maps, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
            maps = width
        layers[0].padding = (100, 100)
        self.features = nn.Sequential(*layers)
        self.fc6, self.fc7 = nn.Conv2d(4, 6, 7), nn.Conv2d(6, 6, 1)
        self.dropout, self.score, self.stride = nn.Dropout(0.5), nn.Conv2d(6, 3, 1), stride
        self.skips, self.ups = nn.ModuleDict(), nn.ModuleDict()
        for name, width, at in (("pool4", 5, 16), ("pool3", 4, 8)):
            if at >= stride:
                self.skips[name] = nn.Conv2d(width, 3, 1)
                self.ups[name] = nn.ConvTranspose2d(3, 3, 4, stride=2, bias=False)
        self.init_weights()


def written(w, x):
    """FCN-16s of `Tiny`, step by step."""
    height, width = x.shape[2:]
    pools = []
    for i in range(5):
        padding = 100 if i == 0 else 1
        x = F.conv2d(F.pad(x, (padding,) * 4), w[f"features.{3 * i}.weight"], w[f"features.{3 * i}.bias"])
        x = F.max_pool2d(x.clamp(min=0), 2, ceil_mode=True)
        pools.append(x)
    for layer in ("fc6", "fc7"):
        x = F.conv2d(x, w[f"{layer}.weight"], w[f"{layer}.bias"]).clamp(min=0)
    x = F.conv2d(x, w["score.weight"], w["score.bias"])
    x = F.conv_transpose2d(x, w["ups.pool4.weight"], stride=2)
    skip = F.conv2d(pools[3], w["skips.pool4.weight"], w["skips.pool4.bias"])
    top, left = (skip.shape[2] - x.shape[2]) // 2, (skip.shape[3] - x.shape[3]) // 2
    x = x + skip[:, :, top : top + x.shape[2], left : left + x.shape[3]]
    filters = torch.zeros(3, 3, 32, 32, dtype=x.dtype)
    for label in range(3):
        filters[label, label] = bilinear(16)
    x = F.conv_transpose2d(x, filters, stride=16)
    top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
    return x[:, :, top : top + height, left : left + width]


def test_fcn_16s_written_out(assert_parity):
    network = Tiny(16).double().eval()
    weights = {name: 0.4 * torch.randn_like(w) for name, w in network.named_parameters()}
    assert_parity(
        lambda w, x: functional_call(network, w, (x,)),
        written,
        (torch.randn(1, 3, 20, 33),),
        weights=weights,
    )


def test_a_network_with_new_skips_starts_where_the_coarse_one_ended():
    coarse = SmallFCN(classes=4)
    x = torch.randn(2, 3, 16, 16)
    for finest in (2, 1):
        fine = SmallFCN(classes=4, finest=finest)
        assert fine.load_state_dict(coarse.state_dict(), strict=False).unexpected_keys == []
        skips = [fine.score2, fine.score1][: 1 if finest == 2 else 2]
        assert not any(weight.any() for skip in skips for weight in skip.parameters())
        maps = fine.score3(fine.stage3(fine.pool(fine.stage2(fine.pool(fine.stage1(x))))))
        up = upsample(maps, 2)
        twice = upsample(up, 2)
        assert_close(fine(x), twice)
        assert (
            coarse(x)[:, :, 4:-4, 4:-4].argmax(1) == fine(x)[:, :, 4:-4, 4:-4].argmax(1)
        ).float().mean() > 0.9


def test_the_middle():
    x = torch.arange(30.0).view(1, 1, 5, 6)
    assert torch.equal(middle_of(x, 3, 2), x[:, :, 1:4, 2:4])


def test_scores_fitted_to_the_truth():
    whole = torch.zeros(1, 16, 16, dtype=torch.long)
    whole[:, 4:12, 8:] = 3
    assert experiment_module.fitted(whole, stride=1) == 1
    thin = torch.zeros_like(whole)
    thin[:, 1::4] = 2  # every fourth column, too fine for a coarse score map
    assert experiment_module.fitted(whole) > experiment_module.fitted(thin)
    shares = F.avg_pool2d(F.one_hot(whole, 6).permute(0, 3, 1, 2).float(), 4)
    interpolated = upsample(shares, 4).argmax(1)
    assert experiment_module.fitted(whole) >= mean_iou(interpolated, whole, 6)


def test_pixels_near_an_edge():
    y = torch.zeros(1, 7, 9, dtype=torch.long)
    y[:, :, 5:] = 3
    for pixels, columns in ((1, [4, 5]), (2, [3, 4, 5, 6])):
        near = experiment_module.near_edges(y, pixels)
        assert near.any(1)[0].nonzero().flatten().tolist() == columns
        assert near[0, :, columns].all()


def test_the_other_sources_of_finer_scores():
    x = torch.rand(2, 3, 16, 16)
    coarse = SmallFCN(classes=4)
    maps = coarse.stage3(coarse.pool(coarse.stage2(coarse.pool(coarse.stage1(x)))))
    for source, (middle, fine) in {
        "pixels": (F.avg_pool2d(x, 2), x),
        "coarse maps": (upsample(maps, 2), upsample(maps, 4)),
    }.items():
        network = SmallFCN(classes=4, finest=1, source=source)
        assert network.load_state_dict(coarse.state_dict(), strict=False).unexpected_keys == []
        for score in (network.score2, network.score1):
            nn.init.normal_(score.weight)
        up = upsample(network.score3(maps), 2) + network.score2(middle)
        assert_close(network(x), upsample(up, 2) + network.score1(fine))


def test_learned_upsampling_has_own_weights_for_each_pixel_and_nine_coarse_positions():
    x = torch.rand(2, 3, 16, 16)
    coarse, rival = SmallFCN(classes=4), LearnedUpsampling(classes=4)
    assert rival.load_state_dict(coarse.state_dict(), strict=False).missing_keys == ["up.weight"]
    assert_close(rival(x), coarse(x))
    assert rival.up.weight.requires_grad
    nn.init.normal_(rival.up.weight)
    around = F.pad(coarse.maps(x)[2], (1, 1, 1, 1))
    added = torch.zeros(2, 4, 16, 16)
    for i in range(16):
        for j in range(16):
            seen = around[:, :, i // 4 : i // 4 + 3, j // 4 : j // 4 + 3]
            weights = rival.up.weight[:, :, i % 4 :: 4, j % 4 :: 4].flip(2, 3)
            added[:, :, i, j] = torch.einsum("bmij,mcij->bc", seen, weights)
    assert_close(rival(x), coarse(x) + added, rtol=1e-4, atol=1e-4)


def test_the_arms(comparisons):
    assert experiment_module.RATES == (0.004, 0.012, 0.036)
    assert experiment_module.STEPS == 150
    assert digest(experiment_module) == "cb361f184cff"
    (given,) = comparisons(fcn)
    arms = given.arms
    stages = {arm.before for arm in arms.values()}
    kinds = {}
    for name, change in {"plain": arms, **given.breaks}.items():
        stages |= {arm.before for arm in change.values()}
        for at, arm in change.items():
            network = arm.make()
            finest = 1 if network.score1 is not None else 2 if network.score2 is not None else 4
            kinds[name, at] = finest, network.source, type(network)
    assert len(stages) == 1
    assert {at: kind for (name, at), kind in kinds.items() if name == "plain"} == {
        "stride 1": (1, "layers", SmallFCN),
        "stride 2": (2, "layers", SmallFCN),
        "stride 4": (4, "layers", SmallFCN),
    }
    for finest in (1, 2):
        at = f"stride {finest}"
        assert kinds["no skips", at] == (4, "layers", SmallFCN)
        assert kinds["skips from coarse maps", at] == (finest, "coarse maps", SmallFCN)
        assert kinds["skips from pixels", at] == (finest, "pixels", SmallFCN)
        assert kinds["learnt upsampling", at] == (4, "layers", LearnedUpsampling)
        added = given.breaks["learnt upsampling"][at].make().up.weight.numel()
        assert added > sum(weight.numel() for weight in arms["stride 4"].make().parameters())


def test_arms_go_on_from_the_coarse_network(part_of_run, monkeypatch):
    """The arms are also chosen and judged on different data."""
    x, y = torch.rand(32, 3, 16, 16), torch.randint(6, (32, 16, 16))
    world = experiment_module.World(Labelled(x, y), Labelled(x[:2], y[:2]), Labelled(x[:3], y[:3]))
    monkeypatch.setattr(experiment_module, "iu", lambda network, held_out: len(held_out.x) / 8)
    at = Trial(Workshop(part_of_run(), world), Work(arm="stride 1"), arm="stride 1", share=0.0)
    at.before = SmallFCN(classes=6).state_dict()
    score, network = experiment_module.go_on(at, experiment_module.ARMS["stride 1"], 0.01, steps=2)
    assert score == 0.25
    for name, weight in at.before.items():
        assert torch.equal(network.state_dict()[name], weight)
    assert experiment_module.read_off(at, Sweep(network, 0.01, {})) == {"mean IU": 0.375}


def test_the_experiment_runs(run_experiment):
    record = run_experiment(fcn)
    claims = {claim["claim"]["name"]: claim for claim in record.claims}
    assert claims["size"]["verdict"] == "held"
    iu = {arm: record.values["mean IU", arm] for arm in experiment_module.ARMS}
    values = list(claims["skips against a coarse network"]["values"].values())
    assert values[:2] == [iu["stride 1"] - iu["stride 4"], iu["stride 2"] - iu["stride 4"]]


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(fcn)] == ["upsampling", "images"]
