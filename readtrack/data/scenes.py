"""Scenes of coloured handwritten digits on crops of two photographs, with boxes, masks and captions.

The vision papers share them. A scene consists of a darkened field of a photograph, fragments (halves of
digits, so that strokes alone are not enough to detect a digit), digits (later ones cover earlier ones), and
noise, drawn in this order. Digits and fields are split once into three parts, so the `judge` part never
occurs in training. (Writers may overlap, because the data set does not identify them.) Papers use a level of
`LEVELS`, so that their results are comparable; docs/scenes.png shows the levels.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Generator, Tensor
from torch.nn import functional as F

from readtrack.data.shipped import digits, photographs

Part = Literal["train", "choose", "judge"]

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
BACKGROUNDS = ("temple", "flower")
PALETTE = {
    "red": (0.9, 0.15, 0.15),
    "green": (0.15, 0.8, 0.2),
    "blue": (0.2, 0.35, 1.0),
    "yellow": (0.95, 0.9, 0.15),
    "white": (0.95, 0.95, 0.95),
    "pink": (0.95, 0.4, 0.8),
    "black": (0.05, 0.05, 0.05),  # used by the level `hard` only
}
COLOURS = tuple(PALETTE)

_GLYPH = 40  # side of a glyph in pixels
_FIELD = 106  # side of a field in pixels: 4 x 6 fields fit into a photograph of 427 x 640
_TRIES = 12  # number of places tried for each digit
_CHUNK = 128  # scenes per batch; larger tensors are slower, because their memory pages are always new


@dataclass(frozen=True)
class Level:
    """The composition of scenes. Lengths are in pixels, pairs are minimum and maximum."""

    size: int = 32  # the scene's side, at most a field's
    objects: tuple[int, int] = (1, 1)
    digit: tuple[float, float] = (14, 22)  # height before rotation, log-uniform
    rotate: float = 20  # degrees in either direction
    fragments: tuple[int, int] = (0, 0)
    overlap: float = 0.15  # largest overlap of two digits, as a share of the smaller box
    classes: int = 10  # digits below this
    distinct: bool = True  # no digit twice in a scene
    two_coloured: bool = False  # a digit's lower half has another colour
    centred: bool = False  # the first digit is in the middle
    dim: float = 0.45  # factor for the photograph's brightness
    colours: int = 6  # number of `COLOURS` in use


LEVELS = {
    "photo": Level(),
    "cluttered": Level(fragments=(3, 3)),
    "scales": Level(digit=(8, 28)),
    "pair": Level(size=40, objects=(2, 2), fragments=(2, 2)),
    "few": Level(size=48, objects=(1, 3), fragments=(1, 1)),
    "many": Level(size=64, objects=(1, 5), digit=(10, 26), fragments=(4, 4)),
    "iconic": Level(size=64, digit=(28, 44), centred=True),
    "hard": Level(dim=1.0, colours=7),
}


@dataclass(frozen=True)
class Scenes:
    """N scenes of S x S pixels, up to K digits and D fragments. Boxes: x1, y1, x2, y2 in pixels, half-open.

    An absent digit has label and colour -1, a box of zeros and an empty mask. Boxes and masks cover the
    visible part, because later digits hide earlier ones. A two-coloured digit counts as having the colour of
    its upper half.
    """

    images: Float[Tensor, "N 3 S S"]  # in [0, 1]
    labels: Int64[Tensor, "N K"]  # the digit, 0 to 9
    colours: Int64[Tensor, "N K"]  # an index of `COLOURS`
    boxes: Float[Tensor, "N K 4"]
    masks: Bool[Tensor, "N K S S"]
    distractors: Float[Tensor, "N D 4"]  # boxes of the fragments
    background: Int64[Tensor, " N"]  # an index of `BACKGROUNDS`

    def __len__(self) -> int:
        return len(self.images)

    def classes(self) -> Int64[Tensor, "N S S"]:
        """The class of every pixel: 0 for the background (and fragments), else digit + 1."""
        return (self.masks * (self.labels + 1)[:, :, None, None]).sum(1)

    def captions(self) -> list[str]:
        """A caption that lists digits from left to right: "a red three and a blue seven on the flower"."""
        middles = (self.boxes[..., 0] + self.boxes[..., 2]).masked_fill(self.labels < 0, math.inf)
        order = middles.argsort(dim=1, stable=True)
        labels, colours = self.labels.gather(1, order).tolist(), self.colours.gather(1, order).tolist()
        captions = []
        for i, place in enumerate(self.background.tolist()):
            pairs = zip(colours[i], labels[i], strict=True)
            *others, last = [f"a {COLOURS[colour]} {DIGITS[label]}" for colour, label in pairs if label >= 0]
            start = f"{', '.join(others)} and " if others else ""
            captions.append(f"{start}{last} on the {BACKGROUNDS[place]}")
        return captions

    def coco(self) -> dict[str, Any]:
        """Images, annotations and categories in COCO's instance format; the category is digit + 1.

        Boxes are x, y, width, height; masks are uncompressed run lengths, column by column.
        """
        size = self.images.shape[-1]
        images = [
            {"id": i, "file_name": f"{i:06}.png", "width": size, "height": size} for i in range(len(self))
        ]
        annotations = []
        for number, (i, k) in enumerate((self.labels >= 0).nonzero().tolist()):
            x1, y1, x2, y2 = self.boxes[i, k].tolist()
            annotations.append(
                {
                    "id": number + 1,  # in COCO's evaluation annotation id 0 means no match
                    "image_id": i,
                    "category_id": int(self.labels[i, k]) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": int(self.masks[i, k].sum()),
                    "segmentation": {"size": [size, size], "counts": _run_lengths(self.masks[i, k])},
                    "iscrowd": 0,
                }
            )
        categories = [{"id": digit + 1, "name": name} for digit, name in enumerate(DIGITS)]
        return {"images": images, "annotations": annotations, "categories": categories}


def draw(count: int, seed: int, part: Part = "train", level: str = "photo", **changes: Any) -> Scenes:
    """`count` scenes of a level, with `changes` to it, determined by the arguments.

    Digits and then fragments are placed where they overlap earlier objects least, among twelve random places.
    Objects that still overlap too much are left out, except for the minimum number of digits. Colours
    contrast with the background. Raises KeyError or ValueError for a level, a part or a size that does not
    exist.
    """
    made = replace(LEVELS[level], **changes)
    if part not in get_args(Part):
        raise ValueError(f"part={part!r}: must be one of {', '.join(get_args(Part))}")
    if not 0 < made.size <= _FIELD:
        raise ValueError(f"size={made.size}: a field has only {_FIELD} pixels per side")
    generator = Generator().manual_seed((3 * seed + get_args(Part).index(part)) % 2**63)
    sizes = [min(_CHUNK, count - start) for start in range(0, count, _CHUNK)]
    chunks = [_chunk(n, part, made, generator) for n in sizes]
    return Scenes(*(torch.cat(field) for field in zip(*chunks, strict=True)))


def _chunk(n: int, part: Part, level: Level, generator: Generator) -> tuple[Tensor, ...]:
    """The fields of `Scenes` for n scenes."""
    most = level.objects[1]
    canvas, background = _backgrounds(n, part, level, generator)
    labels, things = _things(n, part, level, generator)

    colours = torch.empty_like(labels)
    top = torch.full((n, level.size**2), -1, dtype=torch.int8)  # the topmost thing at each pixel
    # Fragments come after the digits in every table, but below them in the picture.
    for k in [*range(most, len(things)), *range(most)]:
        colours[:, k] = _paint(canvas, things[k], level, generator)
        ink, pixels = things[k].ink, things[k].pixels
        top.scatter_(1, pixels, top.gather(1, pixels).where(ink <= 0.5, k))

    canvas += 0.03 * torch.randn(canvas.shape, generator=generator)
    images = canvas.clamp_(0, 1).view(n, 3, level.size, level.size)
    masks = top.view(n, 1, level.size, level.size) == torch.arange(len(things))[:, None, None]
    boxes = extents(masks)
    absent = boxes[:, :most, 2] == 0
    labels, colours = (table[:, :most].masked_fill(absent, -1) for table in (labels, colours))
    return images, labels, colours, boxes[:, :most], masks[:, :most], boxes[:, most:], background


# Placement


class _Thing(NamedTuple):
    """One digit or fragment in each of n scenes, on a patch of P pixels."""

    ink: Float[Tensor, "n P"]  # 0 to 1
    lower: Bool[Tensor, "n P"]  # pixels in the digit's lower half
    pixels: Int64[Tensor, "n P"]  # indices into the scene's S x S pixels


def _things(
    n: int, part: Part, level: Level, generator: Generator
) -> tuple[Int64[Tensor, "n things"], list[_Thing]]:
    """Labels and things: K digits, then D fragments, each placed with the least overlap."""
    glyphs, (most, pieces) = _glyphs(part), (level.objects[1], level.fragments[1])
    labels = torch.randint(level.classes, (n, most + pieces), generator=generator)
    if level.distinct:
        labels[:, :most] = torch.rand(n, level.classes, generator=generator).argsort(1)[:, :most]
    wanted = [
        torch.randint(least, largest + 1, (n,), generator=generator)
        for least, largest in (level.objects, level.fragments)
    ]
    things: list[_Thing] = []
    taken = torch.zeros(n, 1, 4)
    for k in range(most + pieces):
        whole, label = k < most, labels[:, k]
        # In float32 a number just below 1 could round up to the next class's first glyph.
        drawn = torch.rand(n, generator=generator, dtype=torch.float64) * glyphs.number[label]
        glyph = glyphs.first[label] + drawn.long()
        height = level.digit[0] * (level.digit[1] / level.digit[0]) ** torch.rand(n, generator=generator)
        angle = math.radians(level.rotate) * (2 * torch.rand(n, generator=generator) - 1)
        zoom = glyphs.height[glyph] / height
        extent = glyphs.extent[glyph]
        shown = extent if whole else _half(extent, generator)

        low, high = _reach(glyphs.spans[glyph], shown, zoom, angle)
        middle = _place(high - low, taken, level.size, generator)
        if k == 0 and level.centred:
            middle = torch.full_like(middle, level.size / 2)

        side = min(level.size, math.ceil((high - low).max()) + 2)
        corner = (middle - side / 2).round().long().clamp(0, level.size - side)
        u, v = _look_up(middle - (low + high) / 2 - corner, shown, zoom, angle, side)
        ink = _ink(glyphs.ink, glyph, shown, u, v)
        box = extents(ink > 0.5) + torch.cat((corner, corner), 1)
        fits = (_shares(box[:, None], taken) <= level.overlap).squeeze(1)
        if whole:
            present = (k < wanted[0]) & (fits | (k < level.objects[0]))
        else:
            present = (k - most < wanted[1]) & fits
        taken = torch.cat((taken, (box * present[:, None])[:, None]), 1)
        columns, rows = (corner[:, :, None] + torch.arange(side)).unbind(1)
        pixels = rows[:, :, None] * level.size + columns[:, None]
        waist = ((extent[:, 1] + extent[:, 3]) / 2)[:, None, None]
        patch = (ink * present[:, None, None], v >= waist, pixels)
        things.append(_Thing(*(field.flatten(1) for field in patch)))
    return labels, things


def _half(extent: Float[Tensor, "n 4"], generator: Generator) -> Float[Tensor, "n 4"]:
    """A random half of each box: left, upper, right or lower."""
    rows, side = torch.arange(len(extent)), torch.randint(4, (len(extent),), generator=generator)
    half = extent.clone()
    half[rows, (side + 2) % 4] = (extent[rows, side] + extent[rows, (side + 2) % 4]) / 2
    return half


def _reach(
    spans: Float[Tensor, "n 40 2"],
    shown: Float[Tensor, "n 4"],
    zoom: Float[Tensor, " n"],
    angle: Float[Tensor, " n"],
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2"]]:
    """Extent of the rotated ink around the centre of `shown`, to the upper left and lower right."""
    x1, y1, x2, y2 = shown[..., None].unbind(1)
    rows = torch.arange(_GLYPH) + 0.5
    ends = spans.clamp(x1[..., None], x2[..., None])
    used = (ends[..., 0] < ends[..., 1]) & (rows >= y1) & (rows < y2)
    across, down = ends - ((x1 + x2) / 2)[..., None], (rows - (y1 + y2) / 2)[..., None]
    cos, sin = (angle.cos() / zoom)[:, None, None], (angle.sin() / zoom)[:, None, None]
    points = torch.stack((cos * across - sin * down, sin * across + cos * down), -1)
    unused = ~used[..., None, None]
    return (
        points.masked_fill(unused, math.inf).amin((1, 2)),
        points.masked_fill(unused, -math.inf).amax((1, 2)),
    )


def _place(
    reach: Float[Tensor, "n 2"], taken: Float[Tensor, "n m 4"], size: int, generator: Generator
) -> Float[Tensor, "n 2"]:
    """The one of twelve random centres where a box of size `reach` overlaps `taken` least."""
    room = (size - reach).clamp(min=0)[:, None]
    tries = torch.rand(len(reach), _TRIES, 2, generator=generator)
    centres = (size - room) / 2 + tries * room
    boxes = torch.cat((centres - reach[:, None] / 2, centres + reach[:, None] / 2), 2)
    return centres[torch.arange(len(reach)), _shares(boxes, taken).argmin(1)]


def _shares(boxes: Float[Tensor, "n t 4"], taken: Float[Tensor, "n m 4"]) -> Float[Tensor, "n t"]:
    """The largest intersection of each box with one of `taken`, relative to the smaller of the two."""
    mine, theirs = boxes[:, :, None], taken[:, None]
    low, high = torch.maximum(mine[..., :2], theirs[..., :2]), torch.minimum(mine[..., 2:], theirs[..., 2:])
    areas = [(box[..., 2:] - box[..., :2]).prod(-1) for box in (mine, theirs)]
    # Absent things have area 0. The clamp gives 0 for them instead of 0 / 0.
    return ((high - low).clamp(min=0).prod(-1) / torch.minimum(*areas).clamp(min=1e-6)).amax(2)


# Drawing


def _backgrounds(
    n: int, part: Part, level: Level, generator: Generator
) -> tuple[Float[Tensor, "n 3 S*S"], Int64[Tensor, " n"]]:
    """Randomly mirrored crops of fields with random contrast and brightness, and their photographs."""
    fields, origin = _fields(part)
    field = torch.randint(len(origin), (n,), generator=generator)
    corner = torch.randint(_FIELD - level.size + 1, (n, 2), generator=generator)
    mirrored = torch.rand(n, 1, generator=generator) < 0.5
    contrast = 0.6 + 0.8 * torch.rand(n, 1, 1, generator=generator)
    brightness = 0.3 * torch.rand(n, 1, 1, generator=generator) - 0.15

    along = torch.arange(level.size)
    rows, columns = corner[:, :1] + along, corner[:, 1:] + torch.where(mirrored, along.flip(0), along)
    pixels = (field * _FIELD**2)[:, None, None] + rows[:, :, None] * _FIELD + columns[:, None]
    crops = fields.index_select(1, pixels.flatten()).view(3, n, -1).transpose(0, 1)
    mean = crops.mean((1, 2), keepdim=True)
    canvas = level.dim * (mean + contrast * (crops - mean) + brightness).clamp(0, 1)
    return canvas.contiguous(), origin[field]


def _look_up(
    centre: Float[Tensor, "n 2"],
    shown: Float[Tensor, "n 4"],
    zoom: Float[Tensor, " n"],
    angle: Float[Tensor, " n"],
    side: int,
) -> tuple[Float[Tensor, "n side side"], Float[Tensor, "n side side"]]:
    """Glyph coordinates (across, down) of a patch's pixels; `centre` maps to the centre of `shown`."""
    pixels = torch.arange(side) + 0.5
    dx, dy = pixels - centre[:, :1], pixels - centre[:, 1:]
    cos, sin = (zoom * angle.cos())[:, None], (zoom * angle.sin())[:, None]
    across, down = ((shown[:, :2] + shown[:, 2:]) / 2)[..., None].unbind(1)
    u = (across + cos * dx)[:, None, :] + (sin * dy)[:, :, None]
    v = (down - sin * dx)[:, None, :] + (cos * dy)[:, :, None]
    return u, v


