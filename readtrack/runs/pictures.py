"""Tensors as PNG files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def save_png(path: Path, pixels: torch.Tensor, *, columns: int | None = None) -> tuple[int, int]:
    """Write (h, w), (c, h, w) or (n, c, h, w) values in [0, 1], c in {1, 3}.

    A batch becomes a grid of `columns`, or a nearly square one. Returns its rows and columns.
    """
    from PIL import Image

    image = pixels.detach().float().cpu().clamp(0, 1).nan_to_num(0)
    while image.ndim < 4:
        image = image.unsqueeze(0)
    count, channels, height, width = image.shape
    if channels not in (1, 3):
        raise ValueError(f"an image has 1 or 3 channels, not {channels} (shape {tuple(pixels.shape)})")
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    gap = 1 if count > 1 else 0
    grid = image.new_ones(channels, rows * (height + gap) - gap, columns * (width + gap) - gap)
    for index, tile in enumerate(image):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        grid[:, top : top + height, left : left + width] = tile
    values = (grid * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(values[:, :, 0] if channels == 1 else values).save(path)
    return rows, columns
