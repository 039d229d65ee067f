"""A sheet of example scenes: `python -m readtrack.data.sheet docs/scenes.png`, one row for each level."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from readtrack.data import scenes

_ROW = 64  # pixels of a row's height, as in the largest scenes
_WIDTH = 12 * _ROW
_LIME, _GREY = (0.4, 1.0, 0.2), (0.6, 0.6, 0.6)


def sheet(seed: int = 0) -> UInt8[Tensor, "height width 3"]:
    """For each level a row of scenes and a row with boxes around digits (lime) and fragments (grey)."""
    rows = []
    for level, made in scenes.LEVELS.items():
        found = scenes.draw(_WIDTH // made.size, seed, level=level)
        boxed = found.images.clone()
        for boxes, colour in ((found.distractors, _GREY), (found.boxes, _LIME)):
            for image, mine in zip(boxed, boxes.long().tolist(), strict=True):
                for x1, y1, x2, y2 in mine:
                    if x2:
                        _frame(image, (x1, y1, x2 - 1, y2 - 1), torch.tensor(colour))
        for images in (found.images, boxed):
            row = torch.cat(list(images), 2)
            rows.append(F.pad(row, (0, _WIDTH - row.shape[2], 0, 2), value=1.0))
    return (torch.cat(rows, 1) * 255).round().byte().permute(1, 2, 0).contiguous()


def _frame(image: Tensor, box: tuple[int, int, int, int], colour: Tensor) -> None:
    x1, y1, x2, y2 = box
    for y in (y1, y2):
        image[:, y, x1 : x2 + 1] = colour[:, None]
    for x in (x1, x2):
        image[:, y1 : y2 + 1, x] = colour[:, None]


def main(path: Path) -> None:
    """Write the sheet at double size in 64 colours; the full palette takes four times the space."""
    picture = Image.fromarray(sheet().numpy()).quantize(64)
    size = (2 * picture.width, 2 * picture.height)
    picture.resize(size, Image.Resampling.NEAREST).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
