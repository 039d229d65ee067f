"""Times attention over decoder steps, and speech generated frame by frame by the whole network."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import LocationSensitiveAttention, Sizes, Tacotron2

HOP = 0.0125  # seconds between frames (section 2.1)

Weights = Mapping[str, Tensor]
Speak = Callable[[Tacotron2, Tensor, Tensor, int], Tensor]
Queries = Float[Tensor, "steps batch query"]
Memory = Float[Tensor, "batch symbols memory"]
Contexts = Float[Tensor, "steps batch memory"]


class Steps(nn.Module):
    """The decoder's attention on its own, for given queries."""

    def __init__(self, query: int, memory: int, dim: int, filters: int, taps: int) -> None:
        super().__init__()
        self.attention = LocationSensitiveAttention(query, memory, dim, filters, taps)

    def forward(self, queries: Queries, memory: Memory) -> Contexts:
        keys = self.attention.memory_layer(memory)
        mask = torch.ones(memory.shape[:2], dtype=torch.bool, device=memory.device)
        past, contexts = memory.new_zeros(len(memory), 2, memory.shape[1]), []
        for query in queries:
            weights = self.attention(query, keys, past, mask)
            past = torch.stack((weights, past[:, 1] + weights), 1)
            contexts.append((weights.unsqueeze(1) @ memory).squeeze(1))
        return torch.stack(contexts)