def _ink(
    glyphs: Float[Tensor, "glyphs 40 40"],
    glyph: Int64[Tensor, " n"],
    shown: Float[Tensor, "n 4"],
    u: Float[Tensor, "n side side"],
    v: Float[Tensor, "n side side"],
) -> Float[Tensor, "n side side"]:
    """The glyph's ink at u, v (nearest neighbour), zero outside of `shown`."""
    x1, y1, x2, y2 = shown[:, :, None, None].unbind(1)
    inside = (u >= x1) & (u < x2) & (v >= y1) & (v < y2)
    cell = v.long().clamp_(0, _GLYPH - 1).mul_(_GLYPH) + u.long().clamp_(0, _GLYPH - 1)
    return glyphs.take(cell.add_(glyph[:, None, None] * _GLYPH**2)) * inside


def _paint(
    canvas: Float[Tensor, "n 3 S*S"], thing: _Thing, level: Level, generator: Generator
) -> Int64[Tensor, " n"]:
    """Paint a thing onto the canvas in a contrasting colour, and return that colour (of the upper half)."""
    pixels, ink = thing.pixels[:, None].expand(-1, 3, -1), thing.ink[:, None]
    patch = canvas.gather(2, pixels)
    under = patch @ (thing.ink / thing.ink.sum(1, keepdim=True).clamp(min=1e-6))[..., None]
    name, value = _colour(under.mT, level.colours, generator)
    paint = value[..., None]
    if level.two_coloured:
        _, second = _colour(torch.cat((under.mT, value[:, None]), 1), level.colours, generator)
        paint = torch.where(thing.lower[:, None], second[..., None], paint)
    canvas.scatter_(2, pixels, patch + ink * (paint - patch))
    return name


