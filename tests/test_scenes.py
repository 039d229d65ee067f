"""Scenes: disjoint parts, consistent boxes and masks, and the content of an image."""

import json
import math
import time
from pathlib import Path

import pytest
import torch
from jaxtyping import jaxtyped
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from readtrack import data
from readtrack.data import scenes
from readtrack.data.scenes import LEVELS, Scenes, draw

FIELDS = ("images", "labels", "colours", "boxes", "masks", "distractors", "background")


def corners(mask: Tensor) -> list[float]:
    """A tight box, found by looking at every pixel."""
    rows, columns = mask.nonzero().unbind(1)
    if not len(rows):
        return [0, 0, 0, 0]
    return [columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1]


@pytest.mark.parametrize("level", LEVELS)
def test_shapes_and_ranges(level: str) -> None:
    from beartype import beartype

    made, n = LEVELS[level], 150  # more than a chunk
    found = draw(n, 3, level=level)
    jaxtyped(typechecker=beartype)(Scenes)(*(getattr(found, field) for field in FIELDS))
    assert (len(found), found.images.shape[-1]) == (n, made.size)
    assert found.labels.shape[1] == made.objects[1]
    assert found.distractors.shape[1] == made.fragments[1]
    assert (found.images.min(), found.images.max()) >= (0, 0.5)
    assert found.images.max() <= 1
    assert found.images.is_contiguous()
    present = found.labels >= 0
    assert (present.sum(1) >= made.objects[0]).all()
    assert found.labels.unique()[-10:].tolist() == list(range(10))
    assert torch.equal(present, found.colours >= 0)
    assert torch.equal(present, found.masks.flatten(2).any(2))
    assert found.background.unique().tolist() == [0, 1]


@pytest.mark.parametrize("level", ["pair", "many"])
def test_boxes_are_the_masks_extent_and_masks_are_disjoint(level: str) -> None:
    found = draw(140, 1, level=level, overlap=0.5)
    for boxes, masks in zip(found.boxes, found.masks, strict=True):
        assert boxes.tolist() == [corners(mask) for mask in masks]
    assert found.masks.sum(1).max() == 1
    size = found.images.shape[-1]
    assert (found.distractors >= 0).all()
    assert (found.distractors <= size).all()
    assert (found.distractors[..., 2:] >= found.distractors[..., :2]).all()


@pytest.mark.parametrize("level", LEVELS)
def test_a_seed_makes_the_same_scenes_to_the_bit(level: str) -> None:
    first, again, other = draw(130, 5, level=level), draw(130, 5, level=level), draw(130, 6, level=level)
    for field in FIELDS:
        assert torch.equal(getattr(first, field), getattr(again, field)), field
    assert not torch.equal(first.images, other.images)
    assert not torch.equal(first.images, draw(130, 5, "judge", level).images)


def test_parts_share_neither_digits_nor_fields() -> None:
    rows = {part: set(scenes.digit_rows(part).tolist()) for part in ("train", "choose", "judge")}
    assert [len(rows[part]) for part in rows] == [1195, 298, 304]
    assert sum(map(len, rows.values())) == len(set.union(*rows.values())) == 1797
    labels = data.digits()[1]
    assert all(labels[list(mine)].bincount().min() >= 29 for mine in rows.values())

    fields = {part: scenes._fields(part)[0].view(3, -1, 106, 106).transpose(0, 1) for part in rows}
    assert [len(fields[part]) for part in fields] == [32, 8, 8]
    everything = torch.cat(list(fields.values())).flatten(1)
    assert len(everything.unique(dim=0)) == 48


