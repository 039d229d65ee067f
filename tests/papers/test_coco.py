"""COCO's files, run lengths and twelve metrics compared with pycocotools; the detector's cells; its arms."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.data import scenes
from readtrack.errors import ReadtrackError
from readtrack.papers import coco
from readtrack.papers.coco import Coco, Detector, compress, decode, detect, encode, overlap, read, uncompress
from readtrack.papers.coco.dataset import Batch, objects
from readtrack.papers.coco.drawing import drawn
from readtrack.papers.coco.model import (
    Cells,
    Found,
    assigned,
    centres,
    detection_loss,
    iou_of_pairs,
    suppressed,
)
from readtrack.papers.coco.pasting import digit, half, paste, pasted
from readtrack.plugin import Trial
from readtrack.runs.trial import Work, Workshop
from readtrack.scores import box_iou

experiment_module = importlib.import_module("readtrack.papers.coco.experiment")
PARITY = "the parity extra brings pycocotools"


def masks(count: int, height: int = 13, width: int = 17) -> torch.Tensor:
    """Random masks, an empty one, a full one, and one that includes the first pixel."""
    found = torch.rand(count, height, width) < torch.rand(count, 1, 1)
    found[0], found[1], found[2, 0, 0] = False, True, True
    return found


@pytest.mark.parametrize("shape", [(13, 17), (1, 9), (9, 1)])
def test_run_lengths_match_pycocotools(shape):
    codec = pytest.importorskip("pycocotools.mask", reason=PARITY)
    for mask in masks(12, *shape):
        counts = encode(mask)
        assert torch.equal(decode(counts, *shape), mask)
        theirs = codec.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
        assert compress(counts) == theirs["counts"].decode()
        assert uncompress(compress(counts)) == counts


@pytest.mark.parametrize("counts", [[5], [0, 5], [3, 1, 70_000], [100_000, 3, 2, 90_000, 1, 5, 2**30]])
def test_lengths_of_all_sizes_come_back(counts):
    codec = pytest.importorskip("pycocotools.mask", reason=PARITY)
    assert uncompress(compress(counts)) == counts
    if sum(counts) < 2**31:
        theirs = codec.frPyObjects([{"size": [sum(counts), 1], "counts": counts}], sum(counts), 1)[0]
        assert compress(counts) == theirs["counts"].decode()


def test_damaged_run_lengths_are_refused():
    with pytest.raises(ValueError, match="ends within"):
        uncompress("5P")
    with pytest.raises(ValueError, match="4 pixels"):
        decode([4], 2, 3)


def padded(found: torch.Tensor) -> torch.Tensor:
    return nn.utils.rnn.pad_sequence([torch.tensor(encode(mask)) for mask in found], batch_first=True)


def test_overlap_matches_pixels_and_pycocotools():
    codec = pytest.importorskip("pycocotools.mask", reason=PARITY)
    a, b = masks(9), masks(7)
    found = overlap(padded(a), padded(b))
    flat = a.flatten(1).double(), b.flatten(1).double()
    shared = flat[0] @ flat[1].T
    expected = shared / (flat[0].sum(1)[:, None] + flat[1].sum(1) - shared).clamp(min=1)
    assert_close(found, expected, rtol=0, atol=1e-15)
    theirs = [[codec.encode(np.asfortranarray(m.numpy().astype(np.uint8))) for m in some] for some in (a, b)]
    both = a.flatten(1).any(1)[:, None] & b.flatten(1).any(1)  # the ratio of two empty masks is NaN
    assert_close(found[both], torch.from_numpy(codec.iou(*theirs, [0] * 7))[both], rtol=0, atol=1e-15)
    with pytest.raises(ValueError, match="different sizes"):
        overlap(torch.tensor([[4, 2]]), torch.tensor([[4, 3]]))


@pytest.fixture
def folder(tmp_path):
    """Two parts of scenes as files in COCO's format, with a crowd and unsorted ids."""
    for name, count in (("train2017", 6), ("val2017", 9)):
        part = "train" if name == "train2017" else "judge"
        coco.write(scenes.draw(count, 3, part, "few", classes=4), tmp_path, name)
    path = tmp_path / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"][1]["iscrowd"] = 1
    content["annotations"].reverse()
    content["images"].reverse()
    content["categories"].reverse()
    path.write_text(json.dumps(content))
    return tmp_path


