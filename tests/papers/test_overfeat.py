"""The sliding network compared with its windows one by one, greedy merging step by step, sizes, and the
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
from readtrack.papers import overfeat
from readtrack.papers.overfeat import ACCURATE, FAST, OverFeat, accumulate, at_each_offset
from readtrack.papers.overfeat.model import Layer, in_pixels, iou_of_pairs
from readtrack.papers.overfeat.task import Pictures, locate, readable, resized, windows
from readtrack.plugin import Sweep, Trial
from readtrack.runs.trial import Work, Workshop
from readtrack.scores import box_iou

experiment_module = importlib.import_module("readtrack.papers.overfeat.experiment")
task_module = importlib.import_module("readtrack.papers.overfeat.task")


def tiny(pool: int) -> OverFeat:
    """A small network of the paper's kind: with a stride, pooling inside and at the end, and windows of 21
    or 43 pixels.
    """
    layers = (Layer(3, 3, stride=2, pool=pool), Layer(4, 2, pool=pool))
    network = OverFeat(layers, side=2, hidden=(5, 4), regress=(4, 3), classes=3, dropout=0.0).double()
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.5)
    return network


@pytest.mark.parametrize(("pool", "side", "height", "width"), [(2, 21, 33, 30), (3, 43, 55, 49)])
def test_dense_scores_equal_single_windows(assert_parity, pool, side, height, width):
    network = tiny(pool)
    assert network(torch.zeros(1, 3, side, side).double()).scores.shape == (1, 3, 1, 1)
    assert network.stride == 2 * pool

    def one_by_one(weights, images):
        rows = (height - side) // network.stride + 1
        columns = (width - side) // network.stride + 1
        found = []
        for y in range(rows):
            for x in range(columns):
                top, left = y * network.stride, x * network.stride
                window = images[:, :, top : top + side, left : left + side]
                found.append(functional_call(network, weights, (window,)))
        return [torch.cat(one, 2).view(len(images), -1, rows, columns) for one in zip(*found, strict=True)]

    assert_parity(
        lambda weights, images: list(functional_call(network, weights, (images,))),
        one_by_one,
        (torch.randn(2, 3, height, width),),
        weights=dict(network.named_parameters()),
    )


@pytest.mark.parametrize("pool", [2, 3])
def test_a_window_alone_is_pooled_as_any_network_pools(assert_parity, pool):
    network = tiny(pool)

    def pooled(w, x):
        x = F.conv2d(x, w["features.0.weight"], w["features.0.bias"], stride=2).clamp(min=0)
        x = F.max_pool2d(x, pool)
        x = F.conv2d(x, w["features.3.weight"], w["features.3.bias"]).clamp(min=0)
        x = F.max_pool2d(x, pool).flatten(1)
        found = []
        for head in ("classifier", "regressor"):
            y = x
            for layer in (0, 3, 6):
                y = y @ w[f"{head}.{layer}.weight"].flatten(1).T + w[f"{head}.{layer}.bias"]
                y = y.clamp(min=0) if layer < 6 else y
            found.append(y[:, :, None, None])
        return found

    assert_parity(
        lambda weights, images: list(functional_call(network, weights, (images,))),
        pooled,
        (torch.randn(2, 3, *[{2: 21, 3: 43}[pool]] * 2),),
        weights=dict(network.named_parameters()),
    )


@pytest.mark.parametrize("pool", [2, 3])
def test_offsets_in_a_batch_equal_single_ones(assert_parity, pool):
    network = tiny(pool)
    assert_parity(
        lambda w, x: list(functional_call(network, w, (x,))),
        lambda w, x: list(functional_call(Apart(network), {f"network.{n}": v for n, v in w.items()}, (x,))),
        (torch.randn(2, 3, 61, 49),),
        weights=dict(network.named_parameters()),
    )


class Apart(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return at_each_offset(self.network, x)


def test_padding_makes_a_window_alone_another_one():
    layers = (Layer(3, 3, padding=1, pool=2), Layer(4, 3, padding=1, pool=2))
    network = OverFeat(layers, side=2, hidden=(5, 4), regress=(4, 3), classes=3).double().eval()
    image = torch.randn(1, 3, 16, 16).double()
    whole, alone = network(image).scores[..., 1, 1], network(image[:, :, 2:10, 2:10]).scores[..., 0, 0]
    assert (whole - alone).abs().max() > 1e-3


def test_sizes():
    with torch.device("meta"):
        fast, accurate = OverFeat(FAST, side=6, hidden=(3072, 4096)), OverFeat(ACCURATE)
        assert fast(torch.empty(1, 3, 231, 231)).scores.shape == (1, 1000, 1, 1)
        assert accurate(torch.empty(1, 3, 221, 221)).scores.shape == (1, 1000, 1, 1)
        views = accurate(torch.empty(1, 3, 281, 317))
        assert accurate.features(torch.empty(1, 3, 281, 317)).shape == (1, 1024, 20, 23)
    assert views.scores.shape == (1, 1000, 6, 9)
    assert views.boxes.shape == (1, 4, 6, 9)
    assert (fast.stride, accurate.stride) == (16, 12)
    sizes = [
        sum(w.numel() for part in (network.features, network.classifier) for w in part.parameters())
        for network in (fast, accurate)
    ]
    assert sizes == [145_920_872, 144_656_488]


def test_boxes_start_as_the_middle_of_their_windows():
    boxes = OverFeat.small(5)(torch.rand(1, 3, 28, 28)).boxes
    middle = torch.tensor([0.25, 0.25, 0.75, 0.75]).view(1, 4, 1, 1)
    assert torch.equal(boxes, middle.expand(1, 4, 3, 3))


def test_dropout_is_in_the_classifier_alone():
    network = OverFeat((Layer(4, 3, pool=2),), side=2, hidden=(40, 40), regress=(40, 40), classes=3)
    x = torch.randn(1, 3, 12, 12)
    first, second = network(x), network(x)
    assert not torch.equal(first.scores, second.scores)
    assert torch.equal(first.boxes, second.boxes)
    network.eval()
    assert torch.equal(network(x).scores, network(x).scores)
    assert [m.p for m in OverFeat.small(5).modules() if isinstance(m, nn.Dropout)] == [0.0] * 4


def test_boxes_of_windows_are_put_where_the_windows_are():
    boxes = torch.zeros(1, 4, 2, 3)
    boxes[:, 2:] = 1  # each box is its window
    found = in_pixels(boxes, stride=2, window=24, scale=2.0)[0]
    assert found.tolist() == [[x, y, x + 12, y + 12] for y in (0, 1) for x in (0, 1, 2)]


def merged(boxes: list[list[float]], scores: list[float], threshold: float) -> tuple[list[float], float]:
    """The box with the highest sum, computed with lists."""
    while len(boxes) > 1:
        table = box_iou(torch.tensor(boxes), torch.tensor(boxes)).triu(1)
        a, b = divmod(int(table.argmax()), len(boxes))
        if table[a, b] < threshold:
            break
        boxes[a] = [(one + two) / 2 for one, two in zip(boxes[a], boxes[b], strict=True)]
        scores[a] += scores[b]
        del boxes[b], scores[b]
    best = max(range(len(boxes)), key=scores.__getitem__)
    return boxes[best], scores[best]


@pytest.mark.parametrize("threshold", [0.3, 0.6])
def test_accumulation_step_by_step(threshold):
    generator = torch.Generator().manual_seed(0)
    boxes = 10 * torch.rand(12, 7, 4, generator=generator)
    boxes[..., 2:] += boxes[..., :2] + 5
    scores = torch.rand(12, 7, generator=generator)
    found = accumulate(boxes, scores[..., None], threshold=threshold)
    assert_close(found.scores.sum((1, 2)), scores.sum(1))
    assert (found.scores == 0).any()
    for i in range(12):
        box, total = merged(boxes[i].tolist(), scores[i].tolist(), threshold)
        best = found.scores[i, :, 0].argmax()
        assert found.scores[i, best, 0].item() == pytest.approx(total, rel=1e-5)
        assert found.boxes[i, best].tolist() == pytest.approx(box, rel=1e-5)


def test_boxes_that_agree_win_over_one_that_is_more_certain():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [30, 30, 40, 40], [0, 1, 10, 11]]])
    scores = torch.tensor([[[0.5, 0.1], [0.1, 0.7], [0.4, 0.3]]])
    found = accumulate(boxes, scores)
    assert_close(found.scores, torch.tensor([[[0.9, 0.4], [0.1, 0.7], [0, 0]]]))
    assert found.boxes[0, 0].tolist() == [0, 0.5, 10, 10.5]
    assert scores[0, 0].tolist() == [0.5, pytest.approx(0.1)]


def test_overlap_of_pairs_is_the_diagonal():
    a, b = torch.rand(2, 30, 4).double()
    a[:, 2:] += a[:, :2]
    b[:, 2:] += b[:, :2]
    assert_close(iou_of_pairs(a, b), box_iou(a, b).diagonal())


def marked(places: list[tuple[int, int]], size: int = 10) -> Pictures:
    """A white square in each image of 40 × 40."""
    x, boxes = torch.zeros(len(places), 3, 40, 40), []
    for image, (left, top) in zip(x, places, strict=True):
        image[:, top : top + size, left : left + size] = 1
        boxes.append([left, top, left + size, top + size])
    return Pictures(x, torch.arange(len(places)) % 5, torch.tensor(boxes).float())


@pytest.mark.parametrize("side", [24, 34, 48])
def test_windows_have_the_object_near_their_middle_and_boxes_locate_it(side):
    known = marked([(15, 15), (18, 12), (12, 16), (15, 17)] * 5)
    scaled = Pictures(resized(known.x, side), known.y, known.boxes * side / 40)
    seen = windows(scaled, torch.arange(20), torch.Generator().manual_seed(0))
    assert seen.x.shape == (20, 3, 24, 24)
    assert torch.equal(seen.y, known.y)
    middles = 24 * (seen.boxes[:, :2] + seen.boxes[:, 2:]) / 2
    assert ((middles - 12).abs() <= 4.5).all()
    for picture, box in zip(seen.x, 24 * seen.boxes, strict=True):
        x1, y1, x2, y2 = box.round().long().tolist()
        assert picture[:, y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].mean() > 0.9
        assert picture.mean() * 24 * 24 == pytest.approx((10 * side / 40) ** 2, rel=0.1)


class Square(nn.Module):
    """Scores windows by their share of white, and predicts the bounding box of the white pixels."""

    stride = 2

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        cut = x.unfold(2, 24, 2).unfold(3, 24, 2)[:, 0]
        white = cut.mean((3, 4))
        rows, columns = cut.amax(4) > 0.5, cut.amax(3) > 0.5
        sides = []
        for line in (columns, rows):
            line = torch.cat((line, torch.ones_like(line[..., :1])), -1).int()
            first = line.argmax(-1)
            sides.append((first / 24, (first + line[..., :-1].sum(-1)) / 24))
        (x1, x2), (y1, y2) = sides
        scores = torch.stack((white * 50, *[torch.zeros_like(white)] * 4), 1)
        return overfeat.model.Views(scores, torch.stack((x1, y1, x2, y2), 1))


@pytest.mark.parametrize("scales", [(24,), (48,), (24, 34, 48)])
def test_objects_in_windows_are_found_in_the_picture(scales):
    known = marked([(4, 6), (22, 12), (15, 24)], size=12)
    found = locate(Square(), known.x, scales, views="all", kept=24)
    assert found.labels.tolist() == [0, 0, 0]
    assert (iou_of_pairs(found.boxes, known.boxes) > 0.7).all()


def test_a_second_glance_is_a_window_around_the_first_box():
    known = marked([(4, 6), (22, 12), (15, 24)], size=12)
    boxes = known.boxes + torch.tensor([2.0, -1, 2, -1])
    first = task_module.Located(known.y, boxes, boxes[:, None])
    found = task_module.second_glance(Square(), known.x, first)
    assert (iou_of_pairs(found.boxes, known.boxes) > 0.7).all()


def test_a_second_glance_shows_the_found_box_in_the_middle_with_14_pixels():
    known, seen, network = marked([(4, 6), (22, 12), (15, 24)], size=12), [], Square()
    network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    wide = known.boxes - torch.tensor([0.0, 0, 0, 3])  # the larger side counts
    for boxes, height in ((known.boxes, 12), (wide, 9)):
        first = task_module.Located(known.y, boxes, boxes[:, None])
        found = task_module.second_glance(network, known.x, first)
        assert_close(found.candidates[:, 0], found.boxes)
        middle = 14 * height / 12 / 2  # from the top of the square to the middle of the window
        expected = torch.tensor([12 - 7, 12 - middle, 12 + 7, 12 - middle + 14])
        for window in seen.pop() > 0.5:
            rows, columns = window[0].any(1).nonzero(), window[0].any(0).nonzero()
            sides = [*(line.min() for line in (columns, rows)), *(line.max() + 1 for line in (columns, rows))]
            assert (torch.stack(sides) - expected).abs().max() <= 1


def test_a_second_glance_follows_five_views(monkeypatch):
    known = marked([(14, 12), (25, 26)], size=12)
    monkeypatch.setattr(task_module, "second_glance", lambda network, x, first: first)
    found, five = (locate(Square(), known.x, (34,), views=name, kept=4) for name in ("glances", "five"))
    assert found.candidates.shape == (2, 4, 4)
    assert_close(found, five)


def test_the_window_in_the_middle():
    known = marked([(14, 12)], size=12)
    for side in (24, 34, 48):
        found = locate(Square(), known.x, (side,), views="middle", kept=24)
        assert found.candidates.shape == (1, 1, 4)
        assert iou_of_pairs(found.boxes, known.boxes).item() > 0.7


@pytest.mark.parametrize("corner", [(0, 0), (27, 0), (0, 27), (27, 27)])
def test_five_views_reach_the_corners(corner):
    known = marked([corner], size=12)
    found = locate(Square(), known.x, (40,), views="five", kept=5)
    assert found.candidates.shape == (1, 5, 4)
    assert iou_of_pairs(found.boxes, known.boxes).item() > 0.7


def test_objects_that_do_not_fit_a_window_are_left_out():
    known = marked([(15, 15), (10, 10), (0, 15)])
    known.boxes[1] = torch.tensor([5.0, 10, 35, 27])  # as if it were of this size
    assert [readable(known, side).y.tolist() for side in (24, 34, 48)] == [[1], [], [0]]
    assert readable(known, 24).boxes.tolist() == [[pytest.approx(v) for v in (3, 6, 21, 16.2)]]
    assert readable(known, 48).boxes.tolist() == [[18, 18, 30, 30]]


def test_pictures_keep_their_brightness():
    x = torch.full((1, 3, 40, 40), 0.3)
    assert_close(resized(x, 24), torch.full((1, 3, 24, 24), 0.3))


def test_the_arms():
    arms = {name: tuple(seen) for name, seen in experiment_module.ARMS.items()}
    assert arms == {"three scales": (3, "all"), "one scale": (1, "all"), "one view": (1, "middle")}
    breaks = {one.name: tuple(seen) for one, seen in experiment_module.BREAKS.items()}
    expected = {
        "one scale": (1, "all"),
        "central windows of three scales": (3, "middle"),
        "five views": (3, "five"),
        "second glance": (1, "glances"),
    }
    assert breaks == expected
    assert experiment_module.SCALES == (24, 34, 48)
    assert (experiment_module.RATES, experiment_module.KEPT) == ((0.002, 0.006, 0.018, 0.054), (1, 4, 24))
    assert experiment_module.STEPS == 250
    assert OverFeat.small(5).stride == 2


def test_each_arm_has_its_best_scale_and_is_judged_on_other_pictures(part_of_run, monkeypatch):
    drawn = {part: marked([(15, 15)] * 20) for part in ("choose", "judge")}
    found = {(24,): 6, (34,): 4, (48,): 5, (24, 34, 48): 3}  # errors among 20 images, by scales, on `choose`

    def located(network, part, scales, *, views, kept):
        wrong = found[tuple(scales)] + 2 * (part is drawn["judge"]) + 2 * (kept != 4)
        return torch.arange(20) >= wrong

    monkeypatch.setattr(experiment_module, "located", located)
    shop = Workshop(part_of_run(), experiment_module.World([], drawn["choose"], drawn["judge"]))
    at = Trial(shop, Work(arm="any"), arm="any")
    at.before = {0.01: OverFeat.small(5)}
    for seen, score, best in (((1, "all"), 0.2, (34,)), ((3, "five"), 0.15, (24, 34, 48))):
        found_score, learnt = experiment_module.attempt(at, experiment_module.Seen(*seen), 0.01)
        assert found_score == pytest.approx(score)
        assert learnt == (at.before[0.01], seen[1], best, 4)
        mistakes = experiment_module.read_off(at, Sweep(learnt, 0.01, {}))["localisation error"]
        assert mistakes.mean() == pytest.approx(score + 0.1)


def test_an_object_is_located_if_its_class_and_half_of_its_box_are_right(monkeypatch):
    truth = Pictures(
        torch.zeros(4, 3, 40, 40), torch.tensor([0, 1, 2, 3]), torch.tensor([[0.0, 0, 10, 10]] * 4)
    )
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5.1], [0, 0, 10, 4.9], [0, 0, 10, 10]])

    def locate(network, x, scales, **asked):
        assert (scales, asked) == ((24, 34), {"views": "five", "kept": 4})
        return task_module.Located(torch.tensor([0, 1, 2, 4]), boxes, boxes[:, None])

    monkeypatch.setattr(experiment_module, "locate", locate)
    learnt = experiment_module.Learnt(OverFeat.small(5), "five", (24, 34), 4)
    assert experiment_module.wrong(learnt, truth).tolist() == [0, 0, 1, 1]


def test_the_experiment_runs(run_experiment):
    record = run_experiment(overfeat)
    claims = {claim["claim"]["name"]: claim for claim in record.claims}
    assert (
        claims["parameter and view counts"]["verdict"]
        == claims["one pass against separate windows"]["verdict"]
        == "held"
    )
    errors = {arm: record.values["localisation error", arm] for arm in experiment_module.ARMS}
    values = list(claims["three scales against one scale and one view"]["values"].values())
    expected = [errors[arm] - errors["three scales"] for arm in ("one view", "one scale")]
    assert values == pytest.approx([*expected, errors["one view"]])


def test_the_set_up_is_the_stated_one():
    assert (digest(experiment_module), digest(task_module)) == ("d195b136cbe0", "37b9bf08b967")


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(overfeat)] == ["every window"]
