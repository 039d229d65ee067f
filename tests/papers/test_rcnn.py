"""Boxes, suppression and warping compared with loops and torchvision, histograms, SVMs, ridge regression,
and the arms.
"""

from __future__ import annotations

import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import rcnn
from readtrack.papers.rcnn import RegionNet, clip, decode, encode, hog, linear_svms, nms, ridge, warp
from readtrack.papers.rcnn.benchmark import pair_by_pair, scattered
from readtrack.papers.rcnn.boxes import overlaps, unsuppressed
from readtrack.papers.rcnn.task import Detection, Found, framed, grouped, mean_ap, moved, recall
from readtrack.plugin import Run
from readtrack.runs.trial import Trial, Work, Workshop
from readtrack.scores import box_iou

experiment_module = importlib.import_module("readtrack.papers.rcnn.experiment")


def some_boxes(*count: int) -> torch.Tensor:
    corner = 30 * torch.rand(*count, 2)
    return torch.cat((corner, corner + 3 + 20 * torch.rand(*count, 2)), -1)


def written_codes(targets, boxes):
    """The codes of appendix C, computed one box at a time."""
    rows = []
    for (gx1, gy1, gx2, gy2), (x1, y1, x2, y2) in zip(targets, boxes, strict=True):
        width, height = x2 - x1, y2 - y1
        shifts = ((gx1 + gx2 - x1 - x2) / 2 / width, (gy1 + gy2 - y1 - y2) / 2 / height)
        rows.append(torch.stack((*shifts, ((gx2 - gx1) / width).log(), ((gy2 - gy1) / height).log())))
    return torch.stack(rows)


def test_codes(assert_parity):
    assert_parity(encode, written_codes, (some_boxes(7), some_boxes(7)))


def test_decoding_is_the_inverse():
    targets, boxes = some_boxes(2, 5).double(), some_boxes(2, 5).double()
    assert_close(decode(encode(targets, boxes), boxes), targets)
    huge = torch.tensor([[0.0, 0, 1000, 1000]])
    assert decode(huge, some_boxes(1)).isfinite().all()


def test_codes_match_torchvisions(torchvision, assert_parity):
    from torchvision.models.detection._utils import BoxCoder

    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    assert_parity(encode, coder.encode_single, (some_boxes(9), some_boxes(9)))
    assert_parity(
        decode, lambda codes, boxes: coder.decode_single(codes, boxes), (torch.randn(9, 4), some_boxes(9))
    )
    codes = torch.full((2, 4), 9.0)
    assert_close(decode(codes, some_boxes(2)[:1].expand(2, 4)).isfinite().all(), torch.tensor(True))


def test_codes_in_half_precision(assert_half_precision):
    codes, boxes = 0.3 * torch.randn(900, 4), some_boxes(900)
    assert_half_precision(
        decode,
        lambda c, b: torch.cat(
            [
                (b[:, :2] + b[:, 2:]) / 2
                + c[:, :2] * (b[:, 2:] - b[:, :2])
                + s * (b[:, 2:] - b[:, :2]) * c[:, 2:].exp()
                for s in (-0.5, 0.5)
            ],
            1,
        ),
        (codes, boxes),
    )


def test_overlaps_and_clipping():
    a, b = some_boxes(2, 6), some_boxes(2, 4)
    assert_close(overlaps(a, b), torch.stack([box_iou(x, y) for x, y in zip(a, b, strict=True)]))
    assert overlaps(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0
    assert clip(torch.tensor([[-3.0, 4, 50, 60]]), 20, 30).tolist() == [[0, 4, 30, 20]]


@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_suppression_is_greedy(count):
    boxes, scores = scattered(torch.Generator().manual_seed(count), 3, count, 100)
    found = unsuppressed(boxes, scores, 0.3)
    assert torch.equal(found, pair_by_pair(boxes, scores))
    for mine, ranks, stays in zip(boxes, scores, found, strict=True):
        kept = nms(mine, ranks, 0.3)
        assert sorted(kept.tolist()) == stays.nonzero().flatten().tolist()
        assert (ranks[kept].diff() <= 0).all()


def test_of_equal_scores_the_first_stays():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10]])
    assert nms(boxes, torch.tensor([0.5, 0.5, 0.9]), 0.5).tolist() == [2, 0]
    # An overlap of exactly the threshold does not suppress.
    pair = torch.tensor([[0.0, 0, 2, 1], [1, 0, 3, 1]])
    assert len(nms(pair, torch.tensor([0.9, 0.8]), 1 / 3 + 1e-6)) == 2


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_suppression_matches_torchvisions(torchvision, threshold):
    boxes, scores = scattered(torch.Generator().manual_seed(1), 4, 60, 100)
    scores = (10 * scores).round() / 10  # ties
    for mine, ranks in zip(boxes, scores, strict=True):
        assert torch.equal(nms(mine, ranks, threshold), torchvision.ops.nms(mine, ranks, threshold))


