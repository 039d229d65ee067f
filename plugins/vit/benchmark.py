"""Times patch embedding, one encoder block, and the whole network on images."""

from collections.abc import Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import Block, ViT, patches

Weights = Mapping[str, Tensor]


def one_by_one(images: Tensor, weight: Tensor, bias: Tensor, size: int) -> Tensor:
    rows, columns = (side // size for side in images.shape[2:])
    embedded = []
    for row in range(rows):
        for column in range(columns):
            patch = images[:, :, size * row : size * (row + 1), size * column : size * (column + 1)]
            embedded.append(patch.flatten(1) @ weight.T + bias)
    return torch.stack(embedded, 1)


def strided(images: Tensor, weight: Tensor, bias: Tensor, size: int) -> Tensor:
    filters = weight.unflatten(1, (images.shape[1], size, size))
    return F.conv2d(images, filters, bias, stride=size).flatten(2).mT


def flattened(images: Tensor, weight: Tensor, bias: Tensor, size: int) -> Tensor:
    return F.linear(patches(images, size), weight, bias).flatten(1, 2)


def encoded(weights: Weights, x: Tensor, heads: int, *, fused: bool) -> Tensor:
    """The encoder block, computed from the formula or with fused PyTorch functions."""

    def norm(x: Tensor, which: int) -> Tensor:
        gain, bias = weights[f"norms.{which}.weight"], weights[f"norms.{which}.bias"]
        if fused:
            return F.layer_norm(x, x.shape[-1:], gain, bias, eps=1e-6)
        mean = x.mean(-1, keepdim=True)
        return (x - mean) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt() * gain + bias

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    normed = norm(x, 0)
    q, k, v = (
        linear(normed, f"attention.{name}").unflatten(-1, (heads, -1)).transpose(1, 2)
        for name in ("query", "key", "value")
    )
    if fused:
        attended = F.scaled_dot_product_attention(q, k, v)
    else:
        attended = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
    x = x + linear(attended.transpose(1, 2).flatten(2), "attention.output")
    return x + linear(F.gelu(linear(norm(x, 1), "up")), "down")


def image_by_image(network: ViT, images: Tensor) -> Tensor:
    return torch.cat([network(image) for image in images.split(1)])


class TorchViT(nn.Module):
    """The network made of torch's modules, whose encoder layers are fused at inference."""

    def __init__(
        self, *, side: int, patch: int, model: int, heads: int, layers: int, hidden: int, classes: int
    ):
        super().__init__()
        self.embed = nn.Conv2d(3, model, patch, stride=patch)
        self.token = nn.Parameter(torch.zeros(model))
        self.positions = nn.Parameter(torch.zeros(1 + (side // patch) ** 2, model))
        layer = nn.TransformerEncoderLayer(
            model, heads, hidden, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(model, eps=1e-6)
        self.encoder = nn.TransformerEncoder(layer, layers, norm, enable_nested_tensor=False)
        self.head = nn.Linear(model, classes)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        cut = self.embed(images).flatten(2).mT
        x = torch.cat((self.token.expand(len(images), 1, -1), cut), 1) + self.positions
        return self.head(self.encoder(x)[:, 0])


def for_torch(weights: Weights, images: Tensor, *, size: int) -> tuple[object, ...]:
    """The network's weights under the names of `TorchViT`, with the three projections in one matrix."""
    names = {
        "attention.output": "self_attn.out_proj",
        "norms.0": "norm1",
        "norms.1": "norm2",
        "up": "linear1",
        "down": "linear2",
    }
    renamed = {}
    for name, weight in weights.items():
        if name == "positions.weight":
            renamed["positions"] = weight
        elif name == "embed.weight":
            renamed[name] = weight.unflatten(1, (-1, size, size))
        elif name.startswith("norm."):
            renamed[f"encoder.{name}"] = weight
        elif not name.startswith("blocks."):
            renamed[name] = weight
        else:
            _, layer, part = name.split(".", 2)
            part, kind = part.rsplit(".", 1)
            if part in names:
                renamed[f"encoder.layers.{layer}.{names[part]}.{kind}"] = weight
            elif part == "attention.query":
                own = [weights[f"blocks.{layer}.attention.{one}.{kind}"] for one in ("query", "key", "value")]
                renamed[f"encoder.layers.{layer}.self_attn.in_proj_{kind}"] = torch.cat(own)
    return renamed, images


def image_case(batch: int, sizes: Mapping[str, int], itemsize: int) -> Case:
    make = partial(ViT, **sizes)
    with torch.device("meta"):
        weights = sum(weight.numel() for weight in make().parameters())
    side, patch, model, hidden = (sizes[name] for name in ("side", "patch", "model", "hidden"))
    cut = (side // patch) ** 2
    tokens = 1 + cut
    products = cut * 3 * patch**2 * model + model * sizes["classes"]
    products += sizes["layers"] * tokens * model * (4 * model + 2 * hidden + 2 * tokens)
    return Case.of_module(
        make,
        name="images",
        axes={"images": batch, "side": side, "width": model, "layers": sizes["layers"]},
        inputs=lambda g: (torch.randn(batch, 3, side, side, generator=g),),
        variants=(
            Variant.of_module(make, image_by_image, name="image by image", role="naive"),
            Variant.of_module(
                partial(TorchViT, **sizes),
                name="nn.TransformerEncoder",
                role="strong",
                prepare=partial(for_torch, size=patch),
            ),
            Variant.of_module(make, name="ViT", role="paper"),
        ),
        cost={
            "forward": Cost(
                flops=2 * batch * products,
                bytes=(weights + batch * (3 * side**2 + sizes["classes"])) * itemsize,
            )
        },
    )


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    batch, side, size, model = bench.pick(
        smoke=(2, 12, 4, 8), quick=(4, 224, 16, 384), full=(16, 224, 16, 768)
    )
    pixels, tokens = 3 * size**2, (side // size) ** 2
    yield Case(
        name="patches",
        axes={"side": side, "patch": size, "batch": batch},
        inputs=lambda g: (
            torch.randn(batch, 3, side, side, generator=g),
            torch.randn(model, pixels, generator=g) / pixels**0.5,
            torch.randn(model, generator=g),
        ),
        variants=(
            Variant(name="one by one", role="naive", call=partial(one_by_one, size=size)),
            Variant(name="strided convolution", role="strong", call=partial(strided, size=size)),
            Variant(name="flattened", role="paper", call=partial(flattened, size=size)),
        ),
        cost={
            "forward": Cost(
                flops=2 * batch * tokens * pixels * model,
                bytes=(batch * tokens * (pixels + model) + model * (pixels + 1)) * bench.dtype.itemsize,
            ),
        },
    )
    batch, tokens, model, heads = bench.pick(
        smoke=(2, 5, 16, 2), quick=(2, 197, 192, 3), full=(8, 197, 768, 12)
    )
    make = partial(Block, model, heads, 4 * model)
    yield Case.of_module(
        make,
        name="block",
        axes={"tokens": tokens, "width": model},
        inputs=lambda g: (torch.randn(batch, tokens, model, generator=g),),
        variants=(
            Variant(name="by the formula", role="naive", call=partial(encoded, heads=heads, fused=False)),
            Variant(
                name="torch layer norm and SDPA",
                role="strong",
                call=partial(encoded, heads=heads, fused=True),
            ),
            Variant.of_module(make, name="Block", role="paper"),
        ),
        cost=Cost.products(
            2 * batch * tokens * (12 * model**2 + 2 * tokens * model),
            (12 * model**2 + 13 * model + 2 * batch * tokens * model) * bench.dtype.itemsize,
        ),
    )
    tiny = {"side": 12, "patch": 4, "model": 8, "heads": 2, "layers": 2, "hidden": 16, "classes": 3}
    small = {"side": 224, "patch": 16, "model": 192, "heads": 3, "layers": 4, "hidden": 768, "classes": 1000}
    base = {
        "side": 224,
        "patch": 16,
        "model": 768,
        "heads": 12,
        "layers": 12,
        "hidden": 3072,
        "classes": 1000,
    }
    for batch, sizes in bench.pick(smoke=((2, tiny),), quick=((2, small),), full=((1, base), (8, base))):
        yield image_case(batch, sizes, bench.dtype.itemsize)
