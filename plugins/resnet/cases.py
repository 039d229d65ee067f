"""The benchmark's cases: a block while it trains, a block in use, and the time until a network has learnt."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn
from torch.func import functional_call

from readtrack import data
from readtrack.plugin import Case, Cost, Variant

from .networks import Block, Convolution, Images, Maps, filters, multiply_adds, parameters, small

# A block's tensors, layer after layer, as the benchmark passes them; the averages only where it is in use.
TENSORS = (
    "convolution.weight",
    "normalization.weight",
    "normalization.bias",
    "normalization.running_mean",
    "normalization.running_var",
)


def layer_by_layer(x: Images, *tensors: Tensor, layer: Callable[..., Tensor], each: int) -> Maps:
    """A block that keeps the shape, of `layer`s with `each` tensors."""
    maps, last = x, len(tensors) - each
    for start in range(0, len(tensors), each):
        maps = layer(maps, *tensors[start : start + each])
        if start < last:
            maps = maps.relu()
    return (maps + x).relu()


def patches(
    x: Images,
    weight: Tensor,
    gain: Tensor,
    bias: Tensor,
    mean: Tensor | None = None,
    var: Tensor | None = None,
) -> Maps:
    """Every patch a column, the convolution a product of matrices, the normalisation as it is written."""
    columns = F.unfold(x, weight.shape[-1], padding=weight.shape[-1] // 2)
    maps = (weight.flatten(1) @ columns).unflatten(-1, x.shape[2:])
    if mean is None or var is None:
        var, mean = torch.var_mean(maps, (0, 2, 3), correction=0)
    mean, var, gain, bias = (vector[:, None, None] for vector in (mean, var, gain, bias))
    return gain * (maps - mean) / (var + 1e-5).sqrt() + bias


def torchs_layer(
    x: Images,
    weight: Tensor,
    gain: Tensor,
    bias: Tensor,
    mean: Tensor | None = None,
    var: Tensor | None = None,
) -> Maps:
    """torch's convolution and normalisation, channels last; in use one convolution."""
    x = x.contiguous(memory_format=torch.channels_last)
    padding = weight.shape[-1] // 2
    if mean is None or var is None:
        return F.batch_norm(F.conv2d(x, weight, padding=padding), None, None, gain, bias, training=True)
    scale = gain * torch.rsqrt(var + 1e-5)
    return F.conv2d(x, weight * scale[:, None, None, None], bias - mean * scale, padding=padding)


def this_file(x: Images, *tensors: Tensor, block: Block, each: int) -> Maps:
    names = [f"layers.{i}.{name}" for i in range(len(block.layers)) for name in TENSORS[:each]]
    given = dict(zip(names, tensors, strict=True))
    averages = {name: x.new_zeros(b.shape) for name, b in block.named_buffers() if name not in given}
    return functional_call(block, averages | given, (x.contiguous(memory_format=torch.channels_last),))


def block_case(shape: tuple[int, int, int, int], *, bottleneck: bool, training: bool, itemsize: int) -> Case:
    """A block while it trains (with gradients) or in use (without)."""
    each = 3 if training else 5
    with torch.device("meta"):
        block = Block(shape[1], shape[1], bottleneck=bottleneck).train(training)
        state = block.state_dict()
    shapes = [
        (name, state[f"layers.{i}.{name}"].shape) for i in range(len(block.layers)) for name in TENSORS[:each]
    ]

    def inputs(g: torch.Generator) -> tuple[Tensor, ...]:
        tensors = []
        for name, size in shapes:
            if name == "convolution.weight":
                tensors.append(torch.randn(size, generator=g) / size[1:].numel() ** 0.5)
            elif name == "normalization.bias":
                # Far from 0, either way: at the corner of a ReLU rounding decides on the gradient.
                tensors.append(torch.randn(size, generator=g).sign() * 10)
            else:
                tensors.append(torch.rand(size, generator=g) + 0.5)
        return torch.randn(shape, generator=g), *tensors

    products = 2 * filters(block) * shape[0] * shape[2] * shape[3]
    values, weights = 2 * torch.Size(shape).numel(), sum(size.numel() for _, size in shapes)
    cost = {"forward": Cost(flops=products, bytes=(values + weights) * itemsize)}
    if training:
        cost["forward+backward"] = Cost(flops=3 * products, bytes=2 * (values + weights) * itemsize)
    call = partial(layer_by_layer, each=each)
    return Case(
        name=f"{'bottleneck' if bottleneck else 'basic block'}, {'training' if training else 'in use'}",
        axes={"features": shape[1], "shape": " × ".join(map(str, shape))},
        inputs=inputs,
        variants=(
            Variant(name="patches", role="naive", call=partial(call, layer=patches)),
            Variant(name="torch's functions", role="strong", call=partial(call, layer=torchs_layer)),
            Variant(name="this file's block", role="paper", call=partial(this_file, block=block, each=each)),
        ),
        cost=cost,
    )


def learn(
    x: Images, y: Int[Tensor, " batch"], *weights: Tensor, layers: int, kind: str, torchs: bool = False
) -> Tensor:
    """Train on these digits until their loss is below 1; whether that took no more than 100 steps."""
    with torch.enable_grad():
        network = small(layers, kind)
        if torchs:
            for module in network.modules():
                if isinstance(module, Convolution):
                    module.normalization = nn.BatchNorm2d(module.convolution.out_channels)
        network = network.to(x.device, x.dtype)
        with torch.no_grad():
            for own, given in zip(network.parameters(), weights, strict=True):
                own.copy_(given)
        if torchs:
            network = network.to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
        for _ in range(100):
            loss = F.cross_entropy(network(x), y)
            if loss < 1:
                return torch.tensor(True, device=x.device)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return torch.tensor(False, device=x.device)


def learning_case(digits: int, layers: int, itemsize: int) -> Case:
    with torch.device("meta"):
        network = small(layers, "residual")
        step = 6 * digits * multiply_adds(network, 8, 8)

    def inputs(g: torch.Generator) -> tuple[Tensor, ...]:
        images, labels = data.digits()
        rows = torch.randint(len(images), (digits,), generator=g)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(int(torch.randint(2**31, (), generator=g)))
            weights = [weight.detach() for weight in small(layers, "plain").parameters()]
        return images[rows][:, None], labels[rows], *weights

    call = partial(learn, layers=layers)
    return Case(
        name=f"{digits} digits learnt",
        axes={"layers": layers},
        inputs=inputs,
        variants=(
            Variant(name="plain", role="naive", call=partial(call, kind="plain")),
            Variant(
                name="residual, torch's normalisation",
                role="strong",
                call=partial(call, kind="residual", torchs=True),
            ),
            Variant(name="residual", role="paper", call=partial(call, kind="residual")),
        ),
        # Of a single step: how many are needed is what the variants differ in.
        cost={"forward": Cost(flops=step, bytes=2 * parameters(network) * itemsize)},
        oracle=lambda *inputs: torch.tensor(True),
    )