def sampled(images, boxes, image, side=16, context=1):
    """Warps with `grid_sample`, one region at a time."""
    crops = []
    height, width = images.shape[2:]
    line = ((2 * torch.arange(side).to(images) + 1) / side - 1) * side / (side - 2 * context)
    for (x1, y1, x2, y2), i in zip(boxes, image, strict=True):
        x = (x1 + x2) / 2 + line * (x2 - x1) / 2
        y = (y1 + y2) / 2 + line * (y2 - y1) / 2
        grid = torch.stack(
            ((2 * x / width - 1).expand(side, -1), (2 * y / height - 1)[:, None].expand(-1, side)), -1
        )
        crops.append(F.grid_sample(images[i : i + 1], grid[None], padding_mode="border", align_corners=False))
    return torch.cat(crops)


def test_warping(assert_parity):
    boxes = torch.cat((some_boxes(5), torch.tensor([[0.0, 0, 12, 9], [20, 3, 37, 25]])))
    image = torch.tensor([0, 1, 1, 0, 1, 0, 0])
    images = torch.randn(2, 3, 25, 37)
    assert_parity(lambda x: warp(x, boxes.to(x), image), lambda x: sampled(x, boxes.to(x), image), (images,))
    larger = warp(images, boxes, image, side=12, context=2)
    assert_close(larger, sampled(images, boxes, image, 12, 2), atol=1e-4, rtol=1e-4)


def test_a_region_without_context_is_the_image_itself():
    image = torch.randn(1, 3, 16, 16)
    whole = torch.tensor([[0.0, 0, 16, 16]])
    assert_close(warp(image, whole, torch.tensor([0]), context=0), image)


def written_hog(crop, cell=4, bins=9):
    """Histograms of oriented gradients, computed pixel by pixel."""
    side = crop.shape[-1]
    cells = torch.zeros(bins, side // cell, side // cell, dtype=crop.dtype)
    for y in range(side):
        for x in range(side):
            best = (-1.0, 0.0, 0.0)
            for channel in crop:
                dx = channel[y, min(x + 1, side - 1)] - channel[y, max(x - 1, 0)]
                dy = channel[min(y + 1, side - 1), x] - channel[max(y - 1, 0), x]
                best = max(best, (float(dx * dx + dy * dy), float(dx), float(dy)))
            place = math.atan2(best[2], best[1]) % math.pi * bins / math.pi - 0.5
            low = math.floor(place)
            for one, share in ((low, 1 - (place - low)), (low + 1, place - low)):
                cells[one % bins, y // cell, x // cell] += share * math.sqrt(best[0] + 1e-12)
    blocks = []
    for row in range(side // cell - 1):
        for column in range(side // cell - 1):
            block = cells[:, row : row + 2, column : column + 2].flatten()
            for _ in range(2):
                block = (block / (block.square().sum() + 1e-4).sqrt()).clamp(max=0.2)
            blocks.append(block / (block.square().sum() + 1e-4).sqrt())
    return torch.cat(blocks)


def test_histograms():
    crops = torch.rand(2, 3, 12, 12, dtype=torch.float64)
    assert_close(hog(crops), torch.stack([written_hog(crop) for crop in crops]))
    assert hog(torch.rand(1, 3, 24, 24)).shape == (1, 900)


def test_the_network_written_out(assert_parity):
    network = RegionNet(6).double()

    def written(w, x):
        x = F.conv2d(F.pad(x, (2,) * 4), w["backbone.conv1.weight"], w["backbone.conv1.bias"]).clamp(min=0)
        x = x.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))
        for name in ("conv2", "conv3"):
            x = F.conv2d(F.pad(x, (1,) * 4), w[f"backbone.{name}.weight"], w[f"backbone.{name}.bias"]).clamp(
                min=0
            )
        x = x.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2)).flatten(1)
        x = (x @ w["head.hidden.weight"].T + w["head.hidden.bias"]).clamp(min=0)
        return x @ w["head.scores.weight"].T + w["head.scores.bias"]

    assert_parity(
        lambda w, x: functional_call(network, w, (x,)),
        written,
        (torch.randn(2, 3, 16, 16),),
        weights=dict(network.named_parameters()),
    )


