"""Anchors compared with loops and torchvision, their targets, losses, proposals, the network, and the
arms.
"""

from __future__ import annotations

import importlib
from collections import Counter
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import faster_rcnn
from readtrack.papers.faster_rcnn import (
    RPN,
    FasterRCNN,
    anchors_at,
    anchors_over,
    match,
    propose,
    rpn_loss,
    sample,
)
from readtrack.papers.faster_rcnn.model import RATIOS, SIDES, Matched
from readtrack.papers.faster_rcnn.ranking import colour_shares, described, object_probability
from readtrack.papers.rcnn import RegionNet, clip, decode, encode, nms
from readtrack.papers.rcnn.task import BRIGHTNESS, random_windows
from readtrack.scores import box_iou

experiment_module = importlib.import_module("readtrack.papers.faster_rcnn.experiment")


def test_anchors_have_their_areas_and_shapes():
    base = anchors_at((10.0, 20.0), (0.5, 2.0))
    sides = base[:, 2:] - base[:, :2]
    assert_close(sides.prod(1), torch.tensor([100.0, 400, 100, 400]))
    assert_close(sides[:, 1] / sides[:, 0], torch.tensor([0.5, 0.5, 2, 2]))
    assert_close(base[:, :2], -base[:, 2:])


def test_anchors_over_maps():
    base = anchors_at((8.0,), (1.0, 2.0))
    expected = [
        base[a] + torch.tensor([4.0 * column, 4.0 * row] * 2)
        for row in range(3)
        for column in range(5)
        for a in range(2)
    ]
    assert_close(anchors_over(base, 3, 5, 4), torch.stack(expected))


def test_anchors_match_torchvisions(torchvision):
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.image_list import ImageList

    sides, ratios = (32.0, 64.0, 128.0), (0.5, 1.0, 2.0)
    theirs = AnchorGenerator((sides,), (ratios,))
    images = ImageList(torch.zeros(1, 3, 48, 80), [(48, 80)])
    # The reference rounds its anchors to pixels before placing them.
    ours = anchors_over(anchors_at(sides, ratios).round(), 3, 5, 16)
    assert_close(ours, theirs(images, [torch.zeros(1, 1, 3, 5)])[0])


def written_match(anchors, boxes, height, width):
    labels, overlap = [], box_iou(anchors, boxes)
    inside = [x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height for x1, y1, x2, y2 in anchors.tolist()]
    highest = overlap[torch.tensor(inside)].amax(0).tolist()
    for row, fits in zip(overlap.tolist(), inside, strict=True):
        best = any(shared > 0 and shared == most for shared, most in zip(row, highest, strict=True))
        label = 1 if best or max(row) >= 0.7 else 0 if max(row) < 0.3 else -1
        labels.append(label if fits else -1)
    return labels


def test_the_targets_of_anchors():
    anchors = anchors_over(anchors_at(SIDES, RATIOS) + 1, 24, 24, 2)
    boxes = torch.tensor(
        [
            [[10.0, 10, 20, 24], [30, 5, 36, 40], [0, 0, 0, 0]],
            [[2, 2, 12, 12], [3, 2, 13, 12], [33, 33, 47, 47]],
        ]
    )
    found = match(anchors, boxes, height=48, width=48)
    for i in range(2):
        assert found.labels[i].tolist() == written_match(anchors, boxes[i], 48, 48)
        place = box_iou(anchors, boxes[i]).argmax(1)
        positive = found.labels[i] == 1
        assert torch.equal(found.boxes[i][positive], boxes[i][place[positive]])
    # The tall thin object overlaps no anchor by 0.7, but still gets one.
    thin = (found.boxes[0] == boxes[0, 1]).all(1) & (found.labels[0] == 1)
    assert thin.any()
    assert box_iou(anchors, boxes[0, 1:2]).max() < 0.7


def test_a_sample_is_half_objects_at_most():
    labels = torch.zeros(3, 200, dtype=torch.long)
    labels[0, :60], labels[1, :5], labels[2, 100:] = 1, 1, -1
    found = sample(labels, 32, torch.Generator().manual_seed(0))
    assert [(row == 1).sum().item() for row in found] == [16, 5, 0]
    assert [(row == 0).sum().item() for row in found] == [16, 27, 32]
    assert ((found == labels) | (found == -1)).all()


