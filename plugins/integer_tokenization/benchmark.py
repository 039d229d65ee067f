"""Times the conversion of integers to ids with merges, with the `tokenizers` package, and with a table."""

from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import Tensor

from readtrack import data
from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from ..byte_bpe import ByteBPE
from ..byte_bpe.rust import rust_tokenizer
from .cutting import NOTHING, NumberTable, merges_of_numbers


def in_rows(ids: list[list[int]], longest: int) -> Tensor:
    return torch.tensor([[*row, *[NOTHING] * (longest - len(row))] for row in ids])


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    count = bench.pick(smoke=300, quick=100_000, full=100_000)
    rust = bench.needs("tokenizers")

    @cache
    def learned() -> tuple[ByteBPE, NumberTable]:
        bpe = ByteBPE(merges_of_numbers(data.code()[:2_000_000], bench.pick(smoke=20, quick=600, full=600)))
        return bpe, NumberTable(bpe, count)

    @cache
    def in_rust() -> object:
        bpe = learned()[0]
        return rust_tokenizer(bpe.tokens, bpe.ranks)

    def by_merges(bpe: ByteBPE, integers: list[int]) -> list[list[int]]:
        return [list(bpe.merge_slowly(str(integer).encode())) for integer in integers]

    def by_package(bpe: ByteBPE, integers: list[int]) -> list[list[int]]:
        tokenizer = in_rust()
        tokenizer.model._clear_cache()
        return [found.ids for found in tokenizer.encode_batch_fast([str(integer) for integer in integers])]

    def on_tensors(function: Callable[[ByteBPE, list[int]], list[list[int]]]) -> Callable[[Tensor], Tensor]:
        def call(integers: Tensor) -> Tensor:
            bpe, table = learned()
            return in_rows(function(bpe, integers.tolist()), table.ids.shape[1]).to(integers.device)

        return call

    def by_table(integers: Tensor) -> Tensor:
        return learned()[1].encode(integers.cpu()).to(integers.device)

    for some in bench.pick(smoke=(20,), quick=(1000, 10_000), full=(1000, 10_000, 100_000)):
        yield Case(
            name="integers to ids",
            axes={"integers": some},
            inputs=lambda g, some=some: (torch.randint(count, (some,), generator=g),),
            variants=(
                Variant(name="merging anew", role="naive", call=on_tensors(by_merges)),
                Variant(name="tokenizers (Rust)", role="strong", call=on_tensors(by_package), needs=rust),
                Variant(name="a table", role="paper", call=by_table),
            ),
            cost={"forward": Cost(flops=0, bytes=some * 8 * 4)},
            fresh=True,
        )