@pytest.mark.parametrize("part", ["train", "choose", "judge"])
def test_a_part_shows_its_own_digits_and_fields(part: str) -> None:
    def small(masks: Tensor) -> Tensor:
        """The content of each mask's tight box as 20 x 20 pixels."""
        boxes = scenes.extents(masks).long().tolist()
        crops = [mask[y1:y2, x1:x2] for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True)]
        return torch.stack([F.interpolate(c[None, None].float(), (20, 20)).flatten() for c in crops])

    parts = ("train", "choose", "judge")
    glyphs = small(torch.cat([scenes._glyphs(p).ink for p in parts]) > 0.5)
    owner = torch.tensor([p == part for p in parts for _ in scenes._glyphs(p).ink])
    fields = torch.cat([scenes._fields(p)[0].view(3, -1, 106**2) for p in parts], 1).transpose(0, 1)
    ours = torch.tensor([p == part for p in parts for _ in scenes._fields(p)[1]])

    # A scene of a field's size shows the whole field, and unrotated digits keep their shape.
    found = draw(40, 0, part, size=106, digit=(38, 38), rotate=0, dim=1.0)
    nearest = torch.cdist(small(found.masks[:, 0]), glyphs).argmin(1)
    assert owner[nearest].float().mean() > 0.95
    mirrored, contrasts = [], []
    for image, mask in zip(found.images, found.masks[:, 0], strict=True):
        alike, slopes = [], []
        for seen, ink in ((image, mask), (image.flip(2), mask.flip(1))):
            clear = ~ink.flatten()
            rows = torch.cat((seen.flatten(1)[None, :, clear], fields[:, :, clear])).flatten(1)
            alike.append(torch.corrcoef(rows)[0, 1:])
            slopes.append(alike[-1] * rows[0].std() / rows[1:].std(1))
        best = torch.cat(alike).argmax()
        if torch.cat(alike)[best] > 0.85:  # in a plain sky, the noise is stronger than the image
            assert ours[best % 48]
            mirrored.append(best >= 48)
            contrasts.append(torch.cat(slopes)[best])
    assert len(mirrored) > 20
    assert 0.2 < torch.stack(mirrored).float().mean() < 0.8
    low, high = torch.stack(contrasts).quantile(torch.tensor([0.1, 0.9]))
    assert 0.5 < low < 0.85
    assert 1.05 < high < 1.45


def test_backgrounds_are_dark_and_everything_is_noisy() -> None:
    found = draw(100, 0, size=64, centred=True)
    edge = torch.cat((found.images[:, :, :12], found.images[:, :, -12:]), 2)  # without the digit
    assert 0.4 < edge.flatten().kthvalue(int(0.999 * edge.numel())).values < 0.45 + 4 * 0.03
    black = draw(100, 0, size=64, centred=True, dim=0.0).images[:, :, :12]
    # Values below 0 are clipped: the mean of half a normal distribution.
    assert black.mean().item() == pytest.approx(0.03 / math.sqrt(2 * math.pi), rel=0.02)


def test_digits_are_turned() -> None:
    straight, turned = (draw(300, 0, digit=(22, 22), rotate=angle).boxes[:, 0] for angle in (0.0, 20.0))
    heights = [boxes[:, 3] - boxes[:, 1] for boxes in (straight, turned)]
    assert (heights[0] - 22).abs().max() <= 1
    assert heights[0].std() < 0.3
    assert 0.5 < heights[1].std() < 1


def test_every_fragment_has_ink_to_place_it_by() -> None:
    for part in ("train", "choose", "judge"):
        glyphs = scenes._glyphs(part)
        for side in range(4):
            half = glyphs.extent.clone()
            half[:, (side + 2) % 4] = (half[:, side] + half[:, (side + 2) % 4]) / 2
            one = torch.ones(len(half))
            low, high = scenes._reach(glyphs.spans, half, one, 0.3 * one)
            assert (high > low).all()


def test_digits_lie_inside_have_the_requested_heights_and_hardly_overlap() -> None:
    found = draw(600, 2, level="many", fragments=(0, 0))
    seen = found.labels >= 0
    heights = (found.boxes[..., 3] - found.boxes[..., 1])[seen]
    low, middle, high = torch.quantile(heights, torch.tensor([0.05, 0.5, 0.95])).tolist()
    assert (low, high) == (pytest.approx(10.5, abs=1), pytest.approx(25, abs=1.5))
    assert 15 <= middle <= 18  # the geometric mean is 16.1
    # A digit cut off by the border would be narrower than its class; no zero is too narrow.
    zeros = found.boxes[found.labels == 0]
    assert ((zeros[:, 2] - zeros[:, 0]) >= 0.4 * (zeros[:, 3] - zeros[:, 1])).float().mean() > 0.98
    shares = [
        scenes._shares(found.boxes[:, [a]], found.boxes[:, [b]]).flatten() for a in range(5) for b in range(a)
    ]
    assert torch.cat(shares).max() <= 0.16