def _colour(
    avoid: Float[Tensor, "n m 3"], colours: int, generator: Generator
) -> tuple[Int64[Tensor, " n"], Float[Tensor, "n 3"]]:
    """Name and value of the first of four random colours 0.5 away from all of `avoid`, or the farthest."""
    rows = torch.arange(len(avoid))
    names = torch.randint(colours, (len(avoid), 4), generator=generator)
    jitter = 0.2 * torch.rand(len(avoid), 4, 3, generator=generator) - 0.1
    values = (torch.tensor(list(PALETTE.values()))[names] + jitter).clamp(0, 1)
    away = torch.cdist(values, avoid).amin(2)
    shows = away >= 0.5
    pick = torch.where(shows.any(1), shows.int().argmax(1), away.argmax(1))
    return names[rows, pick], values[rows, pick]


def extents(masks: Bool[Tensor, "*many height width"]) -> Float[Tensor, "*many 4"]:
    """The tight boxes of masks: x1, y1, x2, y2 in pixels, half-open; zeros for an empty mask."""
    sides = []
    for line in (masks.view(torch.uint8).amax(-2), masks.view(torch.uint8).amax(-1)):
        first, last = line.argmax(-1), line.shape[-1] - line.flip(-1).argmax(-1)
        sides.append((first, last))
    (x1, x2), (y1, y2) = sides
    return torch.stack((x1, y1, x2, y2), -1).float() * masks.flatten(-2).any(-1, keepdim=True)


