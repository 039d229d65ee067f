"""Times attention with relative positions, and the whole network on seconds of speech."""

import math
from collections.abc import Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import Conformer, RelativeAttention, distances, shift

Weights = Mapping[str, Tensor]


def heads_of(w: Weights, x: Tensor, heads: int) -> tuple[Tensor, ...]:
    return tuple(
        F.linear(x, w[f"linear_{n}.weight"], w[f"linear_{n}.bias"]).unflatten(2, (heads, -1)).transpose(1, 2)
        for n in "qkv"
    )


def far_of(w: Weights, x: Tensor, heads: int) -> Tensor:
    far = F.linear(distances(x.shape[1], x.shape[2]).to(x), w["linear_pos.weight"])
    return far.unflatten(1, (heads, -1)).transpose(0, 1)


def pair_by_pair(w: Weights, x: Tensor, heads: int) -> Tensor:
    """Gather the position vector of each pair of query and key."""
    q, k, v = heads_of(w, x, heads)
    time = torch.arange(x.shape[1], device=x.device)
    index = time[None] - time[:, None] + x.shape[1] - 1
    vectors = far_of(w, x, heads)[:, index]  # heads, query, key, head
    contents = (q + w["pos_bias_u"][:, None]) @ k.mT
    places = torch.einsum("bhid,hijd->bhij", q + w["pos_bias_v"][:, None], vectors)
    weights = ((contents + places) / math.sqrt(q.shape[3])).softmax(-1)
    return F.linear((weights @ v).transpose(1, 2).flatten(2), w["linear_out.weight"], w["linear_out.bias"])


def gathered(w: Weights, x: Tensor, heads: int) -> Tensor:
    """Score all distances with one matrix multiplication, and gather the score of each pair."""
    q, k, v = heads_of(w, x, heads)
    time = torch.arange(x.shape[1], device=x.device)
    index = (time[None] - time[:, None] + x.shape[1] - 1).expand(*q.shape[:2], -1, -1)
    places = ((q + w["pos_bias_v"][:, None]) @ far_of(w, x, heads).mT).gather(3, index)
    contents = (q + w["pos_bias_u"][:, None]) @ k.mT
    weights = ((contents + places) / math.sqrt(q.shape[3])).softmax(-1)
    return F.linear((weights @ v).transpose(1, 2).flatten(2), w["linear_out.weight"], w["linear_out.bias"])


def shifted(w: Weights, x: Tensor, heads: int) -> Tensor:
    """Like `gathered`, with a shift instead of the gather."""
    q, k, v = heads_of(w, x, heads)
    places = shift((q + w["pos_bias_v"][:, None]) @ far_of(w, x, heads).mT)
    contents = (q + w["pos_bias_u"][:, None]) @ k.mT
    weights = ((contents + places) / math.sqrt(q.shape[3])).softmax(-1)
    return F.linear((weights @ v).transpose(1, 2).flatten(2), w["linear_out.weight"], w["linear_out.bias"])


RATE = 100  # frames per second


def utterance_by_utterance(network: Conformer, mel: Tensor, lengths: Tensor) -> Tensor:
    """Each utterance separately, without its padding. The others' padding is filled with zeros."""
    found = [
        network(row[None, :length], length[None])[0][0] for row, length in zip(mel, lengths, strict=True)
    ]
    return torch.nn.utils.rnn.pad_sequence(found, batch_first=True)


def in_one_batch(network: Conformer, mel: Tensor, lengths: Tensor) -> Tensor:
    found, rows = network(mel, lengths)
    return found * (torch.arange(found.shape[1], device=mel.device) < rows[:, None])[..., None]


def ready(w: Weights, mel: Tensor, lengths: Tensor) -> tuple[object, ...]:
    """Join the projections to queries, keys and values, and fold the untrained batch normalisation."""
    made = {}
    for name, weight in w.items():
        if name.endswith(("linear_q.weight", "linear_q.bias")):
            parts = [weight, *(w[name.replace("linear_q", f"linear_{one}")] for one in "kv")]
            made[name.replace("linear_q", "packed")] = torch.cat(parts)
        elif name.endswith("depthwise_conv.weight"):
            norm = name.replace("depthwise_conv.weight", "batch_norm")
            gain = w[f"{norm}.weight"] * (1 + 1e-5) ** -0.5  # the running mean is 0, and the variance is 1
            made[name] = weight * gain[:, None, None]
            made[name.replace("weight", "bias")] = w[f"{norm}.bias"]
        else:
            made[name] = weight
    return made, mel, lengths