def test_svms_match_scikit_learns():
    svm = pytest.importorskip("sklearn.svm")
    x = torch.randn(80, 5, dtype=torch.float64)
    label = (x[:, 0] + 0.5 * torch.randn(80) > 0).long()
    y = torch.stack((2 * label - 1, 1 - 2 * label), 1)
    y[:10, 1] = 0
    ours = linear_svms(x, y, C=0.7, iterations=300)
    for k, rows in enumerate((slice(0, 80), slice(10, 80))):
        # Its bias is regularised like any other weight, unless its input is large.
        theirs = svm.LinearSVC(C=0.7, loss="squared_hinge", intercept_scaling=100, tol=1e-6, max_iter=20_000)
        theirs.fit(x[rows].numpy(), y[rows, k].numpy())
        assert_close(ours.weight[k], torch.from_numpy(theirs.coef_[0]), rtol=1e-3, atol=1e-3)
        assert_close(ours.bias[k].item(), theirs.intercept_.item(), rtol=1e-2, atol=1e-3)


def test_ridge_solves_its_equations():
    x, y = torch.randn(30, 4, dtype=torch.float64), torch.randn(30, 2, dtype=torch.float64)
    fit = ridge(x, y, penalty=3.0)
    left = y - fit(x)
    assert_close(left.sum(0), torch.zeros(2, dtype=torch.float64))
    assert_close(x.T @ left, 3 * fit.weight.T)


def two_scenes() -> Detection:
    labels = torch.tensor([[2, -1], [0, 4]])
    boxes = torch.tensor([[[5.0, 5, 15, 20], [0, 0, 0, 0]], [[5, 5, 15, 15], [25, 25, 40, 40]]])
    proposals = torch.stack((boxes[:, 0], torch.tensor([[30.0, 5, 40, 15], [25, 25, 40, 40]])), 1)
    return Detection(torch.zeros(2, 3, 48, 48), labels, boxes, proposals)


def test_names_and_scores_of_scenes():
    data = two_scenes()
    labels, overlap, boxes = data.named(data.proposals)
    assert labels[0, 0] == 2
    assert labels[1].tolist() == [0, 4]
    assert overlap.tolist() == [[1, 0], [1, 1]]
    assert torch.equal(boxes[1], data.boxes[1])
    assert recall(data.proposals, data) == 1
    assert recall(data.proposals[:, :1], data) == pytest.approx(2 / 3)
    scores = torch.full((2, 5, 2), -1.0)
    scores[0, 2, 0] = scores[1, 0, 0] = scores[1, 4, 1] = 1
    found = Found(data.proposals[:, None].expand(-1, 5, -1, -1), scores)
    assert mean_ap(found, data) == pytest.approx(1)
    assert mean_ap(found._replace(scores=-scores), data) < 0.6
    assert torch.equal(moved(data.proposals, torch.zeros(2, 2, 5, 4)), found.boxes)


def test_svm_targets():
    targets = experiment_module.svm_targets(two_scenes())
    assert targets.shape == (4, 5)
    assert targets[0].tolist() == [-1, -1, 1, -1, -1]
    assert targets[1].tolist() == [-1] * 5
    assert targets[3].tolist() == [-1, -1, -1, -1, 1]


def test_a_bright_digit_of_two_colours_is_proposed():
    image = torch.full((3, 48, 48), 0.1)
    image[:, 10:16, 20:30] = torch.tensor([0.9, 0.1, 0.1])[:, None, None]
    image[:, 16:24, 20:30] = torch.tensor([0.1, 0.9, 0.1])[:, None, None]
    boxes = grouped(image, torch.Generator().manual_seed(0))
    assert boxes.shape == (20, 4)
    assert boxes[0].tolist() == [20, 10, 30, 24]
    assert [20, 10, 30, 16] in boxes.tolist()
    assert [20, 16, 30, 24] in boxes.tolist()
    assert (boxes >= 0).all()
    assert (boxes <= 48).all()


def test_frames():
    picture = framed(torch.zeros(3, 8, 8), torch.tensor([[1.0, 1, 3, 3]]), (1.0, 0.5, 0.0))
    assert picture.shape == (3, 32, 32)
    assert picture[:, 4, 6].tolist() == [1, 0.5, 0]
    assert picture[:, 6, 6].tolist() == [0, 0, 0]


def test_fine_tuning_starts_from_the_other_task():
    before = RegionNet(5)
    after = experiment_module.starting_from(before)
    assert torch.equal(after.head.hidden.weight, before.head.hidden.weight)
    assert torch.equal(after.backbone.conv3.weight, before.backbone.conv3.weight)
    assert after.head.scores.out_features == 6
    crop = torch.randn(2, 3, 16, 16)
    assert after.pooled(crop).shape == (2, 32, 4, 4)


