"""Implements figure 2: two columns of convolutions, response normalisation, and overlapping pooling.

Dimensions: batch, maps (channels), rows, columns, side of a square image.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

Maps = Float[Tensor, "batch maps rows columns"]


def response_norm(a: Maps, *, n: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75) -> Maps:
    """Section 3.3: divides each activation by a function of the n neighbouring maps at its position.

    `alpha` is the paper's α. torch's LocalResponseNorm divides its alpha by n. Computes in float32 or wider,
    because squares overflow in half precision.
    """
    # a / (k + α × the sum of the squares)^β
    wide = a.float() if a.dtype.itemsize < 4 else a
    squares, maps = wide.square(), a.shape[1]
    total = squares.clone()
    for away in range(1, min(n // 2 + 1, maps)):
        total[:, away:] += squares[:, :-away]
        total[:, :-away] += squares[:, away:]
    scale = total.mul_(alpha).add_(k)
    if beta == 0.75:  # two roots are much faster than a power
        root = scale.rsqrt()
        return (wide * (root * root.sqrt())).to(a.dtype)
    return (wide * scale.pow(-beta)).to(a.dtype)


class ResponseNorm(nn.Module):
    """`response_norm` with the paper's constants."""

    def forward(self, a: Maps) -> Maps:
        return response_norm(a)


class AlexNet(nn.Module):
    """Figure 2: from images to logits.

    widths   number of maps of each convolution, in both columns together
    hidden   units of each of the two hidden layers
    side     image side; 227 gives the paper's layer sizes, but 224, the size in the paper's text, does not
    dropout  fraction of each hidden layer's outputs dropped in training (section 4.2)
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (96, 256, 384, 384, 256),
        hidden: int = 4096,
        classes: int = 1000,
        side: int = 227,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        first, second, third, fourth, fifth = widths
        self.conv1 = nn.Conv2d(3, first, 11, stride=4)
        # Only the third convolution reads the maps of both columns (both GPUs).
        self.conv2 = nn.Conv2d(first, second, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(second, third, 3, padding=1)
        self.conv4 = nn.Conv2d(third, fourth, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(fourth, fifth, 3, padding=1, groups=2)
        self.norm = ResponseNorm()
        self.pool = nn.MaxPool2d(3, stride=2)
        self.dropout = nn.Dropout(dropout)
        last = final_side(side)
        self.hidden1 = nn.Linear(fifth * last**2, hidden)
        self.hidden2 = nn.Linear(hidden, hidden)
        self.scores = nn.Linear(hidden, classes)
        self.init_weights()

    def init_weights(self) -> None:
        """Section 5: weights have a standard deviation of 0.01, and biases are 1 in half of the layers."""
        for name, layer in self.named_children():
            if isinstance(layer, nn.Conv2d | nn.Linear) and not layer.weight.is_meta:
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.constant_(
                    layer.bias, float(name in ("conv2", "conv4", "conv5", "hidden1", "hidden2"))
                )

    def features(self, images: Float[Tensor, "batch 3 side side"]) -> Maps:
        """Pooled maps of the fifth convolution."""
        x = self.pool(self.norm(self.conv1(images).relu()))
        x = self.pool(self.norm(self.conv2(x).relu()))
        x = self.conv3(x).relu()
        x = self.conv4(x).relu()
        return self.pool(self.conv5(x).relu())

    def forward(self, images: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch classes"]:
        x = self.dropout(self.hidden1(self.features(images).flatten(1)).relu())
        return self.scores(self.dropout(self.hidden2(x).relu()))


def final_side(side: int) -> int:
    """Side of the last maps. Raises ValueError if the images are too small."""
    last = (side - 11) // 4 + 1
    for _ in range(3):
        last = (last - 3) // 2 + 1
    if last < 1:
        raise ValueError(f"images of side {side} are too small: the side must be at least 67")
    return last


def neurons(network: AlexNet, side: int) -> list[int]:
    """Number of neurons in each layer, from the first convolution to the logits."""
    rows = (side - 11) // 4 + 1
    sides = [rows, (rows - 3) // 2 + 1]
    sides += [(sides[1] - 3) // 2 + 1] * 3
    layers = (network.conv1, network.conv2, network.conv3, network.conv4, network.conv5)
    maps = [layer.out_channels * side**2 for layer, side in zip(layers, sides, strict=True)]
    dense = (network.hidden1, network.hidden2, network.scores)
    return maps + [layer.out_features for layer in dense]


class SmallNet(nn.Module):
    """A small AlexNet for images of 16 × 16: three convolutions, overlapping pooling, hidden layers.

    hidden      units of each hidden layer; figure 1's network has no hidden layer
    dropout     fraction of each hidden layer's outputs dropped in training
    activation  used after every layer but the last
    """

    def __init__(
        self,
        *,
        classes: int,
        hidden: Sequence[int] = (),
        dropout: float = 0.0,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.maps = nn.Sequential(
            *(nn.Conv2d(3, 16, 5, padding=2), activation(), nn.MaxPool2d(3, stride=2)),
            *(nn.Conv2d(16, 32, 3, padding=1), activation(), nn.MaxPool2d(3, stride=2)),
            *(nn.Conv2d(32, 32, 3, padding=1), activation(), nn.Flatten()),
        )
        self.dense, inputs = nn.Sequential(), 32 * 3 * 3
        for units in hidden:
            self.dense.extend((nn.Linear(inputs, units), activation(), nn.Dropout(dropout)))
            inputs = units
        self.scores = nn.Linear(inputs, classes)
        for layer in self.modules():
            # With the paper's standard deviation of 0.01 and pixels in [0, 1], the loss stays on a plateau
            # for 1,000 steps.
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, images: Float[Tensor, "batch 3 16 16"]) -> Float[Tensor, "batch classes"]:
        return self.scores(self.dense(self.maps(images)))
