"""Lists the normalisation layers in the order of their papers, with the problems that they address and their
invariances.

The columns are those of table 1 in the layer normalisation paper, computed in the same way for all layers.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from readtrack.plugin import Bound, Claim, Figure, Run

from ..batchnorm import BatchNorm
from ..groupnorm import GroupNorm
from ..instancenorm import InstanceNorm
from ..layernorm import LayerNorm
from ..layernorm.invariances import CHANGES, IN_USE, KEPT, Layer, OverFeatures, changes, show
from ..qk_norm import normalised
from ..rmsnorm import RMSNorm
from ..weightnorm import WeightNorm
from .model import DynamicTanh

NO_STATISTICS = Claim(
    name="independence of statistics",
    sentence="Dynamic tanh is elementwise. An example's output depends on the example's scale but not on "
    "other examples, and is the same in training and evaluation.",
    paper=Figure(
        "Dynamic tanh is an element-wise operation in place of normalisation",
        where="abstract",
        read="abstract",
    ),
    rule=(
        Bound("dynamic tanh: other examples", "==", 0.0),
        Bound(f"dynamic tanh: {IN_USE}", "==", 0.0),
        Bound("dynamic tanh: this example × 3", ">=", 0.1),
        Bound("layer norm: this example × 3", "<=", KEPT),
        Bound("query-key norm: this example × 3", "<=", KEPT),
        Bound("weight norm: one unit's weights × 3", "<=", KEPT),
        Bound("batch norm: other examples", ">", 0.1),
    ),
    kind="identity",
    control="earlier normalisation methods",
)

# Year, the axes of the statistics, and the problem of earlier layers that the layer addresses.
STORY = {
    "batch norm": (
        2015,
        "a feature, over the batch",
        "deep networks train slowly, and fail at high learning rates",
    ),
    "weight norm": (
        2016,
        "none: a unit's weights are split into length and direction",
        "with batch norm, every example depends on the other examples in the batch",
    ),
    "layer norm": (
        2016,
        "all features of one example",
        "batch norm needs large batches, and separate statistics for each step of a recurrent network",
    ),
    "instance norm": (
        2016,
        "one channel of one image",
        "batch norm mixes the contrasts of the images in a batch, and uses running averages in evaluation",
    ),
    "group norm": (
        2018,
        "a group of channels of one image",
        (
            "layer norm normalises all channels together, instance norm each channel alone, and batch norm "
            "fails with small batches"
        ),
    ),
    "RMSNorm": (
        2019,
        "the mean square of one example",
        "layer norm's mean costs time and is not needed",
    ),
    "query-key norm": (
        2020,
        "a query or a key of one head",
        "layer norm before the projections does not bound the attention scores",
    ),
    "dynamic tanh": (
        2025,
        "none: elementwise",
        "layer norm computes statistics, which are not needed to squash large values",
    ),
}


class OverHeads(nn.Module):
    """Query-key normalisation of vectors: four heads of equal size, each normalised to length 1."""

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
        heads = x.flatten(0, -2).unflatten(-1, (4, -1))[:, :, None]
        return normalised(heads).view_as(x)


Norm = Callable[[int], nn.Module]

NORMS: dict[str, Norm] = {
    "batch norm": partial(BatchNorm, eps=0.0),
    "layer norm": lambda features: OverFeatures(LayerNorm(features, eps=0.0)),
    "instance norm": partial(InstanceNorm, eps=0.0),
    "group norm": partial(GroupNorm, 4, eps=0.0),
    "RMSNorm": lambda features: OverFeatures(RMSNorm(features, eps=0.0)),
    "query-key norm": lambda features: OverFeatures(OverHeads()),
    "dynamic tanh": lambda features: OverFeatures(DynamicTanh(features)),
}


def tell(run: Run) -> None:
    """Save the history and the table of invariances, and judge the claim."""
    rows = {"none": changes(run, lambda features: nn.Identity())}
    for name in STORY:
        rows[name] = changes_of_weight_norm(run) if name == "weight norm" else changes(run, NORMS[name])
    run.text(
        "normalisation layers by year",
        "\n".join(
            f"{year}  {name}\n  statistics of  {over}\n  problem  {mended}"
            for name, (year, over, mended) in STORY.items()
        ),
        caption="The normalisation layers in the order of their papers.",
    )
    show(run, rows)
    values = {f"{name}: {change}": value for name, row in rows.items() for change, value in row.items()}
    run.claim(NO_STATISTICS, {metric: values[metric] for metric in NO_STATISTICS.metrics})


def changes_of_weight_norm(run: Run) -> dict[str, float]:
    """`changes` for weight normalisation, which normalises weights. Changes apply to v, and g stays."""
    generator = run.generator("weights and maps")

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(run.device, run.dtype)

    first = Layer(draw(16, 12, 1, 1), draw(8, 12, 3, 3) + draw(12, 1, 1))
    layer = WeightNorm(nn.Conv2d(12, 16, 1)).to(run.device, run.dtype)

    @torch.no_grad()
    def result(changed: Layer) -> Tensor:
        layer.weight_v.copy_(changed.weight)
        return layer(changed.x)[0]

    before = result(first)
    after = {name: result(change(first, draw)) for name, change in CHANGES.items()}
    layer.eval()
    after[IN_USE] = result(first)
    return {name: ((y - before).abs().max() / before.abs().max()).item() for name, y in after.items()}