def test_written_scenes_are_read_back(tmp_path):
    made = scenes.draw(5, 0, "train", "few")
    found = coco.write(made, tmp_path, "some")
    batch = found.batch(range(5), 48)
    assert_close(batch.images, made.images, rtol=0, atol=0.5 / 255 + 1e-6)
    there = made.labels >= 0
    assert torch.equal(batch.boxes[batch.labels >= 0], made.boxes[there])
    names = [scenes.DIGITS[label] for label in made.labels[there].tolist()]
    assert [found.names[label] for label in batch.labels[batch.labels >= 0].tolist()] == names
    areas = torch.cat([one.areas for one in found.objects])
    assert torch.equal(areas, made.masks[there].flatten(1).sum(1).double())


def test_classes_that_do_not_occur_are_categories_too(tmp_path):
    found = coco.write(scenes.draw(1, 0, "train", "iconic", classes=5), tmp_path, "one", 5)
    assert found.names == list(scenes.DIGITS[:5])


def test_a_smaller_square_scales_pixels_and_boxes(folder):
    found = read(folder, "val2017")
    found.sizes[0] = (48, 24)  # as if the image were twice as wide as it is high
    batch, half = found.batch([1], 48), found.batch([1], 24)
    assert half.images.shape == (1, 3, 24, 24)
    assert_close(half.boxes, batch.boxes / 2)
    assert found.scale(0, 24) == 0.5


def test_images_keep_their_shape_on_grey(tmp_path):
    from PIL import Image

    (tmp_path / "p").mkdir()
    Image.new("L", (40, 20), 255).save(tmp_path / "p" / "a.png")
    content = {
        "images": [{"id": 7, "file_name": "a.png", "width": 40, "height": 20}],
        "categories": [{"id": 90, "name": "cat"}],
        "annotations": [{"image_id": 7, "category_id": 90, "bbox": [4, 2, 8, 6], "area": 9.5, "iscrowd": 0}],
    }
    (tmp_path / "i.json").write_text(json.dumps(content))
    found = Coco(tmp_path / "i.json", tmp_path / "p")
    batch = found.batch([0], 20)
    assert torch.equal(batch.images[0, :, :10], torch.ones(3, 10, 20))
    assert torch.equal(batch.images[0, :, 10:], torch.full((3, 10, 20), 0.5))
    assert batch.boxes.tolist() == [[[2, 1, 6, 4]]]
    assert found.objects[0].areas.tolist() == [9.5]


def test_crowds_are_not_trained_on(folder):
    found = read(folder, "val2017")
    batch = found.batch(range(9), 48)
    assert (batch.labels >= 0).sum() == sum(len(one.labels) for one in found.objects) - 1


@pytest.mark.parametrize("damage", ["no file", "no folder", "no json", "a list", "a box too short"])
def test_files_that_are_not_cocos_are_refused(folder, damage):
    path = folder / "annotations" / "instances_val2017.json"
    if damage == "no file":
        path.unlink()
    elif damage == "no folder":
        (folder / "val2017").rename(folder / "elsewhere")
    elif damage == "no json":
        path.write_text("{")
    elif damage == "a list":
        path.write_text("[]")
    else:
        content = json.loads(path.read_text())
        content["annotations"][0]["bbox"] = [1, 2, 3]
        path.write_text(json.dumps(content))
    with pytest.raises(ReadtrackError):
        read(folder, "val2017")


def test_the_names_of_images_stay_within_the_folder(folder):
    path = folder / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    content["images"][-1]["file_name"] = "../../elsewhere.png"
    path.write_text(json.dumps(content))
    assert read(folder, "val2017").files[0] == folder / "val2017" / "elsewhere.png"


