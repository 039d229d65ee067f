"""U-Net written out, its sizes, the weights of borders pixel by pixel, bending, and the arms."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.papers import unet
from readtrack.papers.fcn.task import Labelled
from readtrack.papers.unet import UNet, border_weights, deformed
from readtrack.papers.unet.benchmark import joined, patches, split

experiment_module = importlib.import_module("readtrack.papers.unet.experiment")


def convolve(w, name, x, padding):
    """As a sum over the filter's places."""
    weight, bias = w[f"{name}.weight"], w[f"{name}.bias"]
    size = weight.shape[-1]
    x = F.pad(x, (padding,) * 4)
    rows, columns = x.shape[2] - size + 1, x.shape[3] - size + 1
    total = bias[:, None, None].expand(len(x), -1, rows, columns)
    for i in range(size):
        for j in range(size):
            total = total + torch.einsum(
                "oc,bchw->bohw", weight[:, :, i, j], x[:, :, i : i + rows, j : j + columns]
            )
    return total


def doubled(w, name, x):
    """A transposed convolution of 2 × 2 and stride 2: each place becomes four."""
    out = torch.einsum("cokl,bchw->bohkwl", w[f"{name}.weight"], x).flatten(4, 5).flatten(2, 3)
    return out + w[f"{name}.bias"][:, None, None]