def _run_lengths(mask: Bool[Tensor, "height width"]) -> list[int]:
    """The lengths of the runs of 0, 1, 0, ... down the columns; the first may be 0."""
    pixels = F.pad(mask.T.flatten().int(), (1, 0))
    edges = (pixels[1:] != pixels[:-1]).nonzero().squeeze(1).tolist()
    return [after - before for before, after in itertools.pairwise([0, *edges, mask.numel()])]


# The sources, prepared once


class _Glyphs(NamedTuple):
    """The digits of a part, sorted by class."""

    ink: Float[Tensor, "glyphs 40 40"]  # 0 to 1
    extent: Float[Tensor, "glyphs 4"]  # bounding box of the ink with soft edges: x1, y1, x2, y2
    spans: Float[Tensor, "glyphs 40 2"]  # start and end of each row's ink, without soft edges
    height: Float[Tensor, " glyphs"]  # without soft edges
    first: Int64[Tensor, " classes"]  # index of a class's first glyph
    number: Int64[Tensor, " classes"]  # number of glyphs per class


@functools.cache
def _glyphs(part: Part) -> _Glyphs:
    images, labels = digits()
    rows = digit_rows(part)
    number = labels[rows].bincount(minlength=10)
    padded = F.pad(images[rows, None], (1, 1, 1, 1))
    large = F.interpolate(padded, size=(_GLYPH, _GLYPH), mode="bicubic").squeeze(1)
    crisp, blank = torch.sigmoid(10 * (large - 0.42)), 1 / (1 + math.exp(4.2))
    ink = ((crisp - blank) / (1 - blank)).clamp(0, 1)
    spans = extents(ink[:, :, None] > 0.5)[..., [0, 2]]
    core = extents(ink > 0.5)
    return _Glyphs(ink, extents(ink > 0), spans, core[:, 3] - core[:, 1], number.cumsum(0) - number, number)


