"""Times the contrastive loss, and zero-shot classification of images with both towers."""

from collections.abc import Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .loss import contrastive, two_cross_entropies
from .model import CLIP, TextTower, VisionTower, classifier

Weights = Mapping[str, Tensor]


def image_by_image(seen: Tensor, said: Tensor, scale: Tensor) -> Tensor:
    """Computes the loss one pair at a time: its image against all texts, and its text against all images."""
    total = scale.new_zeros(())
    for index, (image, text) in enumerate(zip(seen, said, strict=True)):
        for logits in (scale * said @ image, scale * seen @ text):
            total = total - logits.log_softmax(0)[index]
    return total / (2 * len(seen))


def sums_of_the_whole(seen: Tensor, said: Tensor, scale: Tensor) -> Tensor:
    """Stores the matrix once, whereas two cross-entropies also store its softmaxes."""
    logits = scale * seen @ said.T
    sums = (logits.logsumexp(1).mean() + logits.logsumexp(0).mean()) / 2
    return sums - logits.diagonal().mean()


def zero_shot(network: CLIP, images: Tensor, prompts: Tensor) -> Tensor:
    """Logits of each image for each class, whose prompts have the shape (classes, prompts, tokens)."""
    seen = F.normalize(network.vision(images), dim=1)
    return network.scale() * seen @ classifier(network.text, prompts).T


def one_at_a_time(network: CLIP, images: Tensor, prompts: Tensor) -> Tensor:
    """Encode every image and every prompt separately."""
    seen = torch.cat([network.vision(image) for image in images.split(1)])
    said = torch.cat([network.text(ids) for ids in prompts.flatten(0, 1).split(1)])
    means = F.normalize(said, dim=1).unflatten(0, prompts.shape[:2]).mean(1)
    return network.scale() * F.normalize(seen, dim=1) @ F.normalize(means, dim=1).T


def blocks(w: Weights, tower: str, x: Tensor, heads: int, *, causal: bool) -> Tensor:
    """A tower's blocks from torch's functions, with one projection for queries, keys and values."""
    count = len({name.split(".")[2] for name in w if name.startswith(f"{tower}.blocks.")})
    for index in range(count):
        name = f"{tower}.blocks.{index}"
        normed = norm(w, f"{name}.norms.0", x)
        packed = F.linear(normed, w[f"{name}.packed.weight"], w[f"{name}.packed.bias"])
        q, k, v = packed.unflatten(-1, (3, heads, -1)).transpose(1, 3).unbind(2)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)
        x = x + linear(w, f"{name}.attention.output", mixed)
        hidden = linear(w, f"{name}.feed_forward.0", norm(w, f"{name}.norms.1", x))
        x = x + linear(w, f"{name}.feed_forward.2", hidden * torch.sigmoid(1.702 * hidden))
    return x


def norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def with_fused_attention(
    w: Weights, images: Tensor, prompts: Tensor, *, vision_heads: int, text_heads: int
) -> Tensor:
    """Encode all images in one batch, and all prompts in one batch."""
    kernel = w["vision.patches.weight"]
    patches = F.conv2d(images, kernel, stride=kernel.shape[2]).flatten(2).mT
    x = torch.cat((w["vision.summary"].expand(len(images), 1, -1), patches), 1) + w["vision.positions.weight"]
    x = blocks(w, "vision", norm(w, "vision.norm_first", x), vision_heads, causal=False)
    seen = F.linear(norm(w, "vision.norm", x[:, 0]), w["vision.projection.weight"])
    ids = prompts.flatten(0, 1)
    x = F.embedding(ids, w["text.tokens.weight"]) + w["text.positions.weight"][: ids.shape[1]]
    x = blocks(w, "text", x, text_heads, causal=True)
    ends = x[torch.arange(len(ids), device=ids.device), ids.argmax(1)]
    said = F.linear(norm(w, "text.norm", ends), w["text.projection.weight"])
    means = F.normalize(said, dim=1).unflatten(0, prompts.shape[:2]).mean(1)
    scale = w["log_scale"].exp().clamp(max=100)
    return scale * F.normalize(seen, dim=1) @ F.normalize(means, dim=1).T