def near(found: Coco, row: int) -> Found:
    """Detections with slightly shifted boxes, duplicates, wrong classes, and boxes on the background."""
    one = found.objects[row]
    boxes = torch.cat((one.boxes.repeat(2, 1), torch.rand(3, 4).double() * 20))
    boxes = boxes + torch.randint(-2, 3, boxes.shape)
    boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    labels = torch.cat((one.labels.repeat(2), torch.randint(len(found.names), (3,))))
    return Found(boxes, torch.randint(1, 9, (len(boxes),)).double() / 8, labels)


def test_the_twelve_numbers_match_pycocotools(folder):
    theirs = pytest.importorskip("pycocotools.coco", reason=PARITY)
    from pycocotools.cocoeval import COCOeval

    found = read(folder, "val2017")
    detections = [near(found, row) for row in range(len(found))]
    numbers = experiment_module.twelve(experiment_module.judged(found, detections))
    lines = [line for row, one in enumerate(detections) for line in found.results(row, *one)]
    assert json.loads(json.dumps(lines)) == lines
    with contextlib.redirect_stdout(io.StringIO()):
        truth = theirs.COCO(folder / "annotations" / "instances_val2017.json")
        judge = COCOeval(truth, truth.loadRes(lines), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    ours = [-1 if math.isnan(number) else number for number in numbers.values()]
    assert ours == pytest.approx(judge.stats.tolist(), abs=1e-12)
    assert 0.05 < ours[0] < ours[1] < 0.95


def test_cells_have_the_right_centres():
    network = Detector(3, widths=(4, 4, 4), halving=2).double()
    cells = network(torch.rand(2, 3, 16, 24).double())
    assert cells.scores.shape == (2, 24, 4)
    middles = centres(4, 6, 4)
    assert middles[:7].tolist() == [[2, 2], [6, 2], [10, 2], [14, 2], [18, 2], [22, 2], [2, 6]]
    assert (cells.boxes[..., :2] < middles).all()
    assert (cells.boxes[..., 2:] > middles).all()


def test_a_cell_belongs_to_the_smallest_box_whose_middle_it_is_in():
    boxes = torch.tensor([[[0.0, 0, 16, 16], [8, 8, 11, 11], [0, 0, 0, 0]], [[0, 0, 0, 0]] * 3])
    batch = Batch(torch.zeros(2, 3, 16, 16), boxes, torch.tensor([[2, 0, -1], [-1, -1, -1]]))
    labels, owners = assigned(batch, centres(4, 4, 4), 4)
    expected = torch.zeros(2, 16, dtype=torch.long)
    expected[0, [5, 6, 9]], expected[0, 10] = 3, 1
    assert torch.equal(labels, expected)
    assert owners[0, 10].tolist() == [8, 8, 11, 11]
    assert owners[0, 5].tolist() == [0, 0, 16, 16]


def test_every_object_of_a_scene_has_a_cell(tmp_path):
    found = coco.write(scenes.draw(60, 0, **experiment_module.KINDS["scenes"].made), tmp_path, "p")
    batch = found.batch(range(60), 32)
    labels, owners = assigned(batch, centres(8, 8, 4), 4)
    for i in range(60):
        for box, label in zip(batch.boxes[i], batch.labels[i], strict=True):
            assert label < 0 or ((owners[i] == box).all(1) & (labels[i] == label + 1)).any()


def test_the_loss_written_out():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 4, 3, generator=generator)
    middles = centres(2, 2, 4)
    boxes = torch.cat((middles - 3, middles + 2), 1).expand(2, -1, -1)
    truth = torch.tensor([[[0.0, 0, 4, 4]], [[4, 4, 8, 8]]])
    batch = Batch(torch.zeros(2, 3, 8, 8), truth, torch.tensor([[0], [1]]))
    expected = torch.zeros(())
    for i, (cell, label) in enumerate([(0, 1), (3, 2)]):
        for at in range(4):
            expected = expected - scores[i, at].log_softmax(0)[label if at == cell else 0]
        expected = expected + 1 - box_iou(boxes[i, cell][None], truth[i])[0, 0]
    assert_close(detection_loss(Cells(scores, boxes), batch, 4), expected / 2)