def written(w, x, padding, joins):
    left = []
    for level in range(3):
        if level:
            x = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5))
        for layer in (0, 2):
            x = convolve(w, f"down.{level}.{layer}", x, padding).clamp(min=0)
        left.append(x)
    for level in range(2):
        x = doubled(w, f"ups.{level}", x)
        if joins:
            beside = left[1 - level]
            cut = [(beside.shape[d] - x.shape[d]) // 2 for d in (2, 3)]
            beside = beside[:, :, cut[0] : cut[0] + x.shape[2], cut[1] : cut[1] + x.shape[3]]
            x = torch.cat((beside, x), 1)
        for layer in (0, 2):
            x = convolve(w, f"up_pairs.{level}.{layer}", x, padding).clamp(min=0)
    return convolve(w, "score", x, 0)


@pytest.mark.parametrize(
    ("padding", "joins", "shape"), [(0, True, (44, 52)), (1, True, (8, 12)), (1, False, (8, 12))]
)
def test_the_network_written_out(assert_parity, padding, joins, shape):
    network = UNet(channels=2, classes=3, widths=(3, 4, 5), padding=padding, joins=joins).double()
    weights = {name: 0.4 * torch.randn_like(w) for name, w in network.named_parameters()}
    assert_parity(
        lambda w, x: functional_call(network, w, (x,)),
        lambda w, x: written(w, x, padding, joins),
        (torch.randn(2, 2, *shape),),
        weights=weights,
    )


def test_sizes():
    with torch.device("meta"):
        network = UNet()
        assert network(torch.empty(1, 1, 572, 572)).shape == (1, 2, 388, 388)
    assert sum(w.numel() for w in network.parameters()) == 31_030_658


def test_without_joins_there_are_more_weights():
    sizes = [
        sum(
            w.numel()
            for w in UNet(channels=3, classes=1, widths=(12, 24, 48), padding=1, joins=j).parameters()
        )
        for j in (True, False)
    ]
    assert sizes[0] < sizes[1] < 1.2 * sizes[0]


def test_what_lies_beside_does_not_reach_a_network_without_joins():
    for joins in (True, False):
        network = UNet(channels=1, classes=1, widths=(4, 6, 8), padding=1, joins=joins)
        beside = []
        network.down[0].register_forward_hook(lambda _m, _i, out, kept=beside: kept.append(out))
        network.down[1].register_forward_pre_hook(lambda _m, given: (given[0].detach(),))
        out = network(torch.randn(1, 1, 8, 8))
        (gradient,) = torch.autograd.grad(out.sum(), beside[0], allow_unused=True, materialize_grads=True)
        assert gradient.any().item() is joins


def test_weights_of_borders_pixel_by_pixel():
    masks = torch.zeros(3, 9, 11, dtype=torch.bool)
    masks[0, 1:4, 1:4], masks[1, 2:6, 6:9], masks[2, 7:, :3] = True, True, True
    found = border_weights(masks, w0=7.0, sigma=2.0)
    for i in range(9):
        for j in range(11):
            away = sorted(min(math.hypot(i - a, j - b) for a, b in mask.nonzero().tolist()) for mask in masks)
            inside = bool(masks[:, i, j].any())
            expected = 1.0 if inside else 1 + 7 * math.exp(-((away[0] + away[1]) ** 2) / 8)
            assert found[i, j].item() == pytest.approx(expected, rel=1e-4)
    assert torch.equal(border_weights(masks[:1]), torch.ones(9, 11))


def test_bending_by_nothing_changes_nothing():
    images, masks = torch.rand(2, 3, 16, 16), torch.randint(5, (2, 16, 16))
    bent, labels = deformed(images, masks, torch.Generator().manual_seed(0), std=0.0)
    assert_close(bent, images, rtol=1e-4, atol=1e-5)
    assert torch.equal(labels, masks)


def test_images_and_masks_bend_alike():
    masks = torch.zeros(4, 16, 16, dtype=torch.long)
    masks[:, 4:12, 5:11] = 3
    images = masks[:, None].float() / 3
    bent, labels = deformed(images, masks, torch.Generator().manual_seed(0), std=1.5)
    assert not torch.equal(labels, masks)
    assert set(labels.unique().tolist()) == {0, 3}
    assert ((bent[:, 0] > 0.5) == (labels > 0)).float().mean() > 0.98


def test_the_arms():
    assert experiment_module.ARMS == {"U-Net": (True, 1.0), "no joins": (False, 1.0), "rigid": (True, 0.0)}
    assert experiment_module.RATES == (0.002, 0.006, 0.018, 0.054)
    assert experiment_module.WIDTHS == (12, 24, 48)


@pytest.mark.parametrize(("arm", "bent"), [("U-Net", 2), ("no joins", 2), ("rigid", 0)])
def test_what_is_bent_and_what_chooses(part_of_run, monkeypatch, arm, bent):
    known, choose = (Labelled(torch.rand(10, 3, 16, 16), torch.randint(6, (10, 16, 16))) for _ in range(2))
    calls = []

    def watched(images, masks, generator, *, std):
        calls.append(std)
        return deformed(images, masks, generator, std=std)

    monkeypatch.setattr(experiment_module, "deformed", watched)
    monkeypatch.setattr(experiment_module, "iou", lambda network, held_out: 0.75 - 0.5 * (held_out is choose))
    score, learnt = experiment_module.train(
        part_of_run(), arm, experiment_module.ARMS[arm], known, choose, 0.01
    )
    assert score == 0.25
    assert [step for step, _ in learnt.course] == [1, 2]
    assert calls == [1.0] * bent
    assert learnt.network.joins is (arm != "no joins")


def test_what_is_reported_chose_nothing(part_of_run, monkeypatch):
    drawn, stated = {}, []

    def labelled(run, part, count, *, fragments):
        x = torch.zeros(1, 3, 16, 16)
        return drawn.setdefault(part, Labelled(x, torch.zeros(1, 16, 16, dtype=torch.long)))

    def train(run, name, arm, known, choose, rate):
        assert (known, choose) == (drawn["train"], drawn["choose"])
        return 0.25, experiment_module.Learnt(arm, [])

    def iou(network, held_out):
        assert held_out is drawn["judge"]
        return {"U-Net": 0.75, "no joins": 0.5, "rigid": 0.625}[named[network]]

    named = {arm: name for name, arm in experiment_module.ARMS.items()}
    for stub in (labelled, train, iou):
        monkeypatch.setattr(experiment_module, stub.__name__, stub)
    monkeypatch.setattr(experiment_module, "draw", lambda *_: None)
    run = part_of_run()
    monkeypatch.setattr(run, "claim", lambda claim, values, tuned: stated.append(list(values.values())))
    experiment_module.compare(run)
    assert stated == [[0.25, 0.5], [0.125, 0.625]]


def test_the_experiment_runs(run_experiment):
    record = run_experiment(unet)
    claims = {claim["claim"]["name"]: claim for claim in record.claims}
    assert claims["sizes"]["verdict"] == "held"
    iou = {arm: record.values["IoU", arm] for arm in experiment_module.ARMS}
    assert claims["joins"]["values"]["IoU, U-Net - no joins"] == iou["U-Net"] - iou["no joins"]
    assert claims["deformation"]["values"]["IoU, U-Net - rigid"] == iou["U-Net"] - iou["rigid"]


@pytest.mark.parametrize("condition", [{"null": True}, {"broken": "no joins"}, {"broken": "rigid"}])
def test_null_and_breaks_compare_equals(run_experiment, condition):
    record = run_experiment(unet, **condition)
    differences = [v for c in record.claims for name, v in c["values"].items() if " - " in name]
    assert differences == [0.0] * (2 if "null" in condition else 1)


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(unet)] == ["join"]


def test_the_join_in_half_precision(assert_half_precision):
    given = (
        torch.randn(2, 8, 12, 12),
        torch.randn(2, 8, 12, 12),
        torch.randn(8, 16, 3, 3) / 12,
        torch.randn(8),
    )
    assert_half_precision(joined, split, given)
    assert patches(*given).shape == (2, 8, 12, 12)