def digit_rows(part: Part) -> Int64[Tensor, " rows"]:
    """A part's rows of `readtrack.data.digits`, sorted by class. Train has two thirds, the others a sixth."""
    _, labels = digits()
    shuffle = Generator().manual_seed(0)
    place = get_args(Part).index(part)
    rows = []
    for label in range(10):
        mine = (labels == label).nonzero().squeeze(1)
        mine = mine[torch.randperm(len(mine), generator=shuffle)]
        cuts = (0, len(mine) * 2 // 3, len(mine) * 5 // 6, len(mine))
        rows.append(mine[cuts[place] : cuts[place + 1]])
    return torch.cat(rows)


@functools.cache
def _fields(part: Part) -> tuple[Float[Tensor, "3 pixels"], Int64[Tensor, " fields"]]:
    """A part's fields (32, 8 or 8 of 48), concatenated, and the photograph of each."""
    pictures = photographs()
    corners = list(itertools.product(range(2), range(0, 4 * _FIELD, _FIELD), range(0, 6 * _FIELD, _FIELD)))
    order = torch.randperm(len(corners), generator=Generator().manual_seed(0)).tolist()
    mine = {"train": order[:32], "choose": order[32:40], "judge": order[40:]}[part]
    fields = [pictures[p, :, y : y + _FIELD, x : x + _FIELD] for p, y, x in (corners[i] for i in mine)]
    return torch.stack(fields, 1).flatten(1), torch.tensor([corners[i][0] for i in mine])