def test_the_loss(assert_parity):
    anchors = torch.tensor([[0.0, 0, 10, 10], [5, 5, 15, 25], [20, 20, 30, 30], [2, 2, 9, 12]])
    labels = torch.tensor([[1, 0, -1, 1], [0, 0, 1, -1]])
    boxes = anchors[None] + torch.rand(2, 4, 4)

    def written(scores, codes):
        total = torch.zeros((), dtype=scores.dtype)
        for i in range(2):
            for a, label in enumerate(labels[i].tolist()):
                if label < 0:
                    continue
                probability = 1 / (1 + (-scores[i, a]).exp())
                total = total - (probability if label else 1 - probability).log()
                if label:
                    off = codes[i, a] - encode(boxes[i, a], anchors[a])
                    total = total + F.smooth_l1_loss(off, torch.zeros_like(off), reduction="sum")
        return total / 6

    boxes, anchors = boxes.double(), anchors.double()
    assert_parity(
        lambda scores, codes: rpn_loss(scores, codes, anchors, Matched(labels, boxes)),
        written,
        (torch.randn(2, 4), torch.randn(2, 4, 4)),
    )


def test_proposals():
    anchors = anchors_over(anchors_at(SIDES, RATIOS) + 1, 12, 12, 2)
    scores, codes = torch.randn(2, len(anchors)), 0.2 * torch.randn(2, len(anchors), 4)
    found = propose(scores, codes, anchors, height=24, width=24, before=50, regions=8)
    for i in range(2):
        best = scores[i].argsort(descending=True)[:50]
        boxes = clip(decode(codes[i, best], anchors[best]), 24, 24)
        kept = nms(boxes, scores[i, best], 0.7)
        assert len(kept) >= 8
        assert_close(found[i], boxes[kept[:8]])
    assert not propose(
        scores.requires_grad_(), codes, anchors, height=24, width=24, before=9, regions=3
    ).requires_grad


def test_where_too_few_are_left_suppressed_ones_follow():
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9.5], [10, 10, 20, 20]])
    found = propose(
        torch.tensor([[3.0, 2, 1]]), torch.zeros(1, 3, 4), anchors, height=20, width=20, before=3, regions=3
    )
    assert_close(found[0], anchors[[0, 2, 1]])


def test_the_proposal_network_written_out(assert_parity):
    network = RPN(5, 7, 3).double()
    weights = {name: torch.randn_like(w) for name, w in network.named_parameters()}

    def written(w, x):
        hidden = F.conv2d(F.pad(x, (1,) * 4), w["window.weight"], w["window.bias"]).clamp(min=0)
        scores, codes = [], []
        for row in range(x.shape[2]):
            for column in range(x.shape[3]):
                at = hidden[:, :, row, column]
                for a in range(3):
                    scores.append(at @ w["score.weight"][a, :, 0, 0] + w["score.bias"][a])
                    some = slice(4 * a, 4 * a + 4)
                    codes.append(at @ w["code.weight"][some, :, 0, 0].T + w["code.bias"][some])
        return torch.stack(scores, 1), torch.stack(codes, 1)

    assert_parity(
        lambda w, x: functional_call(network, w, (x,)), written, (torch.randn(2, 5, 3, 4),), weights=weights
    )


def test_the_whole_is_the_sum_of_its_parts():
    network = FasterRCNN(5)
    x = torch.rand(2, 3, 48, 48)
    boxes, scores, codes = network(x, 6)
    assert boxes.shape == (2, 6, 4)
    assert (boxes >= 0).all()
    assert (boxes <= 48).all()
    again = network.detector(x, boxes)
    assert_close((scores, codes), again)
    assert network.anchors(torch.zeros(1, 32, 24, 24)).shape == (24 * 24 * 6, 4)
    assert "base" not in network.state_dict()
    (scores.sum() + codes.sum()).backward()
    assert network.detector.backbone.conv1.weight.grad is not None
    assert network.rpn.window.weight.grad is None