def test_a_batch_without_objects_has_a_loss():
    cells = Detector(2, widths=(4, 4))(torch.rand(2, 3, 8, 8))
    empty = Batch(torch.zeros(2, 3, 8, 8), torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.long))
    loss = detection_loss(cells, empty, 4)
    loss.backward()
    assert loss > 0


def test_overlap_of_pairs_is_the_diagonal():
    a, b = torch.rand(20, 4).double(), torch.rand(20, 4).double()
    a[:, 2:] += a[:, :2]
    b[:, 2:] += b[:, :2]
    assert_close(iou_of_pairs(a, b), box_iou(a, b).diagonal())


def test_suppression_step_by_step():
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        boxes = torch.rand(30, 4, generator=generator)
        boxes[:, 2:] += boxes[:, :2]
        scores = torch.randint(10, (30,), generator=generator).float()
        rest, expected = scores.argsort(descending=True, stable=True).tolist(), []
        while rest:
            best, *rest = rest
            expected.append(best)
            rest = [row for row in rest if box_iou(boxes[best][None], boxes[row][None]) <= 0.5]
        assert suppressed(boxes, scores, 0.5).tolist() == expected


class Saying(nn.Module):
    """A network whose cells output these values."""

    def __init__(self, scores, boxes):
        super().__init__()
        self.cells = Cells(scores, boxes)

    def forward(self, images):
        return self.cells


def test_classes_do_not_suppress_each_other():
    scores = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.35, 0.05], [0.98, 0.01, 0.01]]).log()[None]
    boxes = torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 7], [0, 0, 8, 8]])[None]
    (found,) = detect(Saying(scores, boxes), torch.zeros(1, 3, 8, 8), least=0.1)
    assert found.labels.tolist() == [0, 1]
    assert_close(found.scores, torch.tensor([0.35, 0.2]))
    assert found.boxes.tolist() == [[0, 0, 8, 7], [0, 0, 8, 8]]
    (one,) = detect(Saying(scores, boxes), torch.zeros(1, 3, 8, 8), least=0.1, most=1)
    assert one.labels.tolist() == [0]


def test_boxes_are_drawn_where_they_are():
    boxes = torch.tensor([[2.0, 3, 7, 9], [-4, -4, 99, 99]])
    picture = drawn(torch.zeros(3, 12, 12), boxes, torch.tensor([0, 1]), ["a", "b"], enlarge=4)
    assert picture.shape == (3, 48, 48)
    assert picture[:, 12:36, 8].amax(0).min() > 0.5
    assert picture[:, 30, 12:24].max() == 0


def test_the_arms():
    iconic, context = experiment_module.KINDS.values()
    assert (iconic.objects, context.objects) == (1, 2)
    assert iconic.made == {"level": "photo", "size": 32, "digit": (12, 18), "classes": 5}
    many = {"objects": (1, 3), "fragments": (1, 1)}
    assert context.made == {**iconic.made, "level": "many", "digit": (7, 18), **many}
    others = {one.name: kind for one, kind in experiment_module.OTHERS.items()}
    assert others == {
        "no context": iconic,
        "large digits": (2, {**context.made, "digit": (12, 18)}),
        "one digit of any size": (1, {**iconic.made, "digit": (7, 18)}),
        "scenes pasted from iconic pictures": (2, iconic.made),
    }
    assert experiment_module.RATES == (0.0015, 0.005, 0.015)
    assert experiment_module.STEPS == 200
    widths = [m.out_channels for m in Detector(5).features if isinstance(m, nn.Conv2d)]
    assert (widths, Detector(5).stride) == ([24, 48, 64, 64], 4)


def test_an_iconic_digit_is_not_always_in_the_middle():
    made = scenes.draw(200, 0, **experiment_module.KINDS["iconic pictures"].made)
    middles = (made.boxes[:, 0, :2] + made.boxes[:, 0, 2:]) / 2
    assert middles.std(0).min() > 3