def test_histograms_and_the_network_see_the_same_pixels():
    data = two_scenes()._replace(x=torch.rand(2, 3, 48, 48))
    assert_close(experiment_module.gradients(data), hog(experiment_module.crops(data)))
    seen = []
    network = RegionNet(5)
    network.backbone.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    experiment_module.hidden(network, data)
    assert_close(torch.cat(seen), experiment_module.crops(data))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("READTRACK_HOME", str(tmp_path / "home"))


def test_the_experiment_runs(run_experiment, comparisons):
    record = run_experiment(rcnn)
    (compared,) = comparisons(rcnn)
    stages = {name: change["R-CNN"].before for name, change in compared.breaks.items() if "R-CNN" in change}
    assert stages == {
        "random network": experiment_module.of_a_random_network,
        "HOG of enlarged regions, and colours": experiment_module.of_gradients_and_colours,
        "hidden layer frozen": experiment_module.with_hidden_layer_as_it_was,
        "from scratch": experiment_module.from_scratch,
    }
    claims = {claim["claim"]["name"]: claim for claim in record.claims}
    assert claims["sizes"]["verdict"] == "held"
    ap = {arm: record.values["mAP", arm] for arm in ("R-CNN", "HOG", "pretrained")}
    gap = claims["mAP with and without fine-tuning"]["values"]["mAP, R-CNN - pretrained"]
    assert gap == pytest.approx(ap["R-CNN"] - ap["pretrained"])
    assert record.headline_curve == experiment_module.PRECISION
    assert set(record.curves[experiment_module.PRECISION]) == {"R-CNN", "HOG", "pretrained"}


def a_trial(run: Run, before: RegionNet) -> Trial:
    data = two_scenes()._replace(x=torch.rand(2, 3, 48, 48))
    parts = experiment_module.Parts(data, data, data, experiment_module.svm_targets(data), before)
    return Trial(Workshop(run, parts), Work(arm="R-CNN"), arm="R-CNN")


def test_r_cnn_has_the_best_c_at_the_best_rate(part_of_run, monkeypatch):
    run, tried = part_of_run(), []
    monkeypatch.setattr(run, "pick", lambda *, smoke, quick, full: quick)
    monkeypatch.setattr(
        experiment_module, "fine_tune", lambda at, net, known, rate, steps: tried.append(rate)
    )

    def classify(parts, described, c):
        tried.append(c)
        return -abs(c - 1), experiment_module.Learnt(described, torch.ones(()), None)

    monkeypatch.setattr(experiment_module, "classify", classify)
    found = experiment_module.fine_tuned(a_trial(run, RegionNet(5)))
    assert tried == [value for rate in experiment_module.RATES for value in (rate, *experiment_module.CS)]
    assert found.network.head.scores.out_features == 6


@pytest.mark.parametrize(
    ("stage", "kept", "learns"),
    [
        ("fine_tuned", True, True),
        ("with_hidden_layer_as_it_was", True, False),
        ("from_scratch", False, True),
    ],
)
def test_the_fine_tuned_layers(part_of_run, monkeypatch, stage, kept, learns):
    torch.manual_seed(3)  # different weights from those of a new network
    before, seen = RegionNet(5), []
    monkeypatch.setattr(experiment_module, "fine_tune", lambda at, net, *_: seen.append(net))
    getattr(experiment_module, stage)(a_trial(part_of_run(), before))
    (network,) = seen
    assert torch.equal(network.backbone.conv2.weight, before.backbone.conv2.weight) is kept
    assert torch.equal(network.head.hidden.weight, before.head.hidden.weight) is kept
    assert network.head.hidden.weight.requires_grad is learns
    assert network.backbone.conv1.weight.requires_grad


def test_features_without_a_network(part_of_run):
    at = a_trial(part_of_run(), RegionNet(5))
    both, one = experiment_module.of_gradients_and_colours(at), experiment_module.of_gradients(at)
    crops = experiment_module.crops(at.world.known)
    assert_close(one.known, hog(crops))
    assert_close(both.known[:, :-48], hog(F.interpolate(crops, size=(32, 32), mode="bilinear")))
    colours = both.known[:, -48:].unflatten(1, (3, 4, 4))
    assert_close(colours[:, :, 0, 1], crops[:, :, :4, 4:8].mean((2, 3)))
    assert torch.equal(both.features(at.world.judge), both.known)  # the three parts are equal here
    other = experiment_module.of_the_other_task(at)
    assert_close(other.known, experiment_module.hidden(at.world.before, at.world.known).detach())


def test_the_set_up_is_the_stated_one():
    assert digest(experiment_module) == "854a7d976ab9"


def test_every_variant_is_right(check_benchmark):
    names = [case.name for case in check_benchmark(rcnn)]
    assert names == ["non-maximum suppression", "regions through the network"]