def test_a_cells_anchors_lie_round_its_middle():
    anchors = FasterRCNN(5).anchors(torch.zeros(1, 32, 2, 3))
    middle = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert_close(middle[::6], torch.tensor([[1.0, 1], [3, 1], [5, 1], [1, 3], [3, 3], [5, 3]]))


def test_the_arms():
    assert (SIDES, RATIOS) == ((10.0, 14.0, 18.0), (1.0, 2.0))
    assert (experiment_module.FEW, experiment_module.ANCHORS) == (3, 64)
    assert experiment_module.CODES.std.tolist() == pytest.approx([0.1, 0.1, 0.2, 0.2])
    before = RegionNet(5)
    network = experiment_module.starting_from(before, 0)
    assert torch.equal(network.detector.backbone.conv2.weight, before.backbone.conv2.weight)
    assert network.rpn.window.weight.std().item() == pytest.approx(0.01, rel=0.05)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("READTRACK_HOME", str(tmp_path / "home"))


def test_the_experiment_runs(run_experiment):
    record = run_experiment(faster_rcnn)
    claims = {claim["claim"]["name"]: claim for claim in record.claims}
    assert claims["sizes"]["verdict"] == "held"
    curves = record.curves["recall over regions"]
    assert set(curves) == {"network", "grouping", "at random"}
    at_three = {arm: dict(curves[arm])[3] for arm in curves}
    gap = claims["recall of few proposals"]["values"]["recall with 3 regions, network - grouping"]
    assert gap == pytest.approx(at_three["network"] - at_three["grouping"])
    found = {arm: record.values["mAP with 3 regions", arm] for arm in curves}
    gap = claims["detection from few proposals"]["values"]["mAP with 3 regions, network - grouping"]
    assert gap == pytest.approx(found["network"] - found["grouping"])
    assert record.headline_curve == "recall over regions"


def test_the_source_of_the_compared_regions(comparisons, monkeypatch):
    """Also for the breaks: an untrained proposal network, unranked proposals, and ranked groups."""
    trained, train = [], experiment_module.train

    def watched(run, network, known, rate):
        trained.append((network, deepcopy(network.rpn), known, rate))
        train(run, network, known, rate)

    monkeypatch.setattr(experiment_module, "train", watched)
    recalls, detects = comparisons(faster_rcnn)
    ((network, rpn, known, rate),) = trained
    assert rate == experiment_module.RATE == 0.004
    assert experiment_module.STEPS == 600
    assert recalls.null == "items"
    judge = recalls.arms["grouping"].make
    ours = recalls.arms["network"].make
    assert_close(ours.proposals, experiment_module.proposed(network, judge).proposals)
    breaks = {name: change["network"].make for name, change in recalls.breaks.items()}
    assert set(breaks) == {"unranked proposals", "initial weights", "grouping, ranked without a network"}
    assert not torch.equal(breaks["unranked proposals"].proposals, ours.proposals)
    assert_close(breaks["unranked proposals"].proposals.sort(1).values, ours.proposals.sort(1).values)
    assert detects.read.args[0].network is network.detector
    rival = breaks["grouping, ranked without a network"]
    assert_close(rival.proposals, experiment_module.ranked(known, judge).proposals)
    network.rpn = rpn
    assert_close(breaks["initial weights"].proposals, experiment_module.proposed(network, judge).proposals)


def test_regions_are_spread_over_objects():
    """Three regions on the same object are useless, so suppression is stricter than in the paper."""
    network = FasterRCNN(5)
    for weight in network.rpn.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    boxes = network.proposals(network.detector.backbone(torch.rand(4, 3, 48, 48)), 3)
    overlap = box_iou(boxes[0], boxes[0]) - torch.eye(3)
    assert overlap.max() <= 0.4


def test_regions_in_a_random_order():
    boxes = torch.arange(20.0).view(1, 5, 4)
    data = experiment_module.Detection(
        torch.zeros(1, 3, 48, 48), torch.zeros(1, 1).long(), torch.zeros(1, 1, 4), boxes
    )
    found = experiment_module.shuffled(data, torch.Generator().manual_seed(0)).proposals
    assert not torch.equal(found, boxes)
    assert torch.equal(found.sort(1).values, boxes)


