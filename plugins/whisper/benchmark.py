"""Times decoding token by token, with and without a KV cache."""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import SIZES, Size, Whisper


def whole_text(model: Whisper, mel: Tensor, tokens: Tensor) -> Tensor:
    """Recompute each token's logits from the whole text before it. The audio is encoded once."""
    sound = model.encoder(mel)
    return torch.cat(
        [model.decoder(tokens[:, : count + 1], sound)[0][:, -1:] for count in range(tokens.shape[1])], 1
    )


def kept(model: Whisper, mel: Tensor, tokens: Tensor) -> Tensor:
    """Cache keys and values of text and audio, as the paper's decoder does at inference."""
    logits, seen = model.decoder(tokens[:, :1], model.encoder(mel))
    every = [logits]
    for token in tokens[:, 1:].split(1, 1):
        logits, seen = model.decoder(token, None, seen)
        every.append(logits)
    return torch.cat(every, 1)


def in_place(model: Whisper, mel: Tensor, tokens: Tensor) -> Tensor:
    """Write keys and values into buffers of the text's final length."""
    sound, decoder = model.encoder(mel), model.decoder
    crossed = [layer.encoder_attn.project(sound) for layer in decoder.layers]
    batch, count = tokens.shape
    tables = [
        torch.empty(2, batch, layer.self_attn.heads, count, k.shape[3], dtype=k.dtype, device=k.device)
        for layer, (k, _) in zip(decoder.layers, crossed, strict=True)
    ]
    every = []
    for index in range(count):
        x = decoder.embed_tokens(tokens[:, index : index + 1]) + decoder.embed_positions.weight[index]
        for layer, table, (sound_keys, sound_values) in zip(decoder.layers, tables, crossed, strict=True):
            hidden = layer.self_attn_layer_norm(x)
            own = layer.self_attn.project(hidden)
            table[0, :, :, index], table[1, :, :, index] = own[0][:, :, 0], own[1][:, :, 0]
            x = x + layer.self_attn(hidden, table[0, :, :, : index + 1], table[1, :, :, : index + 1])
            x = x + layer.encoder_attn(layer.encoder_attn_layer_norm(x), sound_keys, sound_values)
            x = x + layer.fc2(F.gelu(layer.fc1(layer.final_layer_norm(x))))
        every.append(F.linear(decoder.layer_norm(x), decoder.embed_tokens.weight))
    return torch.cat(every, 1)


def inputs(generator: torch.Generator, size: Size, tokens: int) -> tuple[Tensor, Tensor]:
    mel = torch.randn(1, size.frames, size.mels, generator=generator)
    return mel, torch.randint(size.vocab, (1, tokens), generator=generator)


def cost(size: Size, tokens: int, itemsize: int) -> dict[str, Cost]:
    """Matrix multiplications of the encoder, once, and of the decoder for each token, with the KV cache."""
    d, n = size.width, size.frames // 2
    encoder = 3 * d * size.mels * 2 * n + 3 * d * d * n + size.layers * (12 * d * d * n + 2 * n * n * d)
    crossed = size.layers * 2 * d * d * n
    token = size.layers * (14 * d * d + 2 * d * n + d * tokens) + size.vocab * d
    weights = size.layers * 26 * d * d + size.vocab * d + 3 * d * (d + size.mels)
    return {"forward": Cost(flops=2 * (encoder + crossed + tokens * token), bytes=weights * itemsize)}


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    short = Size(2, 128, 2, mels=80, frames=1000, vocab=1000)
    sizes = bench.pick(
        smoke=((Size(1, 8, 2, mels=4, frames=6, tokens=5, vocab=7), 4),),
        quick=((short, 24),),
        full=((short, 24), (SIZES["tiny"], 64)),
    )
    for size, tokens in sizes:
        make = partial(Whisper, size)
        yield Case.of_module(
            make,
            name="text from sound",
            axes={"tokens": tokens, "width": size.width},
            inputs=partial(inputs, size=size, tokens=tokens),
            variants=(
                Variant.of_module(make, whole_text, name="whole text at each step", role="naive"),
                Variant.of_module(make, in_place, name="buffers of the final length", role="strong"),
                Variant.of_module(make, kept, name="KV cache", role="paper"),
            ),
            cost=cost(size, tokens, bench.dtype.itemsize),
        )