def test_least_and_most() -> None:
    found = draw(400, 0, size=64, objects=(2, 4), fragments=(1, 3), digit=(8, 12))
    digits = (found.labels >= 0).sum(1)
    fragments = (found.distractors[..., 2] > 0).sum(1)
    assert digits.unique().tolist() == [2, 3, 4]
    assert fragments.unique().tolist() == [1, 2, 3]
    assert digits.bincount()[2:].min() > 90


def test_digits_of_a_scene_differ_and_classes_can_be_fewer() -> None:
    found = draw(300, 0, level="many")
    for labels in found.labels.tolist():
        mine = [label for label in labels if label >= 0]
        assert len(set(mine)) == len(mine)
    few = draw(300, 0, level="pair", classes=3, distinct=False)
    assert few.labels.unique().tolist() == [0, 1, 2]
    assert (few.labels[:, 0] == few.labels[:, 1]).float().mean() > 0.2


def test_a_digit_has_its_colour_and_shows_against_the_background() -> None:
    found = draw(500, 4)
    palette = torch.tensor(list(scenes.PALETTE.values()))
    near, shows = [], []
    for image, mask, box, colour in zip(
        found.images, found.masks[:, 0], found.boxes[:, 0].long(), found.colours[:, 0], strict=True
    ):
        core = image[:, mask].median(1).values
        near.append((core - palette[:6]).norm(dim=1).argmin() == colour)
        x1, y1, x2, y2 = box.tolist()
        around = image[:, y1:y2, x1:x2][:, ~mask[y1:y2, x1:x2]].median(1).values
        shows.append((core - around).norm())
    assert torch.stack(near).float().mean() > 0.95
    assert torch.stack(shows).quantile(0.02) > 0.3
    assert found.colours.unique().tolist() == [0, 1, 2, 3, 4, 5]
    assert draw(300, 4, level="hard").colours.max() == 6


def test_two_colours_are_two() -> None:
    found = draw(200, 1, two_coloured=True, rotate=0, digit=(22, 22))
    away = []
    for image, mask, box in zip(found.images, found.masks[:, 0], found.boxes[:, 0].long(), strict=True):
        cut = int(box[1] + box[3]) // 2
        upper, lower = image[:, : cut - 2][:, mask[: cut - 2]], image[:, cut + 2 :][:, mask[cut + 2 :]]
        away.append((upper.median(1).values - lower.median(1).values).norm())
    assert torch.stack(away).quantile(0.02) > 0.35


def test_iconic_digits_are_large_and_in_the_middle() -> None:
    found = draw(200, 0, level="iconic")
    boxes = found.boxes[:, 0]
    assert ((boxes[:, :2] + boxes[:, 2:]) / 2 - 32).abs().max() <= 1.5
    assert (boxes[:, 3] - boxes[:, 1]).median() > 30


def test_fragments_are_halves() -> None:
    found = draw(400, 0, size=64, digit=(20, 20), rotate=0, fragments=(1, 1))
    whole, half = found.boxes[:, 0], found.distractors[:, 0]
    assert ((whole[:, 3] - whole[:, 1]) - 20).abs().max() <= 1
    tall = half[:, 3] - half[:, 1]
    upright = ((tall - 20).abs() <= 3).float().mean()  # mostly left and right halves
    lying = ((tall - 10).abs() <= 3).float().mean()
    assert 0.3 < upright < 0.55
    assert 0.45 < lying < 0.7