def functional(w: Weights, mel: Tensor, lengths: Tensor, *, heads: int) -> Tensor:
    """The network from torch's functions. The table of distances is computed once for all blocks."""

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    def half(name: str, x: Tensor) -> Tensor:
        hidden = F.silu(linear(f"{name}.intermediate_dense", norm(f"{name}_layer_norm", x)))
        return torch.add(x, linear(f"{name}.output_dense", hidden), alpha=0.5)

    x = mel[:, None]
    for name in ("halve.0", "halve.1"):
        x = x * (torch.arange(x.shape[2], device=x.device) < lengths[:, None])[:, None, :, None]
        x = F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride=2, padding=1).relu()
        lengths = (lengths + 1) // 2
    x = linear("project", x.transpose(1, 2).flatten(2))
    inside = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
    table = distances(x.shape[1], x.shape[2]).to(x)
    for layer in range(len({name.split(".")[1] for name in w if name.startswith("layers.")})):
        own = f"layers.{layer}"
        x = half(f"{own}.ffn1", x)
        name = f"{own}.self_attn"
        q, k, v = (
            linear(f"{name}.packed", norm(f"{name}_layer_norm", x)).unflatten(2, (3, heads, -1)).unbind(2)
        )
        far = F.linear(table, w[f"{name}.linear_pos.weight"]).unflatten(1, (heads, -1)).permute(1, 2, 0)
        scores = shift((q + w[f"{name}.pos_bias_v"]).transpose(1, 2) @ far) / math.sqrt(q.shape[3])
        scores = scores.masked_fill(~inside[:, None, None], -math.inf)
        q, k, v = (one.transpose(1, 2) for one in (q + w[f"{name}.pos_bias_u"], k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=scores)
        x = x + linear(f"{name}.linear_out", mixed.transpose(1, 2).flatten(2))
        name = f"{own}.conv_module"
        hidden = F.glu(F.linear(norm(f"{name}.layer_norm", x), w[f"{name}.pointwise_conv1.weight"][..., 0]))
        kernel, bias = (w[f"{name}.depthwise_conv.{kind}"] for kind in ("weight", "bias"))
        hidden = (hidden * inside[..., None]).mT
        hidden = F.silu(F.conv1d(hidden, kernel, bias, padding=kernel.shape[2] // 2, groups=len(kernel)))
        x = x + F.linear(hidden.mT, w[f"{name}.pointwise_conv2.weight"][..., 0])
        x = norm(f"{own}.final_layer_norm", half(f"{own}.ffn2", x))
    return linear("labels", x).log_softmax(-1) * inside[..., None]


def speech_case(
    batch: int, seconds: float, mels: int, width: int, blocks: int, heads: int, kernel: int, itemsize: int
) -> Case:
    """Speech of `seconds` seconds. The last utterance is only three quarters as long."""
    frames, labels = round(RATE * seconds), 30

    def make() -> Conformer:
        return Conformer(mels, labels, width, blocks, heads, kernel, dropout=0.0).eval()

    with torch.device("meta"):
        weights = sum(weight.numel() for weight in make().parameters())
    rows, bands = (frames + 3) // 4, (mels + 3) // 4
    products = 9 * width * 4 * rows * bands + 9 * width**2 * rows * bands + rows * width**2 * bands
    products += blocks * rows * width * (16 * width + 4 * width + 3 * width + kernel + 4 * rows)
    products += blocks * 2 * rows * width**2 + rows * width * labels

    def inputs(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        lengths = torch.full((batch,), frames)
        lengths[-1] = frames - frames // 4
        mel = torch.randn(batch, frames, mels, generator=generator)
        return mel * (torch.arange(frames) < lengths[:, None])[..., None], lengths

    return Case.of_module(
        make,
        name="speech",
        axes={"seconds": batch * seconds, "width": width, "blocks": blocks},
        inputs=inputs,
        variants=(
            Variant.of_module(make, utterance_by_utterance, name="utterance by utterance", role="naive"),
            Variant(
                name="torch's functions, norms folded",
                role="strong",
                call=partial(functional, heads=heads),
                prepare=ready,
            ),
            Variant.of_module(make, in_one_batch, name="Conformer", role="paper"),
        ),
        cost={
            "forward": Cost(flops=2 * batch * products, bytes=(weights + batch * frames * mels) * itemsize)
        },
    )


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    sizes = bench.pick(
        smoke=((2, 5, 8, 2),),
        quick=((4, 100, 144, 4), (4, 400, 144, 4)),
        full=((4, 100, 512, 8), (4, 400, 512, 8), (4, 1600, 512, 8)),
    )
    for batch, time, width, heads in sizes:
        make = partial(RelativeAttention, width, heads)
        tokens = batch * time
        products = 4 * tokens * width**2 + (2 * time - 1) * width**2
        products += batch * time * width * (2 * time + 2 * time - 1)
        moved = (5 * width**2 + 2 * tokens * width) * bench.dtype.itemsize
        yield Case.of_module(
            make,
            name="relative attention",
            axes={"time": time, "width": width},
            inputs=lambda g, batch=batch, time=time, width=width: (
                torch.randn(batch, time, width, generator=g),
            ),
            variants=(
                Variant(name="one vector per pair", role="naive", call=partial(pair_by_pair, heads=heads)),
                Variant(name="one product, gathered", role="strong", call=partial(gathered, heads=heads)),
                Variant(name="one product, shifted", role="strong", call=partial(shifted, heads=heads)),
                Variant.of_module(make, name="shifted, fused attention", role="paper"),
            ),
            cost=Cost.products(2 * products, moved),
            gradients=(0, 1),
        )
    yield speech_case(
        *bench.pick(
            smoke=(2, 0.16, 6, 8, 2, 2, 3),
            quick=(2, 4.0, 80, 144, 4, 4, 31),
            full=(8, 10.0, 80, 144, 16, 4, 31),
        ),
        bench.dtype.itemsize,
    )
