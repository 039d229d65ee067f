"""Times the scan, one decoding step, and generation after a long context."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .loop import discretise, scan_loop
from .model import Config, Mamba
from .scan import read, scan_associative, scan_chunked, selective_scan

Weights = Mapping[str, Tensor]


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    batch, order = bench.pick(smoke=(2, 4), quick=(1, 16), full=(4, 16))
    sizes = bench.pick(smoke=((9, 3),), quick=((512, 64),), full=((1024, 256), (4096, 256), (2048, 1536)))
    for time, channels in sizes:
        yield scan_case(bench, batch, time, channels, order)
    yield decoding_case(
        bench,
        Config(
            layers=bench.pick(smoke=2, quick=4, full=12),
            model=bench.pick(smoke=8, quick=256, full=768),
            vocab=256,
        ),
        context=bench.pick(smoke=5, quick=256, full=1024),
    )
    yield generation_case(
        *bench.pick(smoke=(2, 8, 2), quick=(4, 256, 4), full=(12, 768, 12)),
        batch=bench.pick(smoke=1, quick=8, full=8),
        context=bench.pick(smoke=5, quick=2048, full=2048),
        count=bench.pick(smoke=2, quick=4, full=16),
    )


# The scan


def scan_inputs(
    generator: torch.Generator, batch: int, time: int, channels: int, order: int
) -> tuple[Tensor, ...]:
    """Inputs of a scan: x, Δ of about 0.05, A from -1 to -order, B and C. Decays are between 0 and 1."""
    x, delta = torch.randn(2, batch, time, channels, generator=generator)
    B, C = torch.randn(2, batch, time, order, generator=generator)
    return x, F.softplus(delta - 3), -torch.arange(1.0, order + 1).repeat(channels, 1), B, C


def from_zero(scan: Any, x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The outputs of a scan that starts from a zero state, as in training."""
    return scan(x, delta, A, B, C, x.new_zeros(len(x), *A.shape))[0]


