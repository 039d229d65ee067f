"""RoI pooling compared with loops and torchvision, the detector written out, its loss, SVD, and the arms."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import fast_rcnn
from readtrack.papers.fast_rcnn import FastRCNN, detection_loss, roi_pool, smooth_l1, truncated
from readtrack.papers.rcnn import RegionNet
from readtrack.papers.rcnn.experiment import Described, Parts
from readtrack.papers.rcnn.experiment import Learnt as Slow
from readtrack.papers.rcnn.task import Detection, Found
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop

experiment_module = importlib.import_module("readtrack.papers.fast_rcnn.experiment")

BOXES = torch.tensor(
    [
        [0.0, 0, 30, 20],
        [3, 5, 11, 19],
        [4, 4, 5, 5],  # smaller than a cell
        [10.9, 3.1, 29.2, 17.7],
        [-6, -9, 14, 13],  # partly outside
        [25, 15, 60, 50],
        [90, 90, 99, 99],  # outside
        [3, 5, 11, 19],  # the second box again, in the other image
    ]
)
IMAGE = torch.tensor([0, 0, 1, 1, 0, 1, 0, 1])


def rounded(x: float) -> int:
    """Rounds half away from zero."""
    return int(math.copysign(math.floor(abs(x) + 0.5), x))


def by_loops(maps, boxes, image, size, scale):
    """RoI pooling as in section 2.1, cell by cell and differentiable."""
    rows, columns = maps.shape[2:]
    pooled = []
    for box, i in zip(boxes.tolist(), image.tolist(), strict=True):
        x1, y1, x2, y2 = (rounded(side * scale) for side in box)
        high, wide = max(y2 - y1 + 1, 1) / size, max(x2 - x1 + 1, 1) / size
        cells = []
        for cell in range(size * size):
            row, column = divmod(cell, size)
            top, bottom = y1 + math.floor(row * high), y1 + math.ceil((row + 1) * high)
            left, right = x1 + math.floor(column * wide), x1 + math.ceil((column + 1) * wide)
            window = maps[
                i, :, max(top, 0) : max(min(bottom, rows), 0), max(left, 0) : max(min(right, columns), 0)
            ]
            cells.append(window.flatten(1).max(1).values if window.numel() else maps.new_zeros(maps.shape[1]))
        pooled.append(torch.stack(cells, 1).view(-1, size, size))
    return torch.stack(pooled)


@pytest.mark.parametrize(("size", "scale"), [(1, 0.5), (3, 0.5), (4, 0.25), (2, 1.0)])
def test_pooling(assert_parity, size, scale):
    maps = torch.randn(2, 3, 11, 16)
    assert_parity(
        lambda x: roi_pool(x, BOXES.to(x), IMAGE, size=size, scale=scale),
        lambda x: by_loops(x, BOXES, IMAGE, size, scale),
        (maps,),
    )


def test_of_equal_values_the_first_gets_the_gradient(assert_parity):
    maps = torch.randn(2, 3, 11, 16).relu()
    assert_parity(
        lambda x: roi_pool(x, BOXES.to(x), IMAGE, size=3, scale=0.5),
        lambda x: by_loops(x, BOXES, IMAGE, 3, 0.5),
        (maps,),
    )


@pytest.mark.parametrize(("size", "scale"), [(3, 0.5), (4, 0.25), (7, 1.0)])
def test_pooling_matches_torchvisions(torchvision, assert_parity, size, scale):
    corner = 25 * torch.rand(40, 2)
    boxes = torch.cat((BOXES, torch.cat((corner, corner + 20 * torch.rand(40, 2)), 1)))
    image = torch.cat((IMAGE, torch.randint(2, (40,))))
    for maps in (torch.randn(2, 3, 11, 16), torch.randn(2, 3, 11, 16).relu()):
        assert_parity(
            lambda x: roi_pool(x, boxes.to(x), image, size=size, scale=scale),
            lambda x: torchvision.ops.roi_pool(
                x, torch.cat((image[:, None].to(x), boxes.to(x)), 1), size, scale
            ),
            (maps,),
        )


def test_pooling_in_half_precision(assert_half_precision):
    maps = torch.randn(2, 8, 24, 24)
    assert_half_precision(
        lambda x: roi_pool(x, BOXES, IMAGE, size=4, scale=0.5),
        lambda x: by_loops(x, BOXES, IMAGE, 4, 0.5),
        (maps,),
    )


def test_no_region():
    assert (
        roi_pool(torch.randn(1, 3, 5, 5), torch.zeros(0, 4), torch.zeros(0).long(), size=2, scale=1.0).shape[
            0
        ]
        == 0
    )


def test_the_detector_written_out(assert_parity):
    network = FastRCNN(5).double()
    corner = 12 * torch.rand(2, 3, 2)
    boxes = torch.cat((corner, corner + 8), -1).double()

    def written(w, x):
        x = F.conv2d(x, w["backbone.conv1.weight"], w["backbone.conv1.bias"], padding=2).clamp(min=0)
        x = x.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))
        for name in ("conv2", "conv3"):
            x = F.conv2d(x, w[f"backbone.{name}.weight"], w[f"backbone.{name}.bias"], padding=1).clamp(min=0)
        pooled = by_loops(x, boxes.flatten(0, 1), torch.tensor([0, 0, 0, 1, 1, 1]), 4, 0.5).flatten(1)
        hidden = (pooled @ w["head.hidden.weight"].T + w["head.hidden.bias"]).clamp(min=0)
        scores = hidden @ w["head.scores.weight"].T + w["head.scores.bias"]
        codes = hidden @ w["codes.weight"].T + w["codes.bias"]
        return scores.view(2, 3, 6), codes.view(2, 3, 5, 4)

    assert_parity(
        lambda w, x: functional_call(network, w, (x, boxes)),
        written,
        (torch.randn(2, 3, 22, 26),),
        weights=dict(network.named_parameters()),
    )


def test_one_cell_knows_no_places():
    network = FastRCNN(5, cells=1).eval()
    assert {name: w.shape for name, w in network.named_parameters()} == {
        name: w.shape for name, w in FastRCNN(5).named_parameters()
    }
    maps = torch.rand(1, 32, 6, 6)
    box = torch.tensor([[[0.0, 0, 10, 10]]])
    assert_close(network.regions(maps, box)[0], network.regions(maps.flip(2), box)[0])
    assert (FastRCNN(5).regions(maps, box)[0] != FastRCNN(5).regions(maps.flip(2), box)[0]).any()


def test_boxes_begin_as_they_were_proposed():
    torch.manual_seed(1)
    network = FastRCNN(5)
    _, codes = network(torch.rand(1, 3, 48, 48), torch.tensor([[[10.0, 10, 30, 30]]]))
    assert codes.abs().max() < 0.05
    assert 0.0008 < network.codes.weight.std() < 0.0012


def test_the_loss(assert_parity):
    labels = torch.tensor([2, 5, 0, 4, 5, 5])
    targets = 2 * torch.randn(6, 4, dtype=torch.float64)

    def written(scores, codes):
        total = torch.zeros((), dtype=scores.dtype)
        for row, label in enumerate(labels.tolist()):
            total = total + scores[row].exp().sum().log() - scores[row, label]
            if label < 5:
                for off in codes[row, label] - targets[row]:
                    total = total + (off * off / 2 if off.abs() < 1 else off.abs() - 0.5)
        return total / 6

    assert_parity(
        lambda scores, codes: detection_loss(scores, codes, labels, targets),
        written,
        (torch.randn(6, 6), torch.randn(6, 5, 4)),
    )
    assert_parity(
        smooth_l1,
        lambda x: F.smooth_l1_loss(x, torch.zeros_like(x), reduction="none"),
        (3 * torch.randn(50),),
    )
    background = torch.full((6,), 5)
    alone = detection_loss(torch.zeros(6, 6), torch.randn(6, 5, 4), background, torch.randn(6, 4))
    assert_close(alone.item(), math.log(6))


def test_svd():
    layer = nn.Linear(7, 5).double()
    x = torch.randn(3, 7, dtype=torch.float64)
    assert_close(truncated(layer, 5)(x), layer(x))
    two = truncated(layer, 2)
    assert [tuple(part.weight.shape) for part in two] == [(2, 7), (5, 2)]
    left = (layer.weight - two[1].weight @ two[0].weight).norm()
    assert_close(left, torch.linalg.svdvals(layer.weight)[2:].norm())


def test_regions_of_a_step():
    labels = torch.full((4, 20), 5)
    labels[0, :2], labels[1, 7] = 3, 0
    rows = experiment_module.picked(labels, torch.Generator().manual_seed(0))
    assert rows.shape == (4, 16)
    own = labels.gather(1, rows)
    assert (own[0] < 5).sum() == (own[1] < 5).sum() == 4
    assert (own[2:] == 5).all()


def test_training_starts_from_the_other_task():
    before = RegionNet(5)
    network = experiment_module.starting_from(before, cells=4)
    assert torch.equal(network.backbone.conv1.weight, before.backbone.conv1.weight)
    assert torch.equal(network.head.hidden.weight, before.head.hidden.weight)
    assert network.head.scores.out_features == 6


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("READTRACK_HOME", str(tmp_path / "home"))


def test_the_experiment_runs(run_experiment, comparisons):
    record = run_experiment(fast_rcnn)
    (compared,) = comparisons(fast_rcnn)
    makes = {name: change["Fast R-CNN"].make for name, change in compared.breaks.items()}
    assert makes.pop("half of the regions") is experiment_module.with_half_of_the_regions
    assert {name: (make.func, make.keywords) for name, make in makes.items()} == {
        "one-cell RoI pooling": (experiment_module.fast_r_cnn, {"cells": 1}),
        "frozen": (experiment_module.fast_r_cnn, {"still": ("backbone",)}),
        "only output layers trained": (experiment_module.fast_r_cnn, {"still": ("backbone", "head.hidden")}),
        "frozen, twice the steps": (experiment_module.fast_r_cnn, {"still": ("backbone",), "times": 2}),
    }
    claims = {claim["claim"]["name"]: claim for claim in record.claims}
    assert claims["truncated SVD of fc6"]["verdict"] == "held"
    ap = {arm: record.values["mAP", arm] for arm in ("Fast R-CNN", "R-CNN", "frozen")}
    values = {n: v for c in record.claims for n, v in c["values"].items()}
    assert values["mAP, Fast R-CNN - R-CNN"] == pytest.approx(ap["Fast R-CNN"] - ap["R-CNN"])
    assert values["mAP, Fast R-CNN - frozen"] == pytest.approx(ap["Fast R-CNN"] - ap["frozen"])
    assert 1.9 < values["multiply-adds, R-CNN / Fast R-CNN"] < 2.5
    assert record.headline_curve == experiment_module.BY_WORK
    fast, slow = (record.curves[experiment_module.BY_WORK][arm] for arm in ("Fast R-CNN", "R-CNN"))
    assert len(fast) == len(slow) == 4
    assert slow[-1][0] / slow[0][0] == pytest.approx(20 / 3)
    assert fast[-1][0] / fast[0][0] < 1.5  # the convolutions are shared


@pytest.mark.parametrize(
    ("still", "frozen"), [((), ()), (("backbone",), ("backbone",)), (("backbone", "head.hidden"),) * 2]
)
def test_the_trained_parameters(part_of_run, monkeypatch, still, frozen):
    seen = []

    def watched(at, network, known, rate, times):
        seen.append((network, times))
        return experiment_module.Scale(torch.zeros(4), torch.ones(4))

    monkeypatch.setattr(experiment_module, "train", watched)
    monkeypatch.setattr(experiment_module, "mean_ap", lambda found, truth: 0.5)
    monkeypatch.setattr(experiment_module.Learnt, "find", lambda learnt, data: None)
    parts = Parts(None, None, None, None, RegionNet(5))
    at = Trial(Workshop(part_of_run(), parts), Work(arm="frozen"), arm="frozen")
    _, (learnt, regions, _) = experiment_module.fast_r_cnn(at, 0.004, cells=1, still=still, times=2)
    assert seen == [(learnt.network, 2)]
    assert learnt.network.cells == 1
    assert regions == 20
    for name, weight in learnt.network.named_parameters():
        assert weight.requires_grad is not name.startswith(frozen)


def test_ten_regions_need_half_the_work_of_twenty():
    one = Detection(torch.rand(1, 3, 48, 48), *[None] * 2, torch.tensor([[[4.0, 4, 20, 24]] * 20]))
    slow = Slow(Described(None, None, None, RegionNet(6)), None, None)
    fast = experiment_module.Learnt(experiment_module.starting_from(RegionNet(5), cells=4), None)
    ten, twenty = (experiment_module.multiply_adds(slow, one, count) for count in (10, 20))
    assert 2 * ten == twenty
    ten, twenty = (experiment_module.multiply_adds(fast, one, count) for count in (10, 20))
    assert twenty < 1.5 * ten


@pytest.mark.parametrize(
    ("arm", "regions", "counts"),
    [("with_half_of_the_regions", 10, [3, 6, 10]), ("r_cnn", 20, [3, 6, 12, 20])],
)
def test_detectors_are_measured_with_all_their_regions(part_of_run, monkeypatch, arm, regions, counts):
    seen, asked = [], []

    class Finds:
        def find(self, data):
            seen.append(data.proposals)
            return Found(torch.zeros(2, 5, 20, 4), torch.zeros(2, 5, 20))

    corners = torch.arange(20.0)[:, None].expand(-1, 2)
    boxes = torch.cat((corners, corners + 6), 1).expand(2, -1, -1)
    judge = Detection(torch.zeros(2, 3, 48, 48), torch.zeros(2, 1).long(), torch.zeros(2, 1, 4), boxes)
    monkeypatch.setattr(
        experiment_module, "mean_ap", lambda found, _: asked.append(found.boxes.shape[2]) or len(asked) / 8
    )
    monkeypatch.setattr(experiment_module, "multiply_adds", lambda learnt, image, count: count)
    at = Trial(Workshop(part_of_run(), Parts(None, judge, judge, None, None)), Work(arm="R-CNN"), arm="R-CNN")
    monkeypatch.setattr(experiment_module, "taught", lambda at: None)
    monkeypatch.setattr(experiment_module, "detector", lambda *_: (0.5, Finds()))
    score, outcome = getattr(experiment_module, arm)(at, 0.004)
    # R-CNN keeps its detector's score. With half of the regions, the mAP is measured again.
    assert (score, asked) == ((1 / 8, [10]) if regions == 10 else (0.5, []))
    asked.clear()
    sweep = Sweep(outcome, 0.004, {})
    assert experiment_module.measure(at, sweep) == {"mAP": len(counts) / 8, "multiply-adds": regions}
    assert asked == counts
    # Neighbours overlap by 25 / 47, boxes two pixels apart by 16 / 56.
    expected = [*range(0, 20, 2), *range(1, 20, 2)] if regions == 10 else list(range(20))
    assert all(each[0, :, 0].tolist() == expected for each in seen)


def test_the_set_up_is_the_stated_one():
    assert digest(experiment_module) == "20264b1ae617"


def test_every_variant_is_right(check_benchmark):
    names = [case.name for case in check_benchmark(fast_rcnn)]
    assert names == ["RoI pooling", "an image", "a dense layer of that rank"]
