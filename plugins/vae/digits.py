"""Binary digits that move on a canvas."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from readtrack.plugin import Run

from .model import Images


class Digits(NamedTuple):
    """Flattened binary digits. Those for training are shown at all positions."""

    train: Float[Tensor, "train pixels"]
    choose: Float[Tensor, "choose pixels"]
    judge: Float[Tensor, "judge pixels"]


def moved(images: Float[Tensor, "n 1 side side"]) -> Float[Tensor, "9 n pixels"]:
    """The images on a canvas that is two pixels wider and higher, at each of the nine positions."""
    side = images.shape[-1] + 2
    canvas = F.pad(images, (2, 2, 2, 2))
    places = [canvas[..., y : y + side, x : x + side] for y in range(3) for x in range(3)]
    return torch.stack(places).flatten(2)


def draw_digits(run: Run) -> Digits:
    """Split the digits, and move them."""
    at_most = run.pick(smoke=5_000, quick=5_000, full=20_000)
    source = run.source("images", at_most=at_most, choose=0.1, judge=0.4)
    source = source.grey(run.pick(smoke=14, quick=14, full=28))
    train, choose, judge = (moved((images > 0.5).to(run.device, run.dtype)) for images, _ in source.parts)

    def at_random(digits: Float[Tensor, "9 n pixels"], part: Literal["choose", "judge"]) -> Images:
        places = torch.randint(9, (digits.shape[1],), generator=run.data(f"places to {part}", part))
        return digits[places.to(digits.device), torch.arange(digits.shape[1], device=digits.device)]

    return Digits(train.flatten(0, 1), at_random(choose, "choose"), at_random(judge, "judge"))
