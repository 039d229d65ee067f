"""Computes table 1: which changes to a layer's weights and inputs leave its output unchanged.

Each normalisation is a row. The layer under test is a 1 × 1 convolution without a bias, followed by the
normalisation. The inputs are small images, so normalisations over positions can also be tested.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from readtrack.plugin import Run

KEPT = 1e-4  # relative to the largest value, to allow for rounding


class Layer(NamedTuple):
    """The weights and inputs that a column changes. Only the first example's result is compared."""

    weight: Float[Tensor, "features inputs 1 1"]
    x: Float[Tensor, "batch inputs height width"]


Draw = Callable[..., Tensor]  # maps a shape to standard normal numbers


def _first_example(x: Tensor, changed: Tensor) -> Tensor:
    return torch.cat((changed[:1], x[1:]))


def _first_unit(weight: Tensor, changed: Tensor) -> Tensor:
    return torch.cat((changed[:1], weight[1:]))


CHANGES: Mapping[str, Callable[[Layer, Draw], Layer]] = {
    "all weights × 3": lambda layer, draw: Layer(layer.weight * 3, layer.x),
    "all weights + a vector": lambda layer, draw: Layer(layer.weight + draw(*layer.weight[0].shape), layer.x),
    "one unit's weights × 3": lambda layer, draw: Layer(_first_unit(layer.weight, layer.weight * 3), layer.x),
    "all examples × 3": lambda layer, draw: Layer(layer.weight, layer.x * 3),
    "all examples + a vector": lambda layer, draw: Layer(
        layer.weight, layer.x + draw(layer.x.shape[1], 1, 1)
    ),
    "this example × 3": lambda layer, draw: Layer(layer.weight, _first_example(layer.x, layer.x * 3)),
    "other examples": lambda layer, draw: Layer(layer.weight, _first_example(draw(*layer.x.shape), layer.x)),
}
IN_USE = "in use, not training"


def changes(run: Run, norm: Callable[[int], nn.Module]) -> dict[str, float]:
    """Largest relative change of the first example's result, for each change of the layer and between
    training and inference. `norm` maps a number of features to a normalisation of feature maps with `eps`
    0."""
    batch, inputs, features, side = 8, 12, 16, 3
    layer_norm = norm(features).to(run.device, run.dtype)
    generator = run.generator("invariances")

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(run.device, run.dtype)

    def result(layer: Layer) -> Tensor:
        with torch.no_grad():
            return layer_norm(F.conv2d(layer.x, layer.weight))[0]

    layer = Layer(draw(features, inputs, 1, 1), draw(batch, inputs, side, side) + draw(inputs, 1, 1))
    before = result(layer)
    after = {name: result(change(layer, draw)) for name, change in CHANGES.items()}
    layer_norm.eval()
    after[IN_USE] = result(layer)
    return {name: ((y - before).abs().max() / before.abs().max()).item() for name, y in after.items()}


def show(run: Run, rows: Mapping[str, Mapping[str, float]]) -> None:
    """Save the table. A tick marks an unchanged output."""
    columns = [*CHANGES, IN_USE]
    ticks = [
        [name, *("✓" if row[column] <= KEPT else "✗" for column in columns)] for name, row in rows.items()
    ]
    run.table(
        "invariances",
        ["norm", *columns],
        ticks,
        caption="Table 1 of the paper on layer normalisation, recomputed. A tick means that the output "
        "is unchanged. The last column compares inference with training.",
    )


class OverFeatures(nn.Module):
    """Applies a normalisation of vectors to feature maps, where each position is a vector of features."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(
        self, x: Float[Tensor, "batch features height width"]
    ) -> Float[Tensor, "batch features height width"]:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)
