"""Draws boxes on images."""

import colorsys
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image, ImageDraw
from torch import Tensor


def drawn(
    image: Float[Tensor, "3 side side"],
    boxes: Float[Tensor, "n 4"],
    labels: Int64[Tensor, " n"],
    names: Sequence[str],
    *,
    enlarge: int = 1,
) -> Float[Tensor, "3 _ _"]:
    """The image, enlarged, with each object's box and name in the colour of its class."""
    pixels = (image.float().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    size = (image.shape[2] * enlarge, image.shape[1] * enlarge)
    canvas = Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(canvas)
    for (x1, y1, x2, y2), label in zip((boxes * enlarge).tolist(), labels.tolist(), strict=True):
        colour = tuple(round(255 * part) for part in colorsys.hsv_to_rgb(label * 0.618 % 1, 0.75, 1.0))
        x1, y1 = max(0.0, x1), max(0.0, y1)
        x2, y2 = max(x1, min(size[0] - 1, x2 - 1)), max(y1, min(size[1] - 1, y2 - 1))
        draw.rectangle((x1, y1, x2, y2), outline=colour, width=2)
        draw.text((x1 + 3, y1 + 1), names[label], fill=colour, stroke_width=1, stroke_fill="black")
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1).float() / 255
