"""Times banded attention with global tokens, compared with full attention with a mask."""

from collections.abc import Callable, Iterator
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import banded_attention


def visible_pairs(tokens: int, everywhere: Tensor, window: int) -> Tensor:
    """True where a query may attend to a key: within the window, or at a global token."""
    at = torch.arange(tokens, device=everywhere.device)
    near = (at[:, None] - at).abs() <= window
    return near | (at == everywhere[..., None]).any(1)[:, None, None]


def with_mask(q: Tensor, k: Tensor, v: Tensor, everywhere: Tensor, *, window: int) -> tuple[Tensor, ...]:
    """Builds the mask outside the timed call, because the mask does not depend on the text."""
    return q, k, v, visible_pairs(q.shape[2], everywhere, window)


def formula(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
    """Attention that computes all scores and masks hidden pairs."""
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    return scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ v


def fused(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)


Numbers = tuple[tuple[int, ...], ...]


def in_numbers(q: Tensor, k: Tensor, v: Tensor, everywhere: Tensor) -> tuple[Tensor, Tensor, Tensor, Numbers]:
    """Converts the global tokens to tuples, which can be the keys of a cache of masks."""
    return q, k, v, tuple(tuple(of_text) for of_text in everywhere.tolist())


def flex(q: Tensor, k: Tensor, v: Tensor, everywhere: Numbers, *, window: int) -> Tensor:
    """torch's FlexAttention, which skips blocks of hidden pairs."""
    mask = flex_mask(q.shape[2], everywhere, window, q.device)
    return compiled_flex()(q, k, v, block_mask=mask)


@cache
def compiled_flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


@cache
def flex_mask(tokens: int, everywhere: Numbers, window: int, device: torch.device) -> object:
    from torch.nn.attention.flex_attention import create_block_mask

    batch = len(everywhere)
    wide = torch.zeros(batch, tokens, dtype=torch.bool, device=device)
    wide = wide.scatter(1, torch.tensor(everywhere, device=device), True)
    return create_block_mask(
        lambda text, _head, query, key: ((query - key).abs() <= window) | wide[text, key],
        batch,
        None,
        tokens,
        tokens,
        device=device,
    )


def banded(q: Tensor, k: Tensor, v: Tensor, everywhere: Tensor, *, window: int) -> Tensor:
    return banded_attention(q, k, v, window=window, everywhere=everywhere)


def pairs(tokens: int, window: int, globals_: int) -> int:
    """The number of visible pairs if the global tokens are the first tokens."""
    near = sum(min(i + window, tokens - 1) - max(i - window, 0) + 1 for i in range(tokens))
    inside = sum(min(g + window, tokens - 1) - max(g - window, 0) + 1 for g in range(globals_))
    return near + globals_ * tokens - inside


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    batch, heads, dim, window = bench.pick(smoke=(2, 2, 4, 3), quick=(1, 2, 64, 64), full=(1, 12, 64, 256))
    count = 2
    # In the quick run, full attention's backward passes over longer texts would take a third of the time.
    longest = bench.pick(smoke=10, quick=512, full=16_384)
    for tokens in bench.pick(smoke=(10,), quick=(512, 1024, 2048, 4096), full=(4096, 8192, 16_384)):

        def inputs(g: torch.Generator, tokens: int = tokens) -> tuple[Tensor, ...]:
            q, k, v = torch.randn(3, batch, heads, tokens, dim, generator=g)
            return q, k, v, torch.arange(count).expand(batch, -1)

        cost = Cost.attention(
            batch, heads, tokens, dim, itemsize=bench.dtype.itemsize, pairs=pairs(tokens, window, count)
        )
        yield Case(
            name="attention",
            axes={"tokens": tokens},
            inputs=inputs,
            variants=(
                Variant(
                    name="full attention, masked",
                    role="naive",
                    call=formula,
                    prepare=partial(with_mask, window=window),
                ),
                Variant(
                    name="torch SDPA with a mask",
                    role="strong",
                    call=fused,
                    prepare=partial(with_mask, window=window),
                ),
                # On a CPU, compiling takes longer than measuring, and there is no backward pass.
                Variant(
                    name="FlexAttention",
                    role="compiled",
                    call=partial(flex, window=window),
                    needs=bench.needs("cuda"),
                    prepare=in_numbers,
                ),
                Variant(name="banded attention", role="paper", call=partial(banded, window=window)),
            ),
            cost=cost if tokens <= longest else {"forward": cost["forward"]},
            gradients=(0, 1, 2),
        )
