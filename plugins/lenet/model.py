"""Implements LeNet-5 layer by layer, and the fully connected network that serves as its control."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int8
from torch import Tensor, nn

A, S = 1.7159, 2 / 3  # constants of equation 6, for which f(1) = 1 and f(-1) = -1
RUBBISH = 1.0  # j in equation 9, for which the paper gives no value

# Table I: each of the 16 maps of C3 is connected to these maps of S2.
TABLE_I = tuple(
    tuple(map(int, seen))
    for seen in (
        *("012", "123", "234", "345", "045", "015"),
        *("0123", "1234", "2345", "0345", "0145", "0125"),
        *("0134", "1245", "0235", "012345"),
    )
)

# Target images for F6, one of 7 × 12 pixels for each class. They are our own, not copies of the paper's.
TYPESET = """
..###.. ...#... .#####. .#####. .....#. ####### ..####. ####### .#####. ..###..
.#...#. ..##... #.....# #.....# ....##. #...... .#..... ......# #.....# .#...#.
#.....# .#.#... ......# ......# ...#.#. #...... #...... ......# #.....# #.....#
#.....# ...#... ......# ......# ..#..#. #...... #...... .....#. #.....# #.....#
#.....# ...#... .....#. ......# .#...#. ######. #.###.. .....#. #.....# #.....#
#.....# ...#... ....#.. ..####. #....#. ......# ##...#. ....#.. .#####. #.....#
#.....# ...#... ...#... ......# #....#. ......# #.....# ....#.. #.....# .#...##
#.....# ...#... ..#.... ......# ####### ......# #.....# ...#... #.....# ..###.#
#.....# ...#... .#..... ......# .....#. ......# #.....# ...#... #.....# ......#
#.....# ...#... #...... ......# .....#. ......# #.....# ..#.... #.....# ......#
.#...#. ...#... #...... #.....# .....#. #.....# .#...#. ..#.... #.....# .....#.
..###.. .#####. ####### .#####. .....#. .#####. ..###.. ..#.... .#####. .####..
"""


def squash(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Equation 6: A tanh(S x)."""
    return A * torch.tanh(S * x)


class Convolution(nn.Module):
    """A convolution with partial connections. Map m sees the maps in `table[m]`, and has a bias.

    weight  one filter per connection, ordered by map
    """

    def __init__(self, table: tuple[tuple[int, ...], ...], kernel: int) -> None:
        super().__init__()
        self.maps, self.maps_in = len(table), 1 + max(map(max, table))
        places = [map_ * self.maps_in + seen for map_, row in enumerate(table) for seen in row]
        self.register_buffer("places", torch.tensor(places), persistent=False)
        fan_in = [len(row) * kernel**2 for row in table]
        each = [inputs for inputs, row in zip(fan_in, table, strict=True) for _ in row]
        self.weight = nn.Parameter(spread((len(places), kernel, kernel), each))
        self.bias = nn.Parameter(spread((self.maps,), fan_in))

    def full_weight(self) -> Float[Tensor, "maps maps_in kernel kernel"]:
        """All filters as one tensor, zero for missing connections."""
        none = self.weight.new_zeros(self.maps * self.maps_in, *self.weight.shape[1:])
        return none.index_copy(0, self.places, self.weight).unflatten(0, (self.maps, self.maps_in))

    def forward(
        self, x: Float[Tensor, "batch maps_in height width"]
    ) -> Float[Tensor, "batch maps rows columns"]:
        return F.conv2d(x, self.full_weight(), self.bias)


def spread(shape: tuple[int, ...], fan_in: list[int]) -> Float[Tensor, "..."]:
    """Initial weights, uniform in ±2.4 / fan_in (appendix A), with one fan_in, or one for each row."""
    bound = 2.4 / torch.tensor(fan_in).view(-1, *[1] * (len(shape) - 1))
    return (2 * torch.rand(shape) - 1) * bound


class SubSampling(nn.Module):
    """Halves the height and the width: sums 2 × 2 neighbours, scales by the coefficient and adds the bias.

    Height and width must be even.
    """

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(spread((maps,), [4]))
        self.bias = nn.Parameter(spread((maps,), [4]))

    def forward(
        self, x: Float[Tensor, "batch maps height width"]
    ) -> Float[Tensor, "batch maps height//2 width//2"]:
        upper, lower = x.unflatten(2, (-1, 2)).unbind(3)
        left, right = (upper + lower).unflatten(3, (-1, 2)).unbind(4)
        return torch.addcmul(self.bias[:, None, None], left + right, self.weight[:, None, None])


