"""Times a mixture's log-density, and handwriting sampled point by point from the whole network."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import Mixture, Points, Writer

Weights = Mapping[str, Tensor]
Write = Callable[[nn.Module, Tensor, int, torch.Generator], Points]

ALPHABET = 60


def one_by_one(outputs: Tensor, points: Tensor) -> Tensor:
    """Equations 23 to 26 as written, one component after the other."""
    components = outputs.shape[-1] // 6
    pi = outputs[..., :components].softmax(-1)
    total = torch.zeros_like(points[..., 0])
    for j in range(components):
        mean, sigma = (outputs[..., (k * components + 2 * j) :][..., :2] for k in (1, 3))
        sigma, rho = sigma.exp(), 0.999 * torch.tanh(outputs[..., 5 * components + j])
        x, y = ((points[..., :2] - mean) / sigma).unbind(-1)
        z = x**2 + y**2 - 2 * rho * x * y
        area = 2 * math.pi * sigma.prod(-1) * torch.sqrt(1 - rho**2)
        total = total + pi[..., j] * torch.exp(-z / (2 * (1 - rho**2))) / area
    end = torch.sigmoid(outputs[..., -1])
    return torch.log(total) + torch.log(torch.where(points[..., 2] == 1, end, 1 - end))


def distributions(outputs: Tensor, points: Tensor) -> Tensor:
    components = outputs.shape[-1] // 6
    pi, mean, sigma, rho, end = outputs.split((components, 2 * components, 2 * components, components, 1), -1)
    x, y = sigma.unflatten(-1, (components, 2)).exp().unbind(-1)
    rho = 0.999 * rho.tanh()
    rows = torch.stack((x, torch.zeros_like(x), rho * y, (1 - rho**2).sqrt() * y), -1)
    normal = MultivariateNormal(
        mean.unflatten(-1, (components, 2)), scale_tril=rows.unflatten(-1, (2, 2)), validate_args=False
    )
    mixture = MixtureSameFamily(Categorical(logits=pi, validate_args=False), normal, validate_args=False)
    stroke = torch.distributions.Bernoulli(logits=end[..., 0], validate_args=False)
    return mixture.log_prob(points[..., :2]) + stroke.log_prob(points[..., 2])


def logsumexp(outputs: Tensor, points: Tensor) -> Tensor:
    return Mixture.of(outputs).log_density(points)


class Cells(nn.Module):
    """The layers of `Writer`, with `nn.LSTMCell` as the recurrent layers."""

    def __init__(self, alphabet: int, hidden: int, components: int, gaussians: int) -> None:
        super().__init__()
        self.first = nn.LSTMCell(3 + alphabet, hidden)
        self.second = nn.LSTMCell(3 + alphabet + hidden, hidden)
        self.window = nn.Linear(hidden, 3 * gaussians)
        self.readout = nn.Linear(2 * hidden, 6 * components + 1)


def for_cells(weights: Weights, *others: Tensor) -> tuple[object, ...]:
    """The writer's weights under the names of `Cells`. `nn.LSTMCell` has a second bias, which is 0."""
    names = {"input.weight": "weight_ih", "recurrent.weight": "weight_hh", "input.bias": "bias_ih"}
    renamed = {}
    for name, weight in weights.items():
        layer, own = name.split(".", 1)
        renamed[f"{layer}.{names.get(own, own)}"] = weight
        if own == "input.bias":
            renamed[f"{layer}.bias_hh"] = torch.zeros_like(weight)
    return renamed, *others


