"""Tensors as PNG files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def save_png(
    path: Path, pixels: torch.Tensor, *, columns: int | Sequence[str] | None = None, rows: Sequence[str] = ()
) -> dict[str, int | Sequence[str]]:
    """Write values in [0, 1] of shape (h, w), (c, h, w) or (n, c, h, w), c in {1, 3}, as a PNG.

    A batch becomes a grid of `columns`, by default nearly square. The result holds fields of the artifact's
    event (`readtrack.runs.events.Artifact`). Raises ValueError if the numbers of rows and names differ.
    """
    from PIL import Image

    image = pixels.detach().float().cpu().clamp(0, 1).nan_to_num(0)
    while image.ndim < 4:
        image = image.unsqueeze(0)
    count, channels, height, width = image.shape
    if channels not in (1, 3):
        raise ValueError(f"an image has 1 or 3 channels, not {channels} (shape {tuple(pixels.shape)})")
    names = () if columns is None or isinstance(columns, int) else columns
    asked = columns if isinstance(columns, int) else len(names)
    across = 1 if count == 1 else asked or math.ceil(math.sqrt(count))
    down = math.ceil(count / across)
    if count > 1 and len(rows) not in (0, down):
        raise ValueError(f"the grid has {down} rows, but {len(rows)} names for them")
    gap = 1 if count > 1 else 0
    grid = image.new_ones(channels, down * (height + gap) - gap, across * (width + gap) - gap)
    for index, tile in enumerate(image):
        top, left = index // across * (height + gap), index % across * (width + gap)
        grid[:, top : top + height, left : left + width] = tile
    values = (grid * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(values[:, :, 0] if channels == 1 else values).save(path)
    grid_of: dict[str, int | Sequence[str]] = {"rows": down, "columns": across} if count > 1 else {}
    return {**grid_of, "row_names": list(rows), "column_names": list(names)}