def scenes_with_groups(count):
    """Scenes of two bright colours, and proposals of which the first three are the objects."""
    generator = torch.Generator().manual_seed(count)
    x = 0.4 * torch.rand(count, 3, 48, 48, generator=generator)
    boxes, labels = torch.zeros(count, 3, 4), torch.zeros(count, 3, dtype=torch.long)
    windows = torch.stack([random_windows(8, 48, generator).round() for _ in range(count)])
    for i in range(count):
        for k in range(3):
            left, top = 2 + 16 * k, int(torch.randint(30, (), generator=generator))
            boxes[i, k] = torch.tensor([left, top, left + 8, top + 14])
            x[i, 0, top : top + 7, left : left + 8] = 0.9
            x[i, 1, top + 7 : top + 14, left : left + 8] = 0.9
    return experiment_module.Detection(x - BRIGHTNESS, labels, boxes, torch.cat((boxes, windows), 1))


def test_the_colours_of_a_region():
    data = scenes_with_groups(3)
    found = colour_shares(data)
    for i, boxes in enumerate(data.proposals.long().tolist()):
        for k, (left, top, right, bottom) in enumerate(boxes):
            pixels = (data.x[i, :, top:bottom, left:right] + BRIGHTNESS > 0.5).flatten(1).T.tolist()
            counts = Counter(tuple(pixel) for pixel in pixels)
            background = counts.pop((False, False, False), 0)
            commonest = sorted(counts.values(), reverse=True)[:3]
            expected = [background, *commonest, *[0] * (3 - len(commonest))]
            assert found[i, k].tolist() == pytest.approx([n / len(pixels) for n in expected])
    assert_close(found[:, :3], torch.tensor([0, 0.5, 0.5, 0]).double().expand(3, 3, 4))


def test_the_ranking_is_scikit_learns_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    known, data = scenes_with_groups(12), scenes_with_groups(5)
    x, judge = described(known).flatten(0, 1), described(data).flatten(0, 1)
    mean, std = x.mean(0), x.std(0) + 1e-6
    target = (box_iou(known.proposals.flatten(0, 1), known.boxes.flatten(0, 1)) >= 0.5).unflatten(0, (12, -1))
    target = torch.stack([target[i, :, 3 * i : 3 * i + 3].any(1) for i in range(12)]).flatten()
    theirs = LogisticRegression(max_iter=2000, tol=1e-8).fit(((x - mean) / std).numpy(), target.numpy())
    expected = theirs.predict_proba(((judge - mean) / std).numpy())[:, 1]
    found = object_probability(known, data)
    assert_close(found.flatten(), torch.from_numpy(expected), atol=1e-4, rtol=0)
    assert torch.equal(found, object_probability(known, data))
    best = experiment_module.ranked(known, data).proposals[:, :3]
    assert experiment_module.covered(data._replace(proposals=best)).mean() == 1


def test_overlapping_groups_come_last():
    known, data = scenes_with_groups(12), scenes_with_groups(5)
    doubled = data._replace(proposals=torch.cat((data.proposals, (data.proposals + 1).clamp(max=48)), 1))
    certain = object_probability(known, doubled)
    ranked = experiment_module.ranked(known, doubled).proposals
    for boxes, scores, order in zip(doubled.proposals, certain, ranked, strict=True):
        kept = nms(boxes, scores.float(), 0.4)
        assert_close(order[: len(kept)], boxes[kept])


def test_the_detector_learns_from_regions_of_both_arms(run_experiment, monkeypatch):
    seen, named = [], experiment_module.regions_of

    def watched(known, boxes):
        seen.append((known.proposals, boxes))
        return named(known, boxes)

    monkeypatch.setattr(experiment_module, "regions_of", watched)
    run_experiment(faster_rcnn)
    for groups, boxes in seen:
        assert boxes.shape[1] == 20 + 20 + 3
        assert_close(boxes[:, 20:40], groups)


def test_the_set_up_is_the_stated_one():
    assert digest(experiment_module) == "7f7a2bbafb2c"


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(faster_rcnn)] == ["anchors", "an image with its proposals"]