def test_captions_name_the_objects_from_left_to_right() -> None:
    found = Scenes(
        images=torch.zeros(3, 3, 8, 8),
        labels=torch.tensor([[7, 3, -1], [1, -1, -1], [4, 8, 0]]),
        colours=torch.tensor([[2, 0, -1], [5, -1, -1], [4, 3, 1]]),
        boxes=torch.tensor(
            [
                [[4, 0, 8, 3], [0, 0, 4, 8], [0, 0, 0, 0]],
                [[2, 2, 4, 4], [0, 0, 0, 0], [0, 0, 0, 0]],
                [[2, 0, 4, 2], [6, 0, 8, 2], [0, 0, 1, 2]],
            ]
        ).float(),
        masks=torch.zeros(3, 3, 8, 8, dtype=torch.bool),
        distractors=torch.zeros(3, 0, 4),
        background=torch.tensor([1, 0, 0]),
    )
    assert found.captions() == [
        "a red three and a blue seven on the flower",
        "a pink one on the temple",
        "a green zero, a white four and a yellow eight on the temple",
    ]


def test_classes_of_pixels() -> None:
    found = draw(20, 0, level="few")
    expected = torch.zeros(20, 48, 48, dtype=torch.int64)
    for i, k in (found.labels >= 0).nonzero().tolist():
        expected[i][found.masks[i, k]] = found.labels[i, k] + 1
    assert torch.equal(found.classes(), expected)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in pycocotools
def test_coco_can_be_read_back(tmp_path: Path) -> None:
    pycocotools = pytest.importorskip("pycocotools.coco", reason="the parity extra brings pycocotools")
    found = draw(30, 0, level="many")
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(found.coco()))
    coco = pycocotools.COCO(path)
    assert sorted(coco.imgs) == list(range(30))
    assert len(coco.anns) == (found.labels >= 0).sum()
    assert coco.loadCats([1, 10]) == [{"id": 1, "name": "zero"}, {"id": 10, "name": "nine"}]
    for i in range(30):
        mine = (found.labels[i] >= 0).nonzero().flatten().tolist()
        for k, annotation in zip(mine, coco.imgToAnns[i], strict=True):
            assert annotation["category_id"] == found.labels[i, k] + 1
            assert torch.equal(torch.from_numpy(coco.annToMask(annotation)).bool(), found.masks[i, k])
            x, y, width, height = annotation["bbox"]
            assert [x, y, x + width, y + height] == found.boxes[i, k].tolist()
            assert annotation["area"] == found.masks[i, k].sum()


def test_the_sheet_shows_every_level_with_and_without_boxes(tmp_path: Path) -> None:
    from PIL import Image

    from readtrack.data import sheet

    found = sheet.sheet()
    rows = sum(2 * (made.size + 2) for made in LEVELS.values())
    assert found.shape == (rows, 768, 3)
    first = draw(24, 0).images * 255
    assert_close(found[:32, :32].float(), first[0].permute(1, 2, 0), rtol=0, atol=0.51)
    x1, y1 = draw(24, 0).boxes[0, 0, :2].long().tolist()
    assert found[34 + y1, x1].tolist() == [102, 255, 51]
    sheet.main(tmp_path / "scenes.png")
    with Image.open(tmp_path / "scenes.png") as picture:
        assert picture.size == (2 * 768, 2 * rows)


def test_unknown_parts_sizes_and_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="'test'"):
        draw(1, 0, "test")
    with pytest.raises(ValueError, match="106 pixels"):
        draw(1, 0, size=107)
    with pytest.raises(KeyError):
        draw(1, 0, level="easy")
    with pytest.raises(TypeError, match="colour"):
        draw(1, 0, colour=3)


@pytest.mark.timing
@pytest.mark.parametrize("level", ["photo", "cluttered"])
def test_a_thousand_images_a_second(level: str) -> None:
    draw(256, 0, level=level)
    seconds = []
    for seed in range(3):
        start = time.process_time()
        draw(1024, seed, level=level)
        seconds.append(time.process_time() - start)
    assert 1024 / min(seconds) > 1000