def torchs(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """PyTorch's associative scan, in its generic (eager) mode."""
    from torch._higher_order_ops.associative_scan import associative_scan

    def combine(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return left[0] * right[0], right[0] * left[1] + right[1]

    decays, drives = discretise(x, delta, A, B)
    products, states = associative_scan(combine, (decays, drives), dim=1, combine_mode="generic")
    states = states + products * state[:, None]
    return read(states, C), states[:, -1]


def step_by_step(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """A loop that computes each step's coefficients on the fly and stores no states."""
    driven, outputs = delta * x, []
    steps = zip(delta.unbind(1), driven.unbind(1), B.unbind(1), C.unbind(1), strict=True)
    for step, drive, into, out in steps:
        state = torch.addcmul((step[..., None] * A).exp() * state, drive[..., None], into[:, None])
        outputs.append((state @ out[..., None])[..., 0])
    return torch.stack(outputs, 1), state


class KeptStates(torch.autograd.Function):
    """h_t = decay_t h_{t-1} + drive_t along the first axis. Keeps all states for the backward pass."""

    @staticmethod
    def forward(ctx: Any, decays: Tensor, drives: Tensor, state: Tensor) -> Tensor:
        states, start = drives.clone(), state
        for decay, here in zip(decays.unbind(), states.unbind(), strict=True):
            state = here.addcmul_(decay, state)
        ctx.save_for_backward(decays, states, start)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dstates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        decays, states, start = ctx.saved_tensors
        ddrives = dstates.clone()
        gradient, decay = ddrives.unbind(), decays.unbind()
        for t in reversed(range(len(gradient) - 1)):
            gradient[t].addcmul_(decay[t + 1], gradient[t + 1])
        return ddrives * torch.cat((start[None], states[:-1])), ddrives, decay[0] * gradient[0]


def states_kept(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """A loop that stores all coefficients and states in main memory. Time is the first axis."""
    decays, drives = discretise(*(tensor.transpose(0, 1) for tensor in (x, delta)), A, B.transpose(0, 1))
    states: Tensor = KeptStates.apply(decays, drives, state)
    return read(states, C.transpose(0, 1)).transpose(0, 1), states[-1]


def authors(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The authors' CUDA kernels, which expect time as the last axis."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    x, delta, B, C = (tensor.mT.contiguous() for tensor in (x, delta, B, C))
    return selective_scan_fn(x, delta, A, B, C).mT


def scan_cost(batch: int, time: int, channels: int, order: int, *, itemsize: int) -> dict[str, Cost]:
    """The cost of a scan: seven operations per state entry, and twice as many in the backward pass. An
    exponential counts as one operation.

    The states never reach main memory. x, Δ, B and C are read once, and y is written once.
    """
    flops = 7 * batch * time * channels * order
    moved = batch * time * (3 * channels + 2 * order)
    return {
        "forward": Cost(flops=flops, bytes=moved * itemsize),
        "forward+backward": Cost(flops=3 * flops, bytes=(2 * moved + batch * time * channels) * itemsize),
    }


def scan_case(bench: Bench, batch: int, time: int, channels: int, order: int) -> Case:
    shape = batch, time, channels, order
    # With this many channels, Python's overhead is negligible, and no scan in PyTorch beats a loop.
    many = (Variant(name="loop, step by step", role="strong", call=partial(from_zero, step_by_step)),)
    return Case(
        name="selective scan",
        axes={"channels": channels, "time": time},
        inputs=partial(scan_inputs, batch=batch, time=time, channels=channels, order=order),
        variants=(
            Variant(name="loop", role="naive", call=partial(from_zero, scan_loop)),
            Variant(name="torch associative_scan", role="strong", call=partial(from_zero, torchs)),
            Variant(name="tree, all states kept", role="strong", call=partial(from_zero, scan_associative)),
            Variant(name="loop, all states kept", role="strong", call=partial(from_zero, states_kept)),
            *(many if channels >= 256 else ()),
            Variant(name="chunks side by side", role="paper", call=partial(from_zero, scan_chunked)),
            Variant(name="selective scan", role="paper", call=partial(from_zero, selective_scan)),
            Variant(name="mamba_ssm", role="vendor", call=authors, needs=bench.needs("cuda", "mamba_ssm")),
        ),
        oracle=partial(from_zero, scan_loop),
        cost=scan_cost(*shape, itemsize=bench.dtype.itemsize),
    )


# A step of decoding


def read_anew(mamba: Mamba, ids: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
    ids = torch.cat((ids, token), 1)
    return mamba(ids)[0][:, -1], ids


def step(mamba: Mamba, state: list[Any], token: Tensor) -> tuple[Tensor, list[Any]]:
    scores, state = mamba(token, state)
    return scores[:, -1], state


def carried(config: Config, weights: Weights, ids: Tensor, token: Tensor) -> tuple[Any, ...]:
    """Arguments of `step`: weights, the state after `ids`, and the next token."""
    with torch.device("meta"):
        mamba = Mamba(config)
    return weights, functional_call(mamba, dict(weights), (ids,))[1], token


def packed(config: Config, weights: Weights, ids: Tensor, token: Tensor) -> tuple[Any, ...]:
    """Arguments of `packed_step`. For each layer, one matrix combines the projections to Δ, B and C."""
    layers = []
    for index in range(config.layers):
        own = {
            name.removeprefix(f"blocks.{index}."): weight
            for name, weight in weights.items()
            if name.startswith(f"blocks.{index}.")
        }
        to_delta, rank = own["ssm.dt_proj.weight"], own["ssm.dt_proj.weight"].shape[1]
        x_proj = own["ssm.x_proj.weight"]
        layers.append(
            {
                "norm": weights[f"norms.{index}.weight"],
                "in_proj": own["in_proj.weight"],
                "taps": own["conv1d.weight"][:, 0],
                "bias": own["conv1d.bias"],
                "select": torch.cat((to_delta @ x_proj[:rank], x_proj[rank:])),
                "dt_bias": own["ssm.dt_proj.bias"],
                "A": -own["ssm.A_log"].exp(),
                "D": own["ssm.D"],
                "out_proj": own["out_proj.weight"],
            }
        )
    ends = {"embedding": weights["embedding.weight"], "norm": weights["norm.weight"]}
    return {"layers": layers, **ends}, carried(config, weights, ids, token)[1], token


def packed_step(weights: Any, state: list[Any], token: Tensor) -> tuple[Tensor, list[Any]]:
    """One decoding step in the fewest PyTorch operations that we found. Updates the state in place."""
    x = F.embedding(token[:, 0], weights["embedding"])
    after = []
    for w, (recent, h) in zip(weights["layers"], state, strict=True):
        signal, gate = F.linear(F.rms_norm(x, x.shape[-1:], w["norm"], 1e-5), w["in_proj"]).chunk(2, -1)
        recent = torch.cat((recent, signal[..., None]), -1)
        signal = F.silu(torch.linalg.vecdot(recent, w["taps"]) + w["bias"])
        channels, order = w["A"].shape
        dt, B, C = F.linear(signal, w["select"]).split((channels, order, order), -1)
        delta = F.softplus(dt + w["dt_bias"])
        h.mul_((delta[..., None] * w["A"]).exp_()).addcmul_((delta * signal)[..., None], B[:, None])
        y = torch.addcmul((h @ C[..., None])[..., 0], w["D"], signal)
        x = x + F.linear(y * F.silu(gate), w["out_proj"])
        after.append((recent[..., 1:], h))
    return F.rms_norm(x, x.shape[-1:], weights["norm"], 1e-5) @ weights["embedding"].mT, after


def decoding_case(bench: Bench, config: Config, context: int) -> Case:
    make = partial(Mamba, config)
    with torch.device("meta"):
        weights = sum(weight.numel() for weight in make().parameters())

    def inputs(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        ids = torch.randint(config.vocab, (1, context + 1), generator=generator)
        return ids[:, :-1], ids[:, -1:]

    states = config.layers * 2 * config.model * (16 + 3)
    return Case.of_module(
        make,
        name="decoding",
        axes={"context": context},
        inputs=inputs,
        variants=(
            Variant.of_module(make, read_anew, name="text anew", role="naive"),
            Variant(name="packed step", role="strong", call=packed_step, prepare=partial(packed, config)),
            Variant.of_module(
                make, step, name="carried state", role="paper", prepare=partial(carried, config)
            ),
        ),
        cost={"decode": Cost(flops=2 * weights, bytes=(weights + 2 * states) * bench.dtype.itemsize)},
    )


# Generation after a long text


class Transformer(nn.Module):
    """A pre-norm Transformer with a feed-forward layer of four times the model size, decoding from a KV
    cache.

    attend  attention of one query, (batch, heads, 1, dim), to keys and values (batch, heads, time, dim)
    """

    def __init__(self, layers: int, model: int, heads: int, vocab: int) -> None:
        super().__init__()
        self.heads = heads
        self.embedding = nn.Embedding(vocab, model)
        self.norms = nn.ModuleList(nn.RMSNorm(model, eps=1e-5) for _ in range(2 * layers + 1))
        self.qkv = nn.ModuleList(nn.Linear(model, 3 * model, bias=False) for _ in range(layers))
        self.output = nn.ModuleList(nn.Linear(model, model, bias=False) for _ in range(layers))
        self.widen = nn.ModuleList(nn.Linear(model, 4 * model, bias=False) for _ in range(layers))
        self.narrow = nn.ModuleList(nn.Linear(4 * model, model, bias=False) for _ in range(layers))

    def forward(self, token: Tensor, cache: Any, attend: Any) -> Tensor:
        """Logits after `token` (batch, 1). `attend(layer, q, k, v, cache)` appends k and v to the cache."""
        x, norms = self.embedding(token), iter(self.norms)
        for layer, qkv in enumerate(self.qkv):
            q, k, v = qkv(next(norms)(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            x = x + self.output[layer](attend(layer, q, k, v, cache).transpose(1, 2).flatten(2))
            x = x + self.narrow[layer](F.gelu(self.widen[layer](next(norms)(x))))
        return next(norms)(x) @ self.embedding.weight.mT


def by_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v


def in_room(attention: Any, context: int, step: int) -> Any:
    """Attention from a cache (layers, 2, batch, heads, room, dim) with `context + step` filled positions."""

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, cache: Tensor) -> Tensor:
        end = context + step + 1
        cache[layer, 0, :, :, end - 1 : end], cache[layer, 1, :, :, end - 1 : end] = k, v
        return attention(q, *cache[layer, :, :, :, :end])

    return attend


def appended(layer: int, q: Tensor, k: Tensor, v: Tensor, cache: list[Tensor]) -> Tensor:
    cache[layer] = torch.cat((cache[layer], torch.stack((k, v))), -2)
    return F.scaled_dot_product_attention(q, *cache[layer])


@torch.no_grad()
def write_with_mamba(models: nn.ModuleDict, state: Any, token: Tensor, *, count: int) -> dict[str, int]:
    for _ in range(count):
        scores, state = models["mamba"](token, state)
        token = scores.argmax(-1)
    return {"reached": True, "tokens": count * len(token)}


@torch.no_grad()
def write_with_transformer(
    models: nn.ModuleDict, cache: Tensor, token: Tensor, *, count: int, context: int, attention: Any
) -> dict[str, int]:
    for step in range(count):
        token = models["transformer"](token, cache, in_room(attention, context, step)).argmax(-1)
    return {"reached": True, "tokens": count * len(token)}


@torch.no_grad()
def write_appending(models: nn.ModuleDict, cache: Tensor, token: Tensor, *, count: int) -> dict[str, int]:
    parts = list(cache)
    for _ in range(count):
        token = models["transformer"](token, parts, appended).argmax(-1)
    return {"reached": True, "tokens": count * len(token)}


def generation_case(
    layers: int, model: int, heads: int, *, batch: int, context: int, count: int, vocab: int = 256
) -> Case:
    """Compares `layers` Mamba blocks with half as many Transformer blocks, each twice as large."""

    def make() -> nn.ModuleDict:
        mamba = Mamba(Config(layers=layers, model=model, vocab=vocab))
        return nn.ModuleDict({"mamba": mamba, "transformer": Transformer(layers // 2, model, heads, vocab)})

    def inputs(generator: torch.Generator) -> tuple[Any, ...]:
        cache = torch.randn(layers // 2, 2, batch, heads, context, model // heads, generator=generator)
        blocks = [
            tuple(torch.randn(batch, 2 * model, size, generator=generator) for size in (3, 16))
            for _ in range(layers)
        ]
        token = torch.randint(vocab, (batch, 1), generator=generator)
        return {"cache": cache, "blocks": blocks}, token

    def with_room(weights: Weights, states: Any, token: Tensor) -> tuple[Any, ...]:
        cache = states["cache"]
        return weights, torch.cat((cache, cache[..., :count, :]), -2), token

    write = partial(write_with_transformer, count=count, context=context)
    return Case.of_module(
        make,
        name="generation",
        axes={"context": context, "batch": batch},
        inputs=inputs,
        variants=(
            Variant.of_module(
                make,
                partial(write_appending, count=count),
                name="Transformer, cache appended to",
                role="naive",
                prepare=lambda weights, states, token: (weights, states["cache"], token),
            ),
            Variant.of_module(
                make,
                partial(write, attention=F.scaled_dot_product_attention),
                name="Transformer, cache with room",
                role="strong",
                prepare=with_room,
            ),
            Variant.of_module(
                make,
                partial(write, attention=by_products),
                name="Transformer, two products",
                role="strong",
                prepare=with_room,
            ),
            Variant.of_module(
                make,
                partial(write_with_mamba, count=count),
                name="Mamba",
                role="paper",
                prepare=lambda weights, states, token: (weights, states["blocks"], token),
            ),
        ),
        cost={"until": None},
    )
