"""Implements the all-convolutional network of table 2, and guided backpropagation's rule for a ReLU.

Dimensions: batch, maps (channels), rows, columns, classes.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

Kind = Literal["model", "strided", "conv-pool", "all-conv"]


def guided(signal: Tensor, x: Tensor) -> Tensor:
    """Section 4: the backward signal at a ReLU, kept where the signal and the ReLU's input are positive."""
    return signal.relu() * (x > 0)


class AllConvNet(nn.Module):
    """Model C of table 1 and the networks that table 2 derives from it, for 32 × 32 images.

    The third 3 × 3 convolution has no padding, so logits are averaged over 6 × 6 positions.

    kind     "model": 3 × 3 max-pooling with stride 2 after each of two pairs of convolutions; "strided": the
             second convolution of each pair has stride 2 instead; "conv-pool": one more convolution before
             each pooling; "all-conv": a 3 × 3 convolution with stride 2 in place of each pooling
    dropout  20 % of the input, 50 % after each reduction (section 3.1); False disables it
    """

    def __init__(
        self, kind: Kind = "all-conv", *, classes: int = 10, maps: int = 96, dropout: bool = True
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Dropout(0.2 if dropout else 0.0))
        inputs = 3
        for width in (maps, 2 * maps):
            self.extend(inputs, width)
            self.extend(width, width, stride=2 if kind == "strided" else 1)
            if kind == "conv-pool":
                self.extend(width, width)
            if kind == "all-conv":
                self.extend(width, width, stride=2)
            if kind in ("model", "conv-pool"):
                self.layers.append(nn.MaxPool2d(3, stride=2, padding=1))
            self.layers.append(nn.Dropout(0.5 if dropout else 0.0))
            inputs = width
        self.extend(inputs, inputs, padding=0)
        self.extend(inputs, inputs, size=1)
        self.extend(inputs, classes, size=1)
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d) and not layer.weight.is_meta:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def extend(
        self, inputs: int, outputs: int, *, size: int = 3, stride: int = 1, padding: int | None = None
    ) -> None:
        """Append a convolution and a ReLU. The default padding keeps the size."""
        padding = size // 2 if padding is None else padding
        convolution = nn.Conv2d(inputs, outputs, size, stride=stride, padding=padding)
        self.layers.extend((convolution, nn.ReLU()))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch classes"]:
        """Logits: the mean of the last maps over all positions, one map per class."""
        return self.layers(images).mean((2, 3))
