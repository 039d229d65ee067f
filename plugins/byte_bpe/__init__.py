"""Byte-level byte-pair encoding: split words into subwords made of bytes, so no text is unknown.

Sennrich, Haddow and Birch 2015, "Neural Machine Translation of Rare Words with Subword Units", arXiv
1508.07909. On bytes: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (GPT-2),
section 2.2.

The problem. A vocabulary of words lacks some words, for example names, numbers, compounds, typing errors and
words of other languages. Characters or bytes cover every text, but the sequences are several times as long,
and the cost of attention is quadratic in their length.

The idea. Start from single symbols, find the most frequent pair of neighbouring symbols, merge the pair into
a new symbol, and repeat until the vocabulary is full. Frequent words become one token, and rare words become
a few tokens. GPT-2 starts from the 256 bytes, so every text can be encoded. It splits a text into words
first, so no token spans a word and its punctuation. GPT-3 uses GPT-2's 50,257 tokens, and most later language
models use a larger vocabulary of the same kind.

This folder. `training` has the paper's loop, which recounts all pairs before each merge, and a faster version
with an index and a heap. `words` has GPT-2's byte order and its pattern for splitting text. `encoding` has
GPT-2's loop, and a faster version with a heap and a cache. `experiment` measures how the number of bytes per
token grows with the number of merges, for the most frequent pairs, random pairs, pairs that are counted once,
and pruned substrings. Nothing is trained by gradient descent.

A symbol is an id, and `tokens[id]` gives its bytes. The first 256 ids are the bytes in GPT-2's order.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from readtrack import data
from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .encoding import GPT2_TOKENS, ByteBPE
from .experiment import LOSSLESS, OPEN, SHORT, experiment
from .rust import rust_tokenizer, train_in_rust
from .training import train, train_slowly
from .words import split


@hookimpl
def implementation() -> type[ByteBPE]:
    return ByteBPE


Text = UInt8[Tensor, " bytes"]


def on_tensors(function: Callable[[str], Sequence[Any]], text: Text) -> Int[Tensor, "*ids"]:
    """Applies `function` to a text given as bytes, and returns the ids as a tensor, for the benchmark."""
    return torch.tensor(function(text.cpu().numpy().tobytes().decode()), device=text.device)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    prose = torch.frombuffer(bytearray(data.text().encode()), dtype=torch.uint8)
    rust = bench.needs("tokenizers")

    def cut(generator: torch.Generator, length: int) -> tuple[Text]:
        start = int(torch.randint(len(prose) - length, (), generator=generator))
        return (prose[start : start + length].clone(),)

    def variants(*calls: tuple[str, Callable[[str], Sequence[Any]]]) -> list[Variant]:
        return [
            Variant(
                name=name, role=role, call=partial(on_tensors, call), needs=rust if role == "strong" else ""
            )
            for role, (name, call) in zip(("naive", "strong", "paper"), calls, strict=True)
        ]

    length = bench.pick(smoke=2000, quick=20_000, full=100_000)
    for merges in bench.pick(smoke=(10,), quick=(50, 200), full=(100, 300, 1000)):
        yield Case(
            name="training",
            axes={"merges": merges, "bytes": length},
            inputs=partial(cut, length=length),
            variants=variants(
                ("counting anew", partial(train_slowly, merges=merges)),
                ("tokenizers (Rust)", partial(train_in_rust, merges=merges)),
                ("index and heap", partial(train, merges=merges)),
            ),
            cost={"forward": Cost(flops=0, bytes=length + 2 * merges * 8)},
        )

    merges = bench.pick(smoke=20, quick=1000, full=10_000)
    bpe = ByteBPE(train(data.text()[: bench.pick(smoke=5000, quick=None, full=None)], merges))
    in_rust = None if rust else rust_tokenizer(bpe.tokens, bpe.ranks)
    for length in bench.pick(smoke=(500,), quick=(2000, 50_000), full=(10_000, 100_000, 400_000)):
        for memory in ("first", "again"):
            yield encoding(bpe, in_rust, memory, length, partial(cut, length=length), variants)


def encoding(
    bpe: ByteBPE,
    in_rust: Any,
    memory: str,
    length: int,
    inputs: Callable[[torch.Generator], tuple[Text]],
    variants: Callable[..., list[Variant]],
) -> Case:
    """Encoding with an empty cache ("first"), or with a cache that holds all words of the text ("again")."""
    cold = memory == "first"

    def ours(text: str) -> list[int]:
        if cold:
            bpe.forget()
        return bpe.encode(text)

    def theirs(text: str) -> list[int]:
        if cold:
            in_rust.model._clear_cache()
        return in_rust.encode_batch_fast([text])[0].ids

    return Case(
        name="encoding",
        axes={"bytes": length, "merges": len(bpe.ranks), "words": memory},
        inputs=inputs,
        variants=variants(
            ("scanning anew", lambda text: [i for w in split(text) for i in bpe.merge_slowly(w.encode())]),
            ("tokenizers (Rust)", theirs),
            ("heap and cache", ours),
        ),
        cost={"forward": Cost(flops=0, bytes=length + length // 4 * 8)},
        fresh=cold,
    )
