"""Times training of ResNet-20, single blocks in training and at inference, and training to a target loss."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .experiment import BATCH, Marker, error, strips
from .model import Block, Convolution, Images, Maps, ResNet, Shortcut, cifar, filters, multiply_adds

Weights = Mapping[str, Tensor]
Layer = Callable[[Images, Tensor, Tensor, Tensor, bool], Maps]


def layer_by_layer(weights: Weights, x: Images, *, layer: Layer, training: bool) -> Maps:
    """A shape-preserving block made of `layer`, which takes a convolution, a gain and a bias."""
    tensors, maps = list(weights.values()), x
    for start in range(0, len(tensors), 3):
        maps = layer(maps if start == 0 else maps.relu(), *tensors[start : start + 3], training)
    return (maps + x).relu()


def patches(x: Images, weight: Tensor, gain: Tensor, bias: Tensor, training: bool) -> Maps:
    """A convolution as a matrix multiplication of patches, then batch normalisation as in its formula.

    At inference, the running mean is 0 and the running variance is 1, as in a new block.
    """
    columns = F.unfold(x, weight.shape[-1], padding=weight.shape[-1] // 2)
    maps = (weight.flatten(1) @ columns).unflatten(-1, x.shape[2:])
    var, mean = torch.var_mean(maps, (0, 2, 3), correction=0, keepdim=True)
    if not training:
        var, mean = torch.ones_like(var), torch.zeros_like(mean)
    return gain[:, None, None] * (maps - mean) / (var + 1e-5).sqrt() + bias[:, None, None]


def torchs_layer(x: Images, weight: Tensor, gain: Tensor, bias: Tensor, training: bool) -> Maps:
    """torch's convolution and normalisation with channels last, fused into one convolution for inference."""
    x = x.contiguous(memory_format=torch.channels_last)
    padding = weight.shape[-1] // 2
    if training:
        return F.batch_norm(F.conv2d(x, weight, padding=padding), None, None, gain, bias, training=True)
    scale = gain * (1 + 1e-5) ** -0.5
    return F.conv2d(x, weight * scale[:, None, None, None], bias, padding=padding)


