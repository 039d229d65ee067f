"""Masked convolutions, row and diagonal LSTMs, and the network that generates images pixel by pixel."""

import itertools
from collections.abc import Callable
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

Map = Float[Tensor, "batch _ height width"]
Image = Float[Tensor, "batch colours height width"]
Kind = Literal["A", "B"]


def mask(
    kind: Kind, outputs: int, inputs: int, height: int, width: int, colours: int = 1
) -> Bool[Tensor, "o i h w"]:
    """Section 3.4: True for the weights of a kernel that are kept.

    These weights belong to the rows above, to the pixels to the left and, at the pixel itself, to the
    previous colours. Mask B also keeps the output's own colour. Channel c belongs to colour c % colours.
    """
    row, column = torch.arange(height)[:, None], torch.arange(width)
    before = (row < height // 2) | ((row == height // 2) & (column < width // 2))
    own = (row == height // 2) & (column == width // 2)
    out, into = (torch.arange(count) % colours for count in (outputs, inputs))
    seen = into <= out[:, None] if kind == "B" else into < out[:, None]
    return before | (own & seen[:, :, None, None])


class MaskedConv2d(nn.Conv2d):
    """A convolution that sees only pixels and colours that have already been generated."""

    def __init__(
        self, kind: Kind, inputs: int, outputs: int, size: tuple[int, int], colours: int = 1
    ) -> None:
        super().__init__(inputs, outputs, size, padding=(size[0] // 2, size[1] // 2))
        self.register_buffer("mask", mask(kind, outputs, inputs, *size, colours), persistent=False)

    def forward(self, x: Map) -> Map:
        weight = self.weight * cast(Tensor, self.mask)
        return F.conv2d(x, weight, self.bias, padding=self.padding)


def lstm_cell(gates: Float[Tensor, "*any gates"], c: Float[Tensor, "*any h"]) -> tuple[Tensor, Tensor]:
    """Equation 3. The gates come in the order o, f, i, g."""
    o, f, i, g = gates.chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


class RowLSTM(nn.Module):
    """Section 3.1: a recurrence over rows. A pixel sees itself, its left neighbour and three positions of the
    state above. Beyond the edges, inputs and states are 0."""

    def __init__(self, channels: int, h: int, colours: int = 1) -> None:
        super().__init__()
        self.input_to_state = MaskedConv2d("B", channels, 4 * h, (1, 3), colours)
        self.state_to_state = nn.Conv1d(h, 4 * h, 3, padding=1, bias=False)
        self.up = MaskedConv2d("B", h, channels, (1, 1), colours)

    def forward(self, x: Map) -> Map:
        rows = self.input_to_state(x).unbind(2)
        h = c = rows[0].new_zeros(x.shape[0], x.shape[3], self.up.in_channels)
        states = []
        for row in rows:
            h, c = lstm_cell((row + self.state_to_state(h.mT)).mT, c)
            states.append(h)
        return x + self.up(torch.stack(states, 1).permute(0, 3, 1, 2))


def skew(x: Float[Tensor, "*batch height width h"]) -> Float[Tensor, "*batch height diagonals h"]:
    """Figure 3: shift each row by one position more than the row above, so diagonals become columns. The
    other positions are 0."""
    height, width = x.shape[-3:-1]
    padded = F.pad(x, (0, 0, 0, height))  # each row has width + height positions
    flat = padded.flatten(-3, -2)[..., : height * (width + height - 1), :]
    return flat.unflatten(-2, (height, width + height - 1))


def unskew(
    x: Float[Tensor, "*batch height diagonals h"], width: int
) -> Float[Tensor, "*batch height {width} h"]:
    """The inverse of `skew`."""
    height, diagonals = x.shape[-3:-1]
    flat = F.pad(x.flatten(-3, -2), (0, 0, 0, height))
    return flat.unflatten(-2, (height, diagonals + 1))[..., :width, :]


class DiagonalBiLSTM(nn.Module):
    """Section 3.2: a recurrence over diagonals, from the left and from the right.

    A pixel sees the states next to it and above it. The states from the right are moved down by one row,
    because the pixels to the right in the same row are not yet generated. Both directions share one batched
    matrix multiplication. States beyond the edges are 0.
    """

    def __init__(self, channels: int, h: int, colours: int = 1) -> None:
        super().__init__()
        self.input_to_state = nn.Parameter(torch.empty(2, channels, 4 * h))
        seen = mask("B", 4 * h, channels, 1, 1, colours)[:, :, 0, 0].T
        self.register_buffer("mask", seen.expand(2, -1, -1), persistent=False)
        self.bias = nn.Parameter(torch.zeros(2, 1, 4 * h))
        self.state_to_state = nn.Parameter(torch.empty(2, 2 * h, 4 * h))
        self.up = MaskedConv2d("B", h, channels, (1, 1), colours)
        for weight in (self.input_to_state, self.state_to_state):
            bound = weight.shape[1] ** -0.5
            nn.init.uniform_(weight, -bound, bound)

    def forward(self, x: Map) -> Map:
        batch, _, height, width = x.shape
        places = x.permute(0, 2, 3, 1)
        sides = torch.stack((places, places.flip(2)))
        fed = torch.baddbmm(self.bias, sides.flatten(1, 3), self.input_to_state * cast(Tensor, self.mask))
        inside = skew(x.new_ones(height, width, 1)).unbind(1)
        diagonals = skew(fed.unflatten(1, (batch, height, width))).unbind(3)
        h = c = x.new_zeros(2, batch, height, self.up.in_channels)
        states = []
        for diagonal, kept in zip(diagonals, inside, strict=True):
            above = F.pad(h[:, :, :-1], (0, 0, 1, 0))
            recurrent = torch.cat((h, above), 3).flatten(1, 2) @ self.state_to_state
            h, c = lstm_cell(diagonal + recurrent.view_as(diagonal), c)
            h, c = h * kept, c * kept
            states.append(h)
        left, right = unskew(torch.stack(states, 3), width)
        right = F.pad(right.flip(2)[:, :-1], (0, 0, 0, 0, 1, 0))
        return x + self.up((left + right).permute(0, 3, 1, 2))


class ResidualBlock(nn.Module):
    """Figure 5, left: a layer of the PixelCNN."""

    def __init__(self, channels: int, h: int, colours: int = 1) -> None:
        super().__init__()
        self.down = MaskedConv2d("B", channels, h, (1, 1), colours)
        self.conv = MaskedConv2d("B", h, h, (3, 3), colours)
        self.up = MaskedConv2d("B", h, channels, (1, 1), colours)

    def forward(self, x: Map) -> Map:
        return x + self.up(F.relu(self.conv(F.relu(self.down(F.relu(x))))))


class Autoregressive(nn.Module):
    """A network that gives the logits of each pixel's values, given all earlier pixels."""

    levels: int

    def log_likelihood(self, x: Image) -> Float[Tensor, " batch"]:
        """Equations 1 and 2: the exact log p(x) in nats. All values of x must be levels."""
        values = (x * (self.levels - 1)).round().long()
        return -F.cross_entropy(self(x).transpose(1, 2), values, reduction="none").sum((1, 2, 3))

    def size(self) -> int:
        """The number of weights that are not masked."""
        hidden = sum(int((~m).sum()) for name, m in self.named_buffers() if name.endswith("mask"))
        return sum(weight.numel() for weight in self.parameters()) - hidden


class PixelNetwork(Autoregressive):
    """Table 1: a 7 × 7 convolution with mask A, the layers, and two 1 × 1 convolutions that give the logits.

    layer    makes a layer: `ResidualBlock`, `RowLSTM` or `DiagonalBiLSTM`
    h        a multiple of `colours`; the channels of every feature map are divided among the colours
    colours  colours per pixel, generated in turn (3: red, green given red, blue given both; section 3.4)
    levels   number of values of a colour, from 0 to 1 in equal steps (section 2.3: 256)
    """

    def __init__(
        self,
        layer: Callable[[int, int, int], nn.Module],
        layers: int,
        h: int,
        colours: int = 1,
        levels: int = 256,
    ) -> None:
        super().__init__()
        self.levels = levels
        self.first = MaskedConv2d("A", colours, 2 * h, (7, 7), colours)
        self.layers = nn.ModuleList([layer(2 * h, h, colours) for _ in range(layers)])
        self.hidden = MaskedConv2d("B", 2 * h, 2 * h, (1, 1), colours)
        self.out = MaskedConv2d("B", 2 * h, levels * colours, (1, 1), colours)

    def forward(self, x: Image) -> Float[Tensor, "batch colours levels height width"]:
        hidden = self.first(x)
        for layer in self.layers:
            hidden = layer(hidden)
        logits = self.out(F.relu(self.hidden(F.relu(hidden))))
        return cast(Tensor, logits.unflatten(1, (self.levels, -1)).transpose(1, 2))


@torch.no_grad()
def sample(network: Autoregressive, x: Image, given: int, generator: torch.Generator) -> Image:
    """Generate the rows from index `given` on, conditioned on the rows of `x` above."""
    x = x.clone()
    x[:, :, given:] = 0
    for row, column, colour in itertools.product(
        range(given, x.shape[2]), range(x.shape[3]), range(x.shape[1])
    ):
        odds = network(x)[:, colour, :, row, column].float().softmax(1).cpu()
        drawn = torch.multinomial(odds, 1, generator=generator)[:, 0]
        x[:, colour, row, column] = drawn.to(x) / (network.levels - 1)
    return x
