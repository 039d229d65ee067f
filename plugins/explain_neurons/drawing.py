"""Draws text on coloured backgrounds that show a neuron's activations and their simulation."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

WIDE, HIGH, MARGIN = 9, 16, 6  # pixels: of a character's cell, and around the page
PAPER, INK = (255, 255, 255), (20, 20, 20)
ORANGE, BLUE = (255, 140, 0), (70, 140, 255)


class Seen(NamedTuple):
    """A neuron on one text. Activations and their simulation are between 0 and 1."""

    title: str
    text: str
    real: list[float]
    simulated: list[float]


def page(neurons: Sequence[Seen]) -> Float[Tensor, "3 height width"]:
    """Draws each neuron's title, and its text coloured by activations (orange) and by simulation (blue)."""
    columns = max(max(len(one.text), len(one.title)) for one in neurons)
    size = 2 * MARGIN + WIDE * columns, 2 * MARGIN + 4 * HIGH * len(neurons)
    picture = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default()
    for number, one in enumerate(neurons):
        top = MARGIN + 4 * HIGH * number
        draw.text((MARGIN, top + 2), one.title, INK, font)
        for row, (values, colour) in enumerate(((one.real, ORANGE), (one.simulated, BLUE)), 1):
            for place, (sign, value) in enumerate(zip(one.text, values, strict=True)):
                x, y = MARGIN + WIDE * place, top + HIGH * row
                mixed = tuple(round(p + value * (c - p)) for p, c in zip(PAPER, colour, strict=True))
                draw.rectangle((x, y, x + WIDE - 1, y + HIGH - 2), mixed)
                draw.text((x + 2, y + 1), sign, INK, font)
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return pixels.view(size[1], size[0], 3).permute(2, 0, 1) / 255
