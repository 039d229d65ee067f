"""Times word-by-word generation with and without a carried state, and with torch's LSTM."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import END, Seq2Seq


def again_and_again(model: Seq2Seq, source: Tensor, words: Tensor) -> Tensor:
    """Logits after each prefix, each recomputed from the first word."""
    ends = range(1, words.shape[1] + 1)
    return torch.stack([model(source, words[:, :end])[:, -1] for end in ends], 1)


def carried_on(model: Seq2Seq, source: Tensor, words: Tensor) -> Tensor:
    state, word, logits = model.read(source), torch.full_like(words[:, :1], END), []
    for following in words.split(1, 1):
        states, state = model.writer(word, state)
        logits.append(model.readout(states))
        word = following
    return torch.cat(logits, 1)


def torchs(weights: dict[str, Tensor], source: Tensor, words: Tensor) -> Tensor:
    """Logits after each prefix from `torch.lstm`, which runs all layers of a stack in one call."""
    layers = sum(name.startswith("reader.") and name.endswith("recurrent.weight") for name in weights)

    def stack(name: str, words: Tensor, last: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        own: list[Tensor] = []
        for i in range(layers):
            part = f"{name}.layers.{i}"
            bias = weights[f"{part}.input.bias"]
            own += [
                weights[f"{part}.input.weight"],
                weights[f"{part}.recurrent.weight"],
                bias,
                torch.zeros_like(bias),
            ]
        x = F.embedding(words, weights[f"{name}.embed.weight"])
        y, h, c = torch.lstm(x, last, own, True, layers, 0.0, False, False, True)
        return y, (h, c)

    zeros = weights["readout.weight"].new_zeros(layers, len(source), weights["readout.weight"].shape[1])
    _, state = stack("reader", source.flip(1), (zeros, zeros))
    word, logits = torch.full_like(words[:, :1], END), []
    for following in words.split(1, 1):
        states, state = stack("writer", word, state)
        logits.append(F.linear(states, weights["readout.weight"], weights["readout.bias"]))
        word = following
    return torch.cat(logits, 1)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    batch, vocab, hidden, layers = bench.pick(
        smoke=(2, 7, 4, 2), quick=(4, 500, 128, 2), full=(16, 8000, 512, 4)
    )
    for length in bench.pick(smoke=(3,), quick=(10, 30), full=(20, 50)):

        def make() -> Seq2Seq:
            return Seq2Seq(vocab, vocab, hidden=hidden, layers=layers)

        products = (
            2 * 2 * layers * 8 * hidden**2 + 2 * hidden * vocab
        )  # for one source word and one target word
        weights = 2 * layers * 8 * hidden**2 + hidden * vocab
        yield Case.of_module(
            make,
            name="word by word",
            axes={"words": length, "hidden": hidden, "layers": layers},
            inputs=lambda generator, length=length: (
                torch.randint(vocab, (batch, length), generator=generator),
                torch.randint(vocab, (batch, length), generator=generator),
            ),
            variants=(
                Variant.of_module(make, again_and_again, name="again and again", role="naive"),
                Variant(name="torch lstm", role="strong", call=torchs),
                Variant.of_module(make, carried_on, name="state carried on", role="paper"),
            ),
            cost={
                "forward": Cost(
                    flops=batch * length * products,
                    bytes=(weights + batch * length * vocab) * bench.dtype.itemsize,
                )
            },
        )