def test_scenes_hold_two_objects_in_the_mean():
    made = scenes.draw(1000, 0, **experiment_module.KINDS["scenes"].made)
    assert (made.labels >= 0).sum().item() / 1000 == pytest.approx(2, abs=0.1)


class Stop(Exception):
    """Ends a run before its first training step."""


@pytest.fixture
def made(part_of_run, monkeypatch, tmp_path):
    """Returns the images of a comparison, by the name of the break."""

    def of_break(broken: str = ""):
        worlds = []

        def compare(*_, world, **__):
            worlds.append(world)
            raise Stop

        run = part_of_run(broken=broken)
        monkeypatch.setattr(type(run), "compare", compare)
        with pytest.raises(Stop):
            experiment_module.compare(run, tmp_path / f"made {broken}")
        return worlds[0]

    return of_break


def test_all_arms_have_the_same_number_of_objects_to_train_on(made):
    of_one = {name: kind.objects for name, kind in experiment_module.KINDS.items()}
    for broken in (None, *experiment_module.OTHERS):
        name = broken.name if broken else ""
        objects_in = {**of_one, name: experiment_module.OTHERS[broken].objects} if broken else of_one
        pictures = {arm: len(batch.images) for arm, batch in made(name).train.items()}
        assert pictures == {arm: 16 // number for arm, number in objects_in.items()}


def test_the_rival_sees_only_iconic_pictures(made):
    name = experiment_module.PASTED.name
    world = made(name)
    iconic, found = world.train["iconic pictures"], world.train[name]
    assert world.choose[name] is world.choose["iconic pictures"]
    assert torch.equal(found.boxes[:, 0], iconic.boxes[:8, 0])
    assert torch.equal(found.labels, torch.stack((iconic.labels[:8, 0], iconic.labels[8:, 0]), 1))
    assert (found.images == iconic.images[:8]).all(1).float().mean() > 0.6
    assert list(world.judge) == list(experiment_module.KINDS)


def plain_pictures(count: int) -> Batch:
    """Black pictures with a box of another brightness in each."""
    boxes = torch.tensor([[2.0, 3, 8, 13]]).repeat(count, 1, 1)
    images = torch.zeros(count, 3, 32, 32)
    for row in range(count):
        images[row, :, 3:13, 2:8] = (row + 1) / 16
    return Batch(images, boxes, torch.arange(count)[:, None])


def test_pasted_scenes_hold_a_digit_of_each_half():
    pictures = plain_pictures(16)
    before = pictures.images.clone()
    found = pasted(pictures, torch.Generator().manual_seed(0))
    assert torch.equal(pictures.images, before)
    assert found.labels.tolist() == [[row, row + 8] for row in range(8)]
    assert found.boxes[:, 0].tolist() == [[2, 3, 8, 13]] * 8
    for row, (image, box) in enumerate(zip(found.images, found.boxes[:, 1].long().tolist(), strict=True)):
        x1, y1, x2, y2 = box
        assert 3 <= x2 - x1 <= 6
        assert 5 <= y2 - y1 <= 10
        assert_close(image[:, y1:y2, x1:x2].flatten().median(), torch.tensor((row + 9) / 16))
        third = set((image[0] * 16).round().unique().tolist()) - {0, row + 1, row + 9}
        assert len(third) <= 1
        assert third <= set(range(1, 17))


def test_a_digit_is_cut_out_without_its_background_and_shrunk():
    pictures, generator = plain_pictures(3), torch.Generator().manual_seed(0)
    cut = [digit(pictures, 1, generator) for _ in range(60)]
    for patch in cut:
        assert_close(patch, torch.full_like(patch, 2 / 16))
    assert {patch.shape[1] for patch in cut} == set(range(5, 11))
    assert {patch.shape[2] for patch in cut} == set(range(3, 7))


def test_halves_of_a_digit():
    patch, generator = torch.rand(3, 4, 6), torch.Generator().manual_seed(0)
    halves = {half(patch, generator).numpy().tobytes() for _ in range(40)}
    expected = (patch[:, :2], patch[:, 2:], patch[:, :, :3], patch[:, :, 3:])
    assert halves == {one.numpy().tobytes() for one in expected}


def test_a_patch_is_pasted_beside_what_is_there():
    taken = torch.tensor([[0.0, 0, 16, 32], [16, 0, 32, 10]])
    for seed in range(20):
        image = torch.zeros(3, 32, 32)
        box = paste(image, torch.ones(3, 4, 6), taken, torch.Generator().manual_seed(seed))
        x1, y1, x2, y2 = box.long().tolist()
        assert (x2 - x1, y2 - y1) == (6, 4)
        assert image[:, y1:y2, x1:x2].min() == 1
        assert image.sum() == 3 * 24
        assert box_iou(box[None], taken).max() == 0


@pytest.mark.slow
def test_the_experiment_runs(run_experiment):
    record = run_experiment(coco)
    values = record.claims[0]["values"]
    at = {
        (arm, kind): record.values[f"AP50 on {kind}", f"trained on {arm}"]
        for arm in experiment_module.KINDS
        for kind in experiment_module.KINDS
    }
    assert values["AP50 lost, scenes"] == at["scenes", "iconic pictures"] - at["scenes", "scenes"]
    kept = {arm: at[arm, "scenes"] / max(at[arm, "iconic pictures"], 1e-6) for arm in experiment_module.KINDS}
    difference = values["share of AP50 kept, scenes - iconic pictures"]
    assert difference == kept["scenes"] - kept["iconic pictures"]
    assert record.headline_curve == experiment_module.OVER_OVERLAP
    first = [points[0] for points in record.curves[experiment_module.OVER_OVERLAP].values()]
    assert len(first) == 4
    assert {overlap for overlap, _ in first} == {0.5}


def test_training_and_validation_images_of_each_arm(part_of_run, monkeypatch):
    """Each step has the same number of objects, whatever the images contain."""
    seen = {}
    names = (*experiment_module.KINDS, *(one.name for one in experiment_module.OTHERS))
    batches = {name: Batch(torch.full((9, 3, 8, 8), i), *[None] * 2) for i, name in enumerate(names)}

    def train(_run, _device, _dtype, _arm, _network, draw, _rate, steps, _label):
        seen["steps"] = steps
        images = draw(torch.Generator()).images
        seen["drawn"] = len(images), images.unique().tolist()

    monkeypatch.setattr(experiment_module, "train", train)
    monkeypatch.setattr(Batch, "of", lambda self, rows: self._replace(images=self.images[rows]))
    monkeypatch.setattr(experiment_module, "ap50", lambda run, network, coco: float(coco.names[0]))
    choose = {name: SimpleNamespace(names=[str(i)] * 5) for i, name in enumerate(names)}
    shop = Workshop(part_of_run(), experiment_module.Sets(batches, choose, {}))
    for i, (name, pictures) in enumerate(zip(names, (12, 6, 12, 6, 12, 6), strict=True)):
        at = Trial(shop, Work(arm=name), arm=name)
        score, _ = experiment_module.learn(at, name, 0.01, steps=7)
        assert (score, seen["steps"], seen["drawn"]) == (i, 7, (pictures, [i]))


@pytest.mark.slow
def test_a_folder_of_cocos_is_trained_on(run_experiment, folder):
    record = run_experiment(coco, coco=str(folder))
    assert {"AP", "AP50", "AR, 100 an image"} <= {name for name, arm in record.values if arm == "COCO"}
    kept = next((folder / "run-0" / "artifacts").glob("results*"))
    assert isinstance(json.loads(kept.read_text()), list)


def test_an_image_without_annotations_has_no_objects():
    assert [len(field) for field in objects([], {})] == [0, 0, 0, 0]


def test_the_set_up_is_the_stated_one():
    assert digest(experiment_module) == "071ca621fdd7"


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(coco)] == ["overlap of masks", "images"]