@torch.no_grad()
def with_cells(network: Cells, words: Tensor, time: int, generator: torch.Generator) -> Points:
    """Samples as `Writer.write` does, but computes the parameters of the chosen components only."""
    batch, hidden = len(words), network.first.hidden_size
    like = network.readout.weight
    letters = F.one_hot(words, network.first.input_size - 3).to(like)
    u = torch.arange(words.shape[1], device=like.device, dtype=like.dtype)
    first = second = (like.new_zeros(batch, hidden), like.new_zeros(batch, hidden))
    kappa, seen = like.new_zeros(()), like.new_zeros(batch, letters.shape[2])
    point, drawn = like.new_zeros(batch, 3), []
    components = len(like) // 6
    for _ in range(time):
        first = network.first(torch.cat((point, seen), 1), first)
        alpha, beta, step = network.window(first[0]).exp().chunk(3, 1)
        kappa = kappa + step
        weight = alpha[:, None] @ torch.exp(-beta[..., None] * (kappa[..., None] - u).square())
        seen = (weight @ letters)[:, 0]
        second = network.second(torch.cat((point, seen, first[0]), 1), second)
        outputs = network.readout(torch.cat((first[0], second[0]), 1))
        chosen = torch.multinomial(
            outputs[:, :components].float().softmax(1).cpu(), 1, generator=generator
        ).to(outputs.device)
        pair = components + 2 * chosen + torch.arange(2, device=outputs.device)
        mean, log_sigma = outputs.gather(1, pair), outputs.gather(1, pair + 2 * components)
        rho = 0.999 * outputs.gather(1, 5 * components + chosen).tanh()
        one, other = torch.randn(batch, 2, generator=generator).to(rho).split(1, 1)
        other = rho * one + (1 - rho.square()).sqrt() * other
        up = torch.rand(batch, generator=generator).to(rho) < outputs[:, -1].sigmoid()
        point = torch.cat((mean + log_sigma.exp() * torch.cat((one, other), 1), up[:, None]), 1)
        drawn.append(point)
    return torch.stack(drawn, 1)


def written(network: Writer, words: Tensor, time: int, generator: torch.Generator) -> Points:
    return network.write(words, time, generator)[0]


def word_by_word(network: Writer, words: Tensor, time: int, generator: torch.Generator) -> Points:
    return torch.cat([written(network, word, time, generator) for word in words.split(1)])


def handwriting(
    network: nn.Module, words: Tensor, seed: Tensor, *, write: Write, time: int
) -> dict[str, float]:
    """Sample `time` points for every word. Returns their number, and whether all of them are finite."""
    points = write(network, words, time, torch.Generator().manual_seed(int(seed)))
    return {"reached": float(points.isfinite().all()), "points": float(points.shape[0] * points.shape[1])}


def handwriting_case(batch: int, letters: int, time: int, hidden: int) -> Case:
    sizes = {"hidden": hidden, "components": 20, "gaussians": 10}
    make = partial(Writer, ALPHABET, **sizes)

    def call(write: Write) -> partial[dict[str, float]]:
        return partial(handwriting, write=write, time=time)

    return Case.of_module(
        make,
        name="handwriting",
        axes={"points": time, "words": batch, "hidden": hidden},
        inputs=lambda g: (
            torch.randint(ALPHABET, (batch, letters), generator=g),
            torch.randint(2**31, (), generator=g),
        ),
        variants=(
            Variant.of_module(make, call(word_by_word), name="word by word", role="naive"),
            Variant.of_module(
                partial(Cells, ALPHABET, **sizes),
                call(with_cells),
                name="nn.LSTMCell",
                role="strong",
                prepare=for_cells,
            ),
            Variant.of_module(make, call(written), name="Writer", role="paper"),
        ),
        cost={"until": None},
    )


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    for count, components in bench.pick(
        smoke=((5, 3),), quick=((2000, 20),), full=((2000, 20), (50_000, 20))
    ):

        def inputs(
            generator: torch.Generator, count: int = count, components: int = components
        ) -> tuple[Tensor, Tensor]:
            points = torch.randn(count, 3, generator=generator)
            points[:, 2] = (points[:, 2] > 1).float()
            return torch.randn(count, 6 * components + 1, generator=generator) * 0.5, points

        yield Case(
            name="density of a mixture",
            axes={"points": count, "components": components},
            inputs=inputs,
            variants=(
                Variant(name="one by one", role="naive", call=one_by_one),
                Variant(name="torch distributions", role="strong", call=distributions),
                Variant(name="one logarithm of a sum", role="paper", call=logsumexp),
            ),
            gradients=(0,),
            cost=Cost.elementwise(count * components, itemsize=bench.dtype.itemsize, flops=25, tensors=6),
        )
    batch, letters, time, hidden = bench.pick(
        smoke=(2, 3, 4, 5), quick=(3, 6, 20, 400), full=(8, 30, 200, 400)
    )
    yield handwriting_case(batch, letters, time, hidden)