def packed(w: Weights, *others: Tensor) -> tuple[object, ...]:
    """Join the matrices of queries, keys and values."""
    joined = dict(w)
    for name, weight in w.items():
        if ".attention.query." in name:
            parts = [weight, *(w[name.replace("query", one)] for one in ("key", "value"))]
            joined[name.replace("attention.query", "packed")] = torch.cat(parts)
    return joined, *others


def zero_shot_case(bench: Bench) -> Case:
    images, classes, per_class, tokens = bench.pick(
        smoke=(2, 3, 2, 5), quick=(6, 5, 4, 16), full=(32, 10, 4, 77)
    )
    vision = bench.pick(
        smoke={"size": 4, "patch": 2, "width": 8, "heads": 2, "layers": 2, "dim": 6},
        quick={"size": 112, "patch": 16, "width": 192, "heads": 3, "layers": 4, "dim": 128},
        full={"size": 224, "patch": 32, "width": 768, "heads": 12, "layers": 12, "dim": 512},
    )
    text = bench.pick(
        smoke={"vocab": 9, "context": 5, "width": 4, "heads": 1, "layers": 2, "dim": 6},
        quick={"vocab": 1000, "context": 16, "width": 128, "heads": 2, "layers": 4, "dim": 128},
        full={"vocab": 49_408, "context": 77, "width": 512, "heads": 8, "layers": 12, "dim": 512},
    )

    def make() -> CLIP:
        return CLIP(VisionTower(**vision), TextTower(**text))

    with torch.device("meta"):
        weights = sum(weight.numel() for weight in make().parameters())
    side, places = vision["size"], (vision["size"] // vision["patch"]) ** 2

    def multiplied(width: int, layers: int, length: int) -> int:
        """Multiply-adds of a tower's blocks for one sequence."""
        return layers * length * width * (12 * width + 2 * length)

    products = images * multiplied(vision["width"], vision["layers"], places + 1)
    products += images * places * 3 * vision["patch"] ** 2 * vision["width"]
    products += classes * per_class * multiplied(text["width"], text["layers"], tokens)
    return Case.of_module(
        make,
        name="images classified",
        axes={"images": images, "classes": classes, "prompts": classes * per_class},
        inputs=lambda g: (
            torch.randn(images, 3, side, side, generator=g),
            torch.randint(text["vocab"], (classes, per_class, tokens), generator=g),
        ),
        variants=(
            Variant.of_module(make, one_at_a_time, name="one at a time", role="naive"),
            Variant(
                name="torch SDPA, packed projections",
                role="strong",
                call=partial(with_fused_attention, vision_heads=vision["heads"], text_heads=text["heads"]),
                prepare=packed,
            ),
            Variant.of_module(make, zero_shot, name="CLIP", role="paper"),
        ),
        cost={
            "forward": Cost(
                flops=2 * products,
                bytes=(weights + images * (3 * side**2 + classes)) * bench.dtype.itemsize,
            )
        },
    )


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    dim = bench.pick(smoke=8, quick=256, full=512)

    def inputs(generator: torch.Generator, pairs: int) -> tuple[Tensor, ...]:
        images, texts = (F.normalize(torch.randn(pairs, dim, generator=generator), dim=1) for _ in range(2))
        # The pairs are already similar, as they would be after some training.
        return images, F.normalize(images + 2 * texts, dim=1), torch.tensor(20.0)

    for pairs in bench.pick(smoke=(5,), quick=(256, 512), full=(4096, 16_384)):
        yield Case(
            name="loss of a batch",
            axes={"pairs": pairs},
            inputs=lambda generator, pairs=pairs: inputs(generator, pairs),
            variants=(
                Variant(name="image by image", role="naive", call=image_by_image),
                Variant(name="two cross-entropies", role="strong", call=two_cross_entropies),
                Variant(name="sums of the whole matrix", role="strong", call=sums_of_the_whole),
                Variant(name="in parts", role="paper", call=contrastive),
            ),
            # A fused kernel need not write the matrix to memory.
            cost=Cost.products(2 * pairs * pairs * dim, 2 * pairs * dim * bench.dtype.itemsize),
        )
    yield zero_shot_case(bench)
