"""U-Net written out, its sizes, the border weights pixel by pixel, elastic deformation, and the arms."""

from __future__ import annotations

import importlib
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.datasets.store import DataSets
from readtrack.home import Home
from readtrack.papers import unet
from readtrack.papers.fcn.task import Labelled
from readtrack.papers.unet import UNet, border_weights, deformed
from readtrack.papers.unet.benchmark import joined, patches, split, work
from readtrack.papers.unet.model import WindowNet
from readtrack.runs.run import Run
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop

experiment_module = importlib.import_module("readtrack.papers.unet.experiment")


def convolve(w, name, x, padding):
    """A convolution as a sum over the filter's positions."""
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
    """A transposed convolution of 2 × 2 with stride 2: each position becomes four."""
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


@pytest.mark.parametrize(("padding", "joins", "shape"), [(0, 2, (44, 52)), (1, 2, (8, 12)), (1, 0, (8, 12))])
def test_the_network_written_out(assert_parity, padding, joins, shape):
    network = UNet(channels=2, classes=3, widths=(3, 4, 5), padding=padding, joins=joins)
    network = network.double().eval()
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


def test_the_stated_sizes():
    network, window = (experiment_module.NETWORKS[name].make() for name in ("U-Net", "sliding window"))
    weights = [sum(w.numel() for w in one.parameters()) for one in (network, window)]
    products = [work(network), sum(w.numel() for w in window.parameters() if w.ndim > 1)]
    said = experiment_module.WINDOW.deviations
    assert f"({weights[0]:,} weights)" in said
    assert f"{weights[1]:,} weights, {weights[1] / weights[0]:.2f} times as many" in said
    assert f"{products[1]:,} multiply-adds per pixel, {products[1] / products[0]:.1f} times" in said
    assert f"as the U-Net ({products[0]:,.0f})" in said


def test_without_joins_there_are_more_weights():
    sizes = [
        sum(
            w.numel()
            for w in UNet(
                channels=3, classes=1, widths=experiment_module.WIDTHS, padding=1, joins=j
            ).parameters()
        )
        for j in (None, 0)
    ]
    assert sizes[0] < sizes[1] < 1.2 * sizes[0]


def test_skip_features_do_not_reach_a_network_without_joins():
    for joins in (2, 1, 0):
        network = UNet(channels=1, classes=1, widths=(4, 6, 8), padding=1, joins=joins)
        beside = []
        network.down[0].register_forward_hook(lambda _m, _i, out, kept=beside: kept.append(out))
        network.down[1].register_forward_pre_hook(lambda _m, given: (given[0].detach(),))
        out = network(torch.randn(1, 1, 8, 8))
        (gradient,) = torch.autograd.grad(out.sum(), beside[0], allow_unused=True, materialize_grads=True)
        assert gradient.any().item() is (joins == 2)


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


def test_bending_by_zero_changes_nothing():
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


def test_dropout_is_at_the_end_of_the_contracting_path():
    network = UNet(channels=1, classes=1, widths=(4, 6, 8), padding=1)
    seen = []
    network.dropout.register_forward_hook(lambda _m, given, out: seen.append((given[0], out)))
    network(torch.rand(1, 1, 16, 16))
    ((before, after),) = seen
    assert before.shape == (1, 8, 4, 4)
    assert network.dropout.p == 0.5
    assert not torch.equal(before, after)