def block_weight(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    if len(shape) > 1:
        return torch.randn(shape, generator=generator) / shape[1:].numel() ** 0.5
    if name.endswith("bias"):
        # All values are far from 0, because close to 0 rounding decides the gradient of a ReLU.
        return torch.randn(shape, generator=generator).sign() * 10
    return torch.rand(shape, generator=generator) + 0.5


def channels_last(block: Block, x: Images) -> Maps:
    return block(x.contiguous(memory_format=torch.channels_last))


def block_case(shape: tuple[int, int, int, int], *, bottleneck: bool, training: bool, itemsize: int) -> Case:
    """A block in training (with gradients) or at inference (without)."""

    def make() -> Block:
        return Block(shape[1], shape[1], bottleneck=bottleneck).train(training)

    with torch.device("meta"):
        block = make()
    flops = 2 * filters(block) * shape[0] * shape[2] * shape[3]
    values, weights = 2 * torch.Size(shape).numel(), sum(w.numel() for w in block.parameters())
    cost = Cost.products(flops, (values + weights) * itemsize)
    call = partial(layer_by_layer, training=training)
    return Case.of_module(
        make,
        name=f"{'bottleneck' if bottleneck else 'basic block'}, {'training' if training else 'in use'}",
        axes={"features": shape[1], "shape": " × ".join(map(str, shape))},
        inputs=lambda generator: (torch.randn(shape, generator=generator),),
        weight=block_weight,
        variants=(
            Variant(name="patches", role="naive", call=partial(call, layer=patches)),
            Variant(name="torch's functions", role="strong", call=partial(call, layer=torchs_layer)),
            Variant.of_module(make, channels_last, name="Block", role="paper"),
        ),
        cost=cost if training else {"forward": cost["forward"]},
        gradients=(0, 1),
    )


def torchs(network: nn.Module) -> nn.Module:
    """Replace this folder's normalisation with torch's."""
    for module in network.modules():
        if isinstance(module, Convolution):
            module.normalization = nn.BatchNorm2d(module.convolution.out_channels)
    return network


def loss(network: ResNet, images: Images, labels: Int[Tensor, " batch"]) -> Tensor:
    return F.cross_entropy(network(images), labels)


@cache
def compiler() -> Callable[..., Tensor]:
    return torch.compile(loss, dynamic=False)


def compiled(network: ResNet, images: Images, labels: Int[Tensor, " batch"]) -> Tensor:
    return compiler()(network, images, labels)


def all_channels_last(weights: Weights, images: Images, labels: Tensor) -> tuple[Weights, Images, Tensor]:
    last = {
        name: w.contiguous(memory_format=torch.channels_last) if w.ndim == 4 else w
        for name, w in weights.items()
    }
    return last, images.contiguous(memory_format=torch.channels_last), labels


def training_case(layers: int, batch: int, side: int, bench: Bench) -> Case:
    """The loss of section 4.2's network on a batch, and its gradients."""
    make = partial(cifar, layers)
    with torch.device("meta"):
        network = make()
    flops = 2 * batch * multiply_adds(network, side, side)
    values = sum(w.numel() for w in network.parameters()) + 3 * batch * side**2
    last = {"make": lambda: torchs(make()), "prepare": all_channels_last}
    return Case.of_module(
        make,
        name=f"ResNet-{layers}, training",
        axes={"batch": batch, "side": side},
        inputs=lambda generator: (
            torch.randn(batch, 3, side, side, generator=generator),
            torch.randint(10, (batch,), generator=generator),
        ),
        variants=(
            Variant.of_module(lambda: torchs(make()), loss, name="torch's modules", role="naive"),
            Variant.of_module(call=loss, name="torch's modules, channels last", role="strong", **last),
            # On a CPU, compiling takes longer than the measurement.
            Variant.of_module(
                call=compiled,
                name="torch's modules, channels last, compiled",
                role="compiled",
                needs=bench.needs("cuda"),
                **last,
            ),
            Variant.of_module(make, loss, name="ResNet", role="paper"),
        ),
        cost=Cost.products(flops, values * bench.dtype.itemsize),
        together=True,
    )


def learn(
    weights: Weights,
    seed: Int[Tensor, ""],
    *,
    shortcut: Shortcut,
    layers: int,
    target: float,
    normalization: Literal["batchnorm's", "torch's"] = "batchnorm's",
    limit: int = 300,
) -> dict[str, int | bool]:
    """Train until the mean loss of ten steps is at most `target` nats per cell, or for `limit` steps."""
    losses: list[float] = []
    network = Marker(layers, shortcut)
    if normalization == "torch's":
        torchs(network)
    network.load_state_dict(dict(weights), strict=False)
    network = network.to(weights["score.weight"])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(int(seed))
    for _ in range(limit):
        optimizer.zero_grad()
        loss = error(network, *strips(BATCH, generator)).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if len(losses) >= 10 and sum(losses[-10:]) / 10 <= target:
            return {"reached": True, "steps": len(losses)}
    return {"reached": False, "steps": limit}


def new_weights(layers: int, generator: torch.Generator) -> dict[str, Tensor]:
    """The experiment's initial weights, which are the same for plain and residual networks."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        return {name: weight.detach() for name, weight in Marker(layers, "A").named_parameters()}


def learning_case(layers: int, target: float) -> Case:
    """Every variant trains at learning rate 0.1, the middle value of the experiment's grid."""
    call = partial(learn, layers=layers, target=target)
    return Case(
        name="strips marked",
        axes={"layers": layers, "loss": target},
        inputs=lambda generator: (
            new_weights(layers, generator),
            torch.randint(2**31, (), generator=generator),
        ),
        variants=(
            Variant(name="plain", role="naive", call=partial(call, shortcut="none")),
            Variant(
                name="residual, torch's normalisation",
                role="strong",
                call=partial(call, shortcut="A", normalization="torch's"),
            ),
            Variant(name="residual", role="paper", call=partial(call, shortcut="A")),
        ),
        cost={"until": None},
    )


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    for layers, batch, side in bench.pick(smoke=((8, 2, 8),), quick=(), full=((20, 128, 32),)):
        yield training_case(layers, batch, side, bench)
    itemsize = bench.dtype.itemsize
    for shape in bench.pick(
        smoke=((2, 4, 5, 3),),
        quick=((4, 64, 28, 28),),
        full=((32, 64, 56, 56), (32, 128, 28, 28), (32, 256, 14, 14), (32, 512, 7, 7)),
    ):
        yield block_case(shape, bottleneck=False, training=True, itemsize=itemsize)
    for shape in bench.pick(
        smoke=((2, 8, 5, 3),),
        quick=((2, 256, 28, 28),),
        full=((32, 256, 56, 56), (32, 1024, 14, 14)),
    ):
        yield block_case(shape, bottleneck=True, training=False, itemsize=itemsize)
    layers, target = bench.pick(smoke=(4, 0.6), quick=(18, 0.35), full=(34, 0.2))
    yield learning_case(layers, target)
