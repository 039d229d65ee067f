"""Intersection over union and average precision, compared with pycocotools, scikit-learn and loops over
pixels.
"""

from __future__ import annotations

import contextlib
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook
from torch import Tensor
from torch.testing import assert_close

with install_import_hook("readtrack.scores.vision", "beartype.beartype"):
    from readtrack.scores import vision

SIZE = 160  # large enough for objects of all three sizes


def random_boxes(n: int, generator: torch.Generator) -> Tensor:
    corner = torch.randint(0, 60, (n, 2), generator=generator)
    extent = 8 * 2 ** (4 * torch.rand(n, 2, generator=generator))
    return torch.cat((corner, (corner + extent.round()).clamp(max=SIZE)), 1).double()


def filled(boxes: Tensor) -> Tensor:
    masks = torch.zeros(len(boxes), SIZE, SIZE, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.long().tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
        mask[y1 : (y1 + y2) // 2, x1 : (x1 + x2) // 3] = False  # not a rectangle
    return masks


def test_overlap_of_boxes_is_a_count_of_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = random_boxes(12, generator), random_boxes(9, generator)
    grids = []
    for boxes in (a, b):
        grid = torch.zeros(len(boxes), SIZE, SIZE, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(grid, boxes.long().tolist(), strict=True):
            mask[y1:y2, x1:x2] = True
        grids.append(grid)
    expected = torch.tensor(
        [[(m & n).sum().item() / (m | n).sum().item() for n in grids[1]] for m in grids[0]],
        dtype=torch.float64,
    )
    assert (expected > 0.1).sum() > 10
    assert_close(vision.box_iou(a, b), expected)
    assert_close(vision.mask_iou(*grids), expected)
    empty = torch.tensor([[3.0, 3.0, 3.0, 3.0]], dtype=torch.float64)
    assert vision.box_iou(empty, empty).item() == 0


def test_a_crowd_is_measured_by_the_detection() -> None:
    inside, crowd = torch.tensor([[2.0, 2, 6, 6], [8, 0, 12, 4]]), torch.tensor([[0.0, 0, 10, 10]])
    found = vision.box_iou(inside, crowd, torch.tensor([True]))
    assert found.flatten().tolist() == [1, 0.5]
    assert vision.box_iou(inside, crowd)[0].item() == pytest.approx(0.16)


def test_mean_iou_matches_scikit_learns() -> None:
    from sklearn.metrics import jaccard_score

    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(4, (5, 9, 9), generator=generator)
    found = truth.where(torch.rand(truth.shape, generator=generator) < 0.6, 2)
    expected = jaccard_score(truth.flatten(), found.flatten(), average="macro")
    assert vision.mean_iou(found, truth, 4) == pytest.approx(expected)
    assert vision.mean_iou(found, truth, 11) == pytest.approx(expected)  # some classes never occur
    with pytest.raises(ValueError, match="no pixels"):
        vision.mean_iou(truth[:0], truth[:0], 4)


def random_set(seed: int, images: int = 8) -> list[dict[str, Tensor]]:
    """Images with objects of all sizes, crowds, near misses, double detections, equal scores, and empty
    ones.
    """
    generator = torch.Generator().manual_seed(seed)
    made = []
    for i in range(images):
        objects = 0 if i == 1 else int(torch.randint(1, 7, (), generator=generator))
        true_boxes = random_boxes(objects, generator)
        jitter = torch.randint(-3, 4, (2 * objects, 4), generator=generator)
        hits = (true_boxes.repeat(2, 1) + jitter).clamp(0, SIZE)
        hits[:, 2:] = torch.maximum(hits[:, 2:], hits[:, :2] + 1)
        boxes = torch.cat((hits, random_boxes(5, generator)))
        if i == 2:
            boxes = boxes[:0]
        true_labels = torch.randint(4, (objects,), generator=generator)
        labels = torch.cat((true_labels.repeat(2), torch.randint(5, (5,), generator=generator)))[: len(boxes)]
        scores = torch.randint(1, 8, (len(boxes),), generator=generator).double() / 8  # with ties
        crowd = torch.rand(objects, generator=generator) < 0.2
        made.append(
            {"boxes": boxes, "scores": scores, "labels": labels}
            | {"true_boxes": true_boxes, "true_labels": true_labels, "crowd": crowd}
        )
    return made


def coco_evaluation(images: list[dict[str, Tensor]], kind: str) -> Any:
    """pycocotools' evaluation of the same data: twelve numbers in `stats`, tables in `eval`."""
    from pycocotools import mask as codec
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def entry(i: int, box: Tensor, label: Tensor) -> dict[str, Any]:
        x1, y1, x2, y2 = box.tolist()
        if kind == "bbox":
            return {"image_id": i, "category_id": int(label), "bbox": [x1, y1, x2 - x1, y2 - y1]}
        packed = codec.encode(np.asfortranarray(filled(box[None])[0].numpy().astype(np.uint8)))
        return {"image_id": i, "category_id": int(label), "segmentation": packed}

    truth, found = [], []
    for i, image in enumerate(images):
        for box, label, crowd in zip(image["true_boxes"], image["true_labels"], image["crowd"], strict=True):
            area = (box[2:] - box[:2]).prod() if kind == "bbox" else filled(box[None]).sum()
            extra = {"id": len(truth) + 1, "iscrowd": int(crowd), "area": float(area)}
            truth.append(entry(i, box, label) | extra)
        for box, label, score in zip(image["boxes"], image["labels"], image["scores"], strict=True):
            found.append(entry(i, box, label) | {"score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i, "width": SIZE, "height": SIZE} for i in range(len(images))],
            "categories": [{"id": c} for c in range(5)],
            "annotations": truth,
            "info": {},
        }
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(found), kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge


def ours(images: list[dict[str, Tensor]], kind: str) -> list[vision.Detected]:
    if kind == "bbox":
        return [vision.detected_boxes(**image) for image in images]
    return [
        vision.detected_masks(
            filled(image["boxes"]),
            image["scores"],
            image["labels"],
            filled(image["true_boxes"]),
            image["true_labels"],
            crowd=image["crowd"],
        )
        for image in images
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "sets"), [("bbox", 50), ("segm", 4)])
def test_average_precision_matches_pycocotools(kind: str, sets: int) -> None:
    pytest.importorskip("pycocotools", reason="the parity extra brings pycocotools")
    for seed in range(sets):
        images = random_set(seed)
        detected = ours(images, kind)
        theirs = coco_evaluation(images, kind)
        present = sorted({int(label) for image in images for label in image["true_labels"]})
        for a, areas in enumerate([vision.ANY_AREA, vision.SMALL, vision.MEDIUM, vision.LARGE]):
            for m, most in enumerate([1, 10, 100]):
                precision, recall = vision.precision_and_recall(detected, vision.THRESHOLDS, areas, most)
                expected = torch.from_numpy(theirs.eval["precision"][:, :, present, a, m])
                assert_close(precision.nan_to_num(-1), expected, rtol=0, atol=1e-12)
                expected = torch.from_numpy(theirs.eval["recall"][:, present, a, m])
                assert_close(recall.nan_to_num(-1), expected, rtol=0, atol=1e-12)
        numbers = [
            vision.average_precision(detected),
            vision.average_precision(detected, thresholds=(0.5,)),
            vision.average_precision(detected, areas=vision.MEDIUM),
            vision.average_recall(detected, most=1),
            vision.average_recall(detected, areas=vision.LARGE),
        ]
        numbers = [-1 if math.isnan(number) else number for number in numbers]
        assert numbers == pytest.approx(theirs.stats[[0, 1, 4, 6, 11]].tolist(), abs=1e-12)
        assert 0.05 < numbers[0] < numbers[1] < 0.95


def test_thresholds_match_pycocotools() -> None:
    params = pytest.importorskip(
        "pycocotools.cocoeval", reason="the parity extra brings pycocotools"
    ).Params()
    assert tuple(params.iouThrs) == vision.THRESHOLDS
    assert params.recThrs.tolist() == [0.01 * i for i in range(101)]


def test_average_precision_by_hand() -> None:
    objects = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]])
    labels = torch.tensor([3, 3])
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 0, 60, 10], [20, 0, 30, 10]])
    scores, found = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([3, 3, 3])
    image = vision.detected_boxes(boxes, scores, found, objects, labels)
    # Precision is 1 up to a recall of 0.5 (51 of the 101 levels), then 2/3.
    assert vision.average_precision([image]) == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert vision.average_recall([image], most=1) == 0.5
    wrong = vision.detected_boxes(boxes, scores, found + 1, objects, labels)
    assert vision.average_precision([wrong]) == 0
    assert math.isnan(vision.average_precision([image], areas=vision.LARGE))