@pytest.mark.parametrize(("dilations", "side"), [((1,) * 7, 15), ((1, 2), 7)])
def test_a_pixel_is_labelled_from_its_window(dilations, side):
    network = WindowNet(channels=2, dilations=dilations).eval()
    image = torch.rand(1, 2, 31, 31, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(image)[0, 0, 15, 15], image)
    rows, columns = gradient.abs().sum((0, 1)).nonzero().T
    assert (rows.min(), rows.max()) == (columns.min(), columns.max()) == (15 - side // 2, 15 + side // 2)
    middle = image[..., 15 - side // 2 : 16 + side // 2, 15 - side // 2 : 16 + side // 2]
    assert_close(network(middle)[..., side // 2, side // 2], network(image)[..., 15, 15])


def test_shifts_move_all_pixels_alike():
    images = torch.rand(3, 1, 16, 16)
    masks = torch.zeros(3, 16, 16, dtype=torch.long)
    masks[:, 6:10, 6:10] = 1
    _, shifted = deformed(images, masks, torch.Generator().manual_seed(0), std=1.0, grid=1)
    assert [int(mask.sum()) for mask in shifted] == [16] * 3
    assert not torch.equal(shifted, masks)


def test_rotation_and_scaling():
    turned = experiment_module.turned
    images, masks = torch.rand(3, 2, 16, 16), torch.randint(5, (3, 16, 16))
    same, labels = turned(images, masks, torch.Generator().manual_seed(0), degrees=0.0, share=0.0)
    assert_close(same, images, rtol=1e-4, atol=1e-5)
    assert torch.equal(labels, masks)
    square = torch.zeros(200, 16, 16, dtype=torch.long)
    square[:, 4:12, 4:12] = 1
    bent, labels = turned(square[:, None].float(), square, torch.Generator().manual_seed(0))
    assert ((bent[:, 0] > 0.5) == (labels > 0)).float().mean() > 0.98
    line = torch.arange(16) - 7.5
    middle = (labels * line).sum((1, 2)) / labels.sum((1, 2))
    assert middle.abs().max() < 0.5
    areas = labels.sum((1, 2)) / 64
    assert areas.min() == pytest.approx(0.9**2, abs=0.1)
    assert areas.max() == pytest.approx(1.1**2, abs=0.15)


def settings():
    """The arms and the breaks, by name."""
    breaks = {**experiment_module.OTHER_NETWORKS, **experiment_module.OTHER_IMAGES}
    broken = {one.name: setting for one, setting in breaks.items()}
    return {**experiment_module.NETWORKS, **experiment_module.IMAGES, **broken}


def test_the_arms():
    assert list(experiment_module.NETWORKS) == ["U-Net", "sliding window"]
    assert list(experiment_module.IMAGES) == ["elastic deformation", "no deformation"]
    assert experiment_module.RATES == (0.004, 0.016, 0.064)
    assert (experiment_module.STEPS, experiment_module.MORE_STEPS) == (160, 240)
    assert (experiment_module.PICTURES, experiment_module.SETS) == (30, 4)
    networks = {name: setting.make() for name, setting in settings().items()}
    joined = {name: network.joins for name, network in networks.items() if isinstance(network, UNet)}
    full = (
        "U-Net",
        "elastic deformation",
        "no deformation",
        "deformed once",
        "shifted images",
        "rotated and scaled images",
    )
    assert joined == dict.fromkeys(full, 2) | {"no skip connections": 0, "deepest skip connection only": 1}
    windows = [n for n in networks.values() if isinstance(n, WindowNet)]
    convolutions = [[m for m in n if isinstance(m, torch.nn.Conv2d)][:-1] for n in windows]
    assert [1 + 2 * sum(m.dilation[0] for m in own) for own in convolutions] == [15, 31]
    assert not any(isinstance(m, torch.nn.Dropout) for n in windows for m in n)
    bends = {name: setting.bends for name, setting in settings().items()}
    assert [name for name, bend in bends.items() if bend is None] == ["no deformation", "deformed once"]
    assert bends["shifted images"].keywords == {"std": 2.0, "grid": 1}
    assert bends["rotated and scaled images"] is experiment_module.turned
    assert [name for name, setting in settings().items() if setting.first] == ["deformed once"]


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("elastic deformation", ["step"] * 4),
        ("no deformation", []),
        ("deformed once", ["all"] * 2),
        ("shifted images", ["step"] * 4),
        ("rotated and scaled images", ["step"] * 4),
    ],
)
def test_the_deformed_images(part_of_run, monkeypatch, name, calls):
    setting = settings()[name]
    seen = []

    def watched(bend, images, masks, generator):
        seen.append("step" if len(images) == 10 else "all")
        return bend(images, masks, generator)

    bends, first = (bend and partial(watched, bend) for bend in (setting.bends, setting.first))
    one, other, choose, judge = (
        Labelled(torch.rand(30, 3, 16, 16), torch.randint(6, (30, 16, 16))) for _ in range(4)
    )
    shop = Workshop(part_of_run(), experiment_module.World([one, other], choose, judge))
    at = Trial(shop, Work(arm=name), arm=name)
    monkeypatch.setattr(experiment_module, "iou", lambda network, held_out: 0.75 - 0.5 * (held_out is choose))
    score, learnt = experiment_module.learn(at, setting._replace(bends=bends, first=first), 0.01, steps=2)
    assert score == 0.25
    assert learnt.course == [(1, 0.75), (2, 0.75)]
    assert seen == calls
    assert [network.training for network in learnt.networks] == [False, False]


def test_scores_and_results_are_means_over_the_sets(part_of_run, monkeypatch):
    choose, judge = (Labelled(torch.rand(2, 3, 16, 16), torch.randint(6, (2, 16, 16))) for _ in range(2))
    world = experiment_module.World([choose, choose], choose, judge)
    at = Trial(Workshop(part_of_run(), world), Work(arm="x"), arm="x")

    def train(at, setting, rate, number, course, *, steps):
        return torch.nn.Linear(1 + number, 1)

    def iou(network, held_out):
        return 0.1 * network.in_features + (held_out is judge)

    monkeypatch.setattr(experiment_module, "train", train)
    monkeypatch.setattr(experiment_module, "iou", iou)
    score, learnt = experiment_module.learn(at, settings()["no deformation"], 0.01, steps=5)
    assert score == pytest.approx(0.15)
    assert experiment_module.read_off(at, Sweep(learnt, 0.01, {})) == {"IoU": pytest.approx(1.15)}


def test_iou_is_of_all_pixels_together():
    found = torch.full((2, 3, 16, 16), -1.0)
    truth = torch.zeros(2, 16, 16, dtype=torch.long)
    found[0, :, 0, :2], found[1, :, 0, :2] = 1, 1
    truth[0, 0, 0], truth[1, 0, 1] = 2, 3
    assert experiment_module.iou(torch.nn.Identity(), Labelled(found, truth)) == pytest.approx(2 / 4)


def test_the_experiment_runs(run_experiment):
    record = run_experiment(unet)
    claims = {claim["claim"]["name"]: claim for claim in record.claims}
    assert claims["sizes"]["verdict"] == "held"
    for name, ours, control in (
        ("U-Net against a sliding window", "U-Net", "sliding window"),
        ("IoU with and without deformation", "elastic deformation", "no deformation"),
    ):
        iou = [record.values["IoU", arm] for arm in (ours, control)]
        assert claims[name]["values"][f"IoU, {ours} - {control}"] == iou[0] - iou[1]


def test_deformation_is_measured_on_several_sets_of_thirty(run_experiment, monkeypatch):
    given, compare = {}, Run.compare

    def noted(run, *claims, **asked):
        given[claims[0].name] = asked["world"].sets
        return compare(run, *claims, **asked)

    monkeypatch.setattr(Run, "compare", noted)
    run_experiment(unet)
    sets = given[experiment_module.DEFORMS.name]
    assert [len(known.x) for known in sets] == [30, 30]  # four sets, except in this smoke run
    assert not torch.equal(sets[0].x, sets[1].x)
    (first,) = given[experiment_module.WINDOW.name]
    assert torch.equal(first.x, sets[0].x)


def test_with_data_masks_are_learned(run_experiment, monkeypatch, tmp_path):
    monkeypatch.setenv("READTRACK_HOME", str(tmp_path / "home"))
    for i in range(20):  # columns on the left are bright and to be found
        pixels = torch.zeros(48, 32, dtype=torch.uint8)
        pixels[:, : 2 * (i % 16)] = 200
        for folder in ("images", "masks"):
            (tmp_path / "own" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.numpy()).save(tmp_path / f"own/{folder}/{i}.png")
    DataSets(Home()).add_own("bars", tmp_path / "own", None)
    given, compare = {}, Run.compare

    def noted(run, *claims, **asked):
        given.update(asked)
        return compare(run, *claims, **asked)

    monkeypatch.setattr(Run, "compare", noted)
    record = run_experiment(unet, images="bars")
    assert {arm for name, arm in record.values if name == "IoU"} == {
        *experiment_module.NETWORKS,
        *experiment_module.IMAGES,
    }
    (known,), choose, judge = given["world"]
    for x, y in (known, choose, judge):
        assert x.shape[1:] == (3, 16, 16)
        assert torch.equal((x[:, 1] > 100 / 255 - 0.3).long(), y)


def test_the_set_up_is_the_stated_one():
    assert digest(experiment_module) == "605d836e330b"


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(unet)] == ["join", "images"]


def test_the_join_in_half_precision(assert_half_precision):
    given = (
        torch.randn(2, 8, 12, 12),
        torch.randn(2, 8, 12, 12),
        torch.randn(8, 16, 3, 3) / 12,
        torch.randn(8),
    )
    assert_half_precision(joined, split, given)
    assert patches(*given).shape == (2, 8, 12, 12)