def keys_each_step(w: Weights, queries: Queries, memory: Memory) -> Contexts:
    """The equation as written, with everything recomputed in every step."""
    kernel, dense = (
        w["attention.location_layer.location_conv.weight"],
        "attention.location_layer.location_dense",
    )
    previous = total = memory.new_zeros(memory.shape[:2])
    contexts = []
    for query in queries:
        f = F.conv1d(torch.stack((previous, total), 1), kernel, padding=kernel.shape[2] // 2)
        hidden = (
            F.linear(query, w["attention.query_layer.weight"]).unsqueeze(1)
            + F.linear(memory, w["attention.memory_layer.weight"])
            + F.linear(f.mT, w[f"{dense}.weight"])
        )
        previous = F.linear(hidden.tanh(), w["attention.v.weight"]).squeeze(-1).softmax(-1)
        total = total + previous
        contexts.append((previous.unsqueeze(1) @ memory).squeeze(1))
    return torch.stack(contexts)


def one_convolution(w: Weights, queries: Queries, memory: Memory) -> Contexts:
    """Project all keys and queries at once, and merge the filters and their projection into one kernel."""
    kernel = w["attention.location_layer.location_conv.weight"]
    dense = w["attention.location_layer.location_dense.weight"]
    folded, half = torch.einsum("df,fct->dct", dense, kernel), kernel.shape[2] // 2
    keys = F.linear(memory, w["attention.memory_layer.weight"]).mT
    asked = F.linear(queries, w["attention.query_layer.weight"]).unsqueeze(-1)
    v = w["attention.v.weight"]
    previous = total = memory.new_zeros(memory.shape[:2])
    contexts = []
    for query in asked:
        f = F.conv1d(torch.stack((previous, total), 1), folded, padding=half)
        previous = (v @ (f + keys + query).tanh()).squeeze(1).softmax(-1)
        total = total + previous
        contexts.append((previous.unsqueeze(1) @ memory).squeeze(1))
    return torch.stack(contexts)


def spoken(network: Tacotron2, text: Tensor, symbols: Tensor, steps: int) -> Tensor:
    return network.speak(text, symbols, steps)[0].refined


def text_by_text(network: Tacotron2, text: Tensor, symbols: Tensor, steps: int) -> Tensor:
    """Speak every text separately, without padding."""
    rows = zip(text, symbols.tolist(), symbols.split(1), strict=True)
    return torch.cat([spoken(network, row[None, :count], length, steps) for row, count, length in rows])


@torch.no_grad()
def merged(network: Tacotron2, text: Tensor, symbols: Tensor, steps: int) -> Tensor:
    """A decoder from torch's cells with merged layers.

    Each step has one convolution for the features of past attention, and one matrix for frames and stop. It
    has no check for the end.
    """
    memory, mask = network.read(text, symbols)
    decoder, attention = network.decoder, network.decoder.attention_layer
    location = attention.location_layer
    kernel = torch.einsum("df,fct->dct", location.location_dense.weight, location.location_conv.weight)
    keys, v, half = attention.memory_layer(memory).mT, attention.v.weight, kernel.shape[2] // 2
    last_layers = decoder.linear_projection, decoder.gate_layer
    weight, bias = (torch.cat([getattr(layer, kind) for layer in last_layers]) for kind in ("weight", "bias"))
    hidden = cell = upper = upper_cell = memory.new_zeros(len(text), decoder.attention_rnn.hidden_size)
    past, context = memory.new_zeros(len(text), 2, text.shape[1]), memory.new_zeros(memory[:, 0].shape)
    frame, found, keep = memory.new_zeros(len(text), decoder.bands), [], 1 - decoder.zoneout
    for _ in range(steps):
        given = torch.cat((decoder.prenet(frame), context), 1)
        new = decoder.attention_rnn(given, (hidden, cell))
        hidden, cell = torch.lerp(hidden, new[0], keep), torch.lerp(cell, new[1], keep)
        asked = attention.query_layer(hidden)[..., None]
        energies = v @ (F.conv1d(past, kernel, padding=half) + keys + asked).tanh()
        weights = energies[:, 0].masked_fill(~mask, -torch.inf).softmax(-1)
        past = torch.stack((weights, past[:, 1] + weights), 1)
        context = (weights[:, None] @ memory)[:, 0]
        new = decoder.decoder_rnn(torch.cat((hidden, context), 1), (upper, upper_cell))
        upper, upper_cell = torch.lerp(upper, new[0], keep), torch.lerp(upper_cell, new[1], keep)
        values = F.linear(torch.cat((upper, context), 1), weight, bias)[:, :-1]
        found.append(values)
        frame = values[:, -decoder.bands :]
    mel = torch.stack(found, 1).unflatten(2, (decoder.group, decoder.bands)).flatten(1, 2).mT
    return mel + network.postnet(mel)


def speech(
    network: Tacotron2, text: Tensor, symbols: Tensor, *, speak: Speak, steps: int
) -> dict[str, float]:
    """Generate `steps` groups of frames for every text. Returns the seconds of speech, and whether all values
    are finite."""
    mel = speak(network, text, symbols, steps)
    return {"reached": float(mel.isfinite().all()), "seconds of speech": HOP * mel.shape[0] * mel.shape[2]}


def speech_weight(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    if name == "decoder.gate_layer.bias":
        return torch.full(shape, -100.0)  # the network never stops by itself
    values = torch.randn(shape, generator=generator)
    return values / shape[1:].numel() ** 0.5 if len(shape) > 1 else 0.1 * values


def speech_case(sizes: Sizes, batch: int, symbols: int, steps: int) -> Case:
    def make() -> Tacotron2:
        return Tacotron2(sizes).eval()

    ways = (
        ("text by text", "naive", text_by_text),
        ("torch's cells, merged layers", "strong", merged),
        ("Tacotron 2", "paper", spoken),
    )
    lengths = torch.linspace(symbols / 2, symbols, batch).long()
    return Case.of_module(
        make,
        name="speech",
        axes={"seconds": HOP * batch * steps * sizes.group, "texts": batch, "symbols": symbols},
        inputs=lambda g: (torch.randint(sizes.symbols, (batch, symbols), generator=g), lengths.clone()),
        weight=speech_weight,
        variants=[
            Variant.of_module(make, partial(speech, speak=way, steps=steps), name=name, role=role)
            for name, role, way in ways
        ],
        cost={"until": None},
    )


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    batch, symbols, steps = bench.pick(smoke=(2, 5, 3), quick=(4, 100, 12), full=(16, 150, 40))
    query, memory, dim, filters, taps = bench.pick(
        smoke=(6, 5, 4, 3, 5), quick=(1024, 512, 128, 32, 31), full=(1024, 512, 128, 32, 31)
    )

    def make() -> Steps:
        return Steps(query, memory, dim, filters, taps)

    once = batch * symbols * memory * dim + steps * batch * query * dim
    each = batch * symbols * (2 * filters * taps + filters * dim + dim + memory)
    weights = dim * (query + memory + filters + 1) + 2 * filters * taps
    moved = weights + batch * symbols * memory + steps * batch * (query + memory)
    yield Case.of_module(
        make,
        name="attention steps",
        axes={"symbols": symbols, "steps": steps, "batch": batch},
        inputs=lambda g: (
            torch.randn(steps, batch, query, generator=g),
            torch.randn(batch, symbols, memory, generator=g),
        ),
        variants=(
            Variant(name="keys at each step", role="naive", call=keys_each_step),
            Variant(name="one convolution", role="strong", call=one_convolution),
            Variant.of_module(make, name="keys once", role="paper"),
        ),
        cost=Cost.products(2 * (once + steps * each), moved * bench.dtype.itemsize),
    )
    small = Sizes(9, 6, 8, 2, 5, 7, 4, 3, 5, postnet=8, refinements=2)
    half = Sizes(encoder=256, rnn=512, prenet=128, postnet=256)
    yield speech_case(
        *bench.pick(smoke=(small, 2, 5, 4), quick=(half, 2, 40, 20), full=(Sizes(), 4, 100, 200))
    )