def typeset() -> Int8[Tensor, "classes 84"]:
    """`TYPESET` in rows of +1 (black) and -1 (white)."""
    rows = [line.split() for line in TYPESET.split("\n")[1:-1]]
    pictures = ["".join(row[digit] for row in rows) for digit in range(10)]
    return torch.tensor([[1 if dot == "#" else -1 for dot in dots] for dots in pictures], dtype=torch.int8)


class Output(nn.Module):
    """Equation 7: for each class, the squared distance of F6's output from the class's target image."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codes", typeset(), persistent=False)

    def forward(self, drawn: Float[Tensor, "batch 84"]) -> Float[Tensor, "batch classes"]:
        codes = self.codes.to(drawn.dtype)
        return drawn.square().sum(1, keepdim=True) - 2 * drawn @ codes.T + codes.shape[1]


def loss(
    penalties: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"], *, rubbish: float = RUBBISH
) -> Float[Tensor, ""]:
    """Equation 9: lowers the true class's penalty, and raises others that are below about `rubbish`."""
    right = penalties.gather(1, labels[:, None])[:, 0]
    return (right + F.pad(-penalties, (0, 1), value=-rubbish).logsumexp(1)).mean()


class LeNet5(nn.Module):
    """Section II.B: maps images to one penalty per class. It predicts the class with the smallest penalty.

    kernels  kernel sizes of C1, C3 and C5, which determine the image size (`side`)
    units    number of units of C5
    table    for each map of C3, the maps of S2 that it sees
    """

    def __init__(
        self,
        *,
        kernels: tuple[int, int, int] = (5, 5, 5),
        units: int = 120,
        table: tuple[tuple[int, ...], ...] = TABLE_I,
    ) -> None:
        super().__init__()
        first, second, third = kernels
        self.side = 2 * (2 * third + second - 1) + first - 1
        maps_in, maps = 1 + max(map(max, table)), len(table)
        self.c1 = Convolution(((0,),) * maps_in, first)
        self.s2 = SubSampling(maps_in)
        self.c3 = Convolution(table, second)
        self.s4 = SubSampling(maps)
        self.c5 = Convolution((tuple(range(maps)),) * units, third)
        self.f6 = full(units, 84)
        self.output = Output()

    def features(self, images: Float[Tensor, "batch 1 side side"]) -> Float[Tensor, "batch 84"]:
        """The output of F6."""
        x = images
        for layer in (self.c1, self.s2, self.c3, self.s4, self.c5):
            x = squash(layer(x))
        return squash(self.f6(x.flatten(1)))

    def forward(self, images: Float[Tensor, "batch 1 side side"]) -> Float[Tensor, "batch classes"]:
        return self.output(self.features(images))

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Trainable parameters and connections of each layer. A connection is one use of a weight or bias."""
        weights = {name: sum(w.numel() for w in layer.parameters()) for name, layer in self.named_children()}
        c1 = self.side - self.c1.weight.shape[-1] + 1
        c3 = c1 // 2 - self.c3.weight.shape[-1] + 1
        times = {"c1": c1**2, "c3": c3**2, "c5": 1, "f6": 1}
        connections = {name: weights[name] * places for name, places in times.items()}
        # A unit of sub-sampling has four inputs and a bias.
        connections["s2"] = 5 * self.c1.maps * (c1 // 2) ** 2
        connections["s4"] = 5 * self.c3.maps * (c3 // 2) ** 2
        connections["output"] = self.output.codes.numel()
        return {name: (weights[name], connections[name]) for name in weights}


def full(inputs: int, units: int) -> nn.Linear:
    """A fully connected layer with the paper's initial weights."""
    layer = nn.Linear(inputs, units)
    layer.weight.data = spread((units, inputs), [inputs])
    layer.bias.data = spread((units,), [inputs])
    return layer


class FullyConnected(nn.Module):
    """The control: one hidden layer in place of LeNet's maps, then F6 and the output layer."""

    def __init__(self, side: int, hidden: int) -> None:
        super().__init__()
        self.hidden, self.f6, self.output = full(side**2, hidden), full(hidden, 84), Output()

    def forward(self, images: Float[Tensor, "batch 1 side side"]) -> Float[Tensor, "batch classes"]:
        return self.output(squash(self.f6(squash(self.hidden(images.flatten(1))))))
