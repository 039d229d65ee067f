"""Times dynamic masking, which uses given random numbers to choose and replace a batch's tokens."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import fresh_mask

MASK, RATE = 4, 0.15


def token_by_token(ids: Tensor, dice: Tensor, fate: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Decide about one token after another."""
    read, chosen = ids.flatten().tolist(), []
    draws = (part.flatten().tolist() for part in (dice, fate, drawn))
    for index, (die, what, other) in enumerate(zip(*draws, strict=True)):
        chosen.append(die < RATE)
        if die < RATE and what < 0.8:
            read[index] = MASK
        elif die < RATE and what >= 0.9:
            read[index] = other
    return torch.tensor(read, device=ids.device).view_as(ids), torch.tensor(
        chosen, device=ids.device
    ).view_as(ids)


def filled_in(ids: Tensor, dice: Tensor, fate: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Fill whole tensors with boolean masks, as data collators do."""
    chosen = dice < RATE
    read = ids.masked_fill(chosen & (fate < 0.8), MASK)
    other = chosen & (fate >= 0.9)
    read[other] = drawn[other]
    return read, chosen


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    for batch, tokens in bench.pick(
        smoke=((2, 9),), quick=((8, 512), (32, 512)), full=((256, 512), (8192, 512))
    ):
        count = batch * tokens

        def inputs(g: torch.Generator, batch: int = batch, tokens: int = tokens) -> tuple[Tensor, ...]:
            ids, drawn = (torch.randint(5, 50_265, (batch, tokens), generator=g) for _ in range(2))
            dice, fate = (torch.rand(batch, tokens, generator=g) for _ in range(2))
            return ids, dice, fate, drawn

        yield Case(
            name="a fresh mask",
            axes={"texts": batch, "tokens": tokens},
            inputs=inputs,
            variants=(
                Variant(name="token by token", role="naive", call=token_by_token),
                Variant(name="filled in", role="strong", call=filled_in),
                Variant(
                    name="chosen in one pass", role="paper", call=partial(fresh_mask, mask=MASK, rate=RATE)
                ),
            ),
            # Reads tokens, random numbers and replacements. Writes tokens and one byte per choice.
            cost={"forward": Cost(flops=0, bytes=count * (3 * 8 + 2 * bench.dtype.itemsize + 1))},
        )
